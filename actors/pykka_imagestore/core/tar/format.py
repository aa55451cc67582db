"""The tar format: what an entry is, the numbers in its header, and what its name means.

Everything is bytes, since a name in a tar need not be UTF-8.

Spec:
    POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

BLOCK: Final = 512
MAX_PATH_BYTES: Final = 4096
MAX_DECIMAL_DIGITS: Final = 19  # of what 63 bits hold

FILE, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE, GNU_VOLUME = b"xgLKSV"
EXTENSIONS: Final = frozenset((PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK, GNU_VOLUME))

NO_XATTRS: Final[dict[bytes, bytes]] = {}
_MAX_SEEN = 2000  # more take memory and are no quicker, since they are in no cache of the CPU
_NUMBERS_SEEN: dict[bytes, int] = {}


class TarError(Exception):
    """A tar is malformed, or asks for what is not supported.

    Its text is the rest of a sentence about an entry; which archive and which layer it is in, the caller knows.

    Attributes:
        reason: That text.
        where: Index and name of the entry; None if it is the one at hand.
    """

    def __init__(self, reason: str, where: tuple[int, bytes] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.where = reason, where

    def at(self, index: int, name: bytes) -> Self:
        """Return the same error, said of the entry that it is about."""
        return type(self)(self.reason, (index, name))


class OverLimitError(TarError):
    """A tar asks for more than a limit allows.

    Attributes:
        limit: The limit's name in ``Limits``.
    """

    def __init__(self, reason: str, limit: str, where: tuple[int, bytes] | None = None) -> None:
        super().__init__(reason, where)
        self.limit = limit

    def at(self, index: int, name: bytes) -> Self:
        """Return the same error, said of the entry that it is about."""
        return type(self)(self.reason, self.limit, (index, name))


class EscapeError(TarError):
    """A name leads out of the root."""


class Source(Protocol):
    """Bytes, in order."""

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; fewer only at the end."""

    def skip(self, size: int) -> None:
        """Skip ``size`` bytes; only the next ``take`` notices the end."""


@dataclass(frozen=True, slots=True)
class SparseMap:
    """Which parts of a file its body holds, one after the other; the rest of the file is holes.

    Attributes:
        size_bytes: Of the file, holes included.
        segments: Offset and size of each part, in order.
    """

    size_bytes: int
    segments: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Entry:
    """One entry, with all that its extension headers say.

    Attributes:
        index: Position in the archive, from 0; extension headers do not count.
        kind: A type flag: FILE, HARD_LINK, ...
        name: As the archive has it.
        link: Target of a link, as the archive has it.
        mode: Permission bits, with set-user-ID, set-group-ID and sticky.
        size: Bytes of the body that follows.
        mtime_ns: Nanoseconds since the epoch.
        xattrs: Extended attributes.
        sparse: Where the body belongs, if the file has holes.
    """

    index: int
    kind: int
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
    sparse: SparseMap | None = None


def clean_path(name: bytes) -> bytes:
    """Return a name as a path below the root: no leading ``/`` or ``./``, no ``.``, ``..`` or doubled ``/``.

    The root itself is ``b""``.

    Raises:
        EscapeError: It leads above the root.
        TarError: It is longer than any path may be.
    """
    if name[:2] == b"./":
        name = name[2:]
    name = name.rstrip(b"/")
    if len(name) > MAX_PATH_BYTES:
        msg = f"has a path of {len(name)} bytes; the kernel takes {MAX_PATH_BYTES}"
        raise TarError(msg)
    if b"//" in name or b"/." in name or name[:1] in (b"/", b"."):
        return b"/".join(_clean_parts(name))
    return name


def _clean_parts(name: bytes) -> list[bytes]:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                msg = "points outside the root file system"
                raise EscapeError(msg)
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


def parse_number(field: bytes, what: str) -> int:
    """Return a number of a header, ``what`` it is of: octal, or base-256 for what octal cannot hold.

    Numbers are remembered, since most fields of a header have been seen before.
    """
    value = _NUMBERS_SEEN.get(field)
    if value is None:
        value = _NUMBERS_SEEN[field] = _parse_base_256(field, what) if field[0] & 0x80 else _parse_octal(field, what)
        keep_bounded(_NUMBERS_SEEN)
    return value


def parse_decimal(value: bytes, what: str) -> int:
    """Return a decimal number of a pax record, ``what`` it is of; any number of zeros may lead it."""
    if not value.isdigit() or len(value.lstrip(b"0")) > MAX_DECIMAL_DIGITS:
        msg = f"has a malformed {what} {value[:40]!r}"
        raise TarError(msg)
    return int(value.lstrip(b"0") or b"0")  # Python refuses to convert more than 4,300 digits


def _parse_octal(field: bytes, what: str) -> int:
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip()  # some tools leave garbage behind the NUL
    if digits.translate(None, b"01234567"):
        msg = f"has a malformed {what} {field!r}"
        raise TarError(msg)
    return int(digits or b"0", 8)


def _parse_base_256(field: bytes, what: str) -> int:
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    if field[0] & 0x40:
        value -= 1 << bits
    if abs(value) >= 1 << 63:
        msg = f"has a {what} that is too large, {field!r}"
        raise TarError(msg)
    return value


def keep_bounded(memory: dict[bytes, Any]) -> None:
    """Forget everything before it grows large: a hostile tar may have no two headers alike."""
    if len(memory) > _MAX_SEEN:
        memory.clear()
