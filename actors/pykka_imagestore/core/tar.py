"""Reading tar: headers, and the extension headers that belong to them. Pure: bytes come from a ``Source``.

Everything is bytes, since a name in a tar need not be UTF-8.

Spec:
    POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

BLOCK: Final = 512
MAX_EXTENSION_BYTES: Final = 1 << 20
MAX_PATH_BYTES: Final = 4096

FILE, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE, _GNU_VOLUME = b"xgLKSV"
_LINKS = frozenset((HARD_LINK, SYMLINK))
_DEVICES = frozenset((CHARACTER_DEVICE, BLOCK_DEVICE))
_FILES = frozenset(b"\x0007")
_WITHOUT_BODY = frozenset((HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))

_ZERO_BLOCK = bytes(BLOCK)
_EXTENSIONS = frozenset((_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_VOLUME))
_NUMBERS = frozenset((b"size", b"uid", b"gid"))
_XATTR = b"SCHILY.xattr."
_NO_XATTRS: dict[bytes, bytes] = {}
_BLANK_CHECKSUM = 8 * ord(" ")
_MAX_REMEMBERED = 20_000
_REMEMBERED: dict[bytes, int] = {}
_SUMS: dict[bytes, int] = {}
_PERMISSIONS: dict[bytes, tuple[int, int, int]] = {}


class TarError(Exception):
    """A tar is malformed, or asks for what is not supported; the argument is the rest of a sentence.

    Attributes:
        where: Index and name of the entry that it is about, if that is not the one at hand.
    """

    where: tuple[int, bytes] | None = None


class Source(Protocol):
    """Bytes, in order."""

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; fewer only at the end."""

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes; the end is noticed by the next ``take``."""


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


def read_entries(source: Source) -> Iterator[Entry]:
    """Yield the entries of a tar.

    The consumer takes or skips the ``size`` bytes of an entry's body before it asks for the next entry. Ends at the
    first zero block, or where the bytes end between two entries.

    Raises:
        TarError: The archive is malformed there.
    """
    index = padding = 0
    defaults: dict[bytes, bytes] = {}
    overrides: dict[bytes, bytes] = {}
    while (block := _next_header(source, padding)) is not None:
        kind = block[156]
        if kind in _EXTENSIONS:
            data = _extension(source, _number(block[124:136]))
            _apply_extension(kind, data, defaults, overrides)
            padding = -len(data) % BLOCK
            continue
        entry = _entry(index, kind, block)
        if defaults or overrides:
            _override(entry, {**defaults, **overrides})
            overrides = {}
        if entry.kind != FILE or entry.size < 0 or entry.name[-1:] == b"/":
            _settle(entry, source)
        padding = -entry.size % BLOCK
        yield entry
        index += 1
    if overrides:
        msg = "the archive ends after an extension header, before its entry"
        raise TarError(msg)


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


class EscapeError(TarError):
    """A name leads out of the root."""


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Parse the records of a pax extended header, lines of ``LENGTH KEY=VALUE``.

    Raises:
        TarError: A record's length or shape is wrong, or a name in it has a NUL byte.
    """
    records = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space]
        end = position + int(digits) if space > 0 and digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        sound = position < space < end <= len(data) and data[end - 1] == ord("\n")
        if not (sound and equals and key and b"\0" not in key):
            msg = "has a malformed pax record"
            raise TarError(msg)
        if b"\0" in value and key in (b"path", b"linkpath", b"uname", b"gname"):
            msg = f"has a NUL byte in its pax {key.decode()}"
            raise TarError(msg)
        records[key] = value
        position = end
    return records


def _next_header(source: Source, padding: int) -> bytes | None:
    """Return the next header, or None at the end; ``padding`` bytes come before it."""
    block = source.take(padding + BLOCK)[padding:]
    if len(block) < BLOCK:
        if not block:
            return None
        msg = "the archive ends inside a header"
        raise TarError(msg)
    if block == _ZERO_BLOCK:
        return None
    # The low half of Adler-32 is one more than the sum, modulo 65521, and far quicker than to sum here. That of half a
    # block is never more than that; a whole one's may be, and then two sums would look alike.
    halves = (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF)
    if halves != _SUMS.get(block[148:156]):
        _check_sum(block)
    return block


def _check_sum(block: bytes) -> None:
    """Compare the header's sum, in which its own field counts as blanks; some old tars summed signed characters.

    Remembers what the halves' Adler-32s add up to if a sum is right.
    """
    field = block[148:156]
    stated = _number(field)
    blanked = block[:148] + b" " * 8 + block[156:]
    if stated == sum(blanked):
        _SUMS[field] = stated + sum(field) - _BLANK_CHECKSUM + 2
        _keep_small(_SUMS)
    elif stated != sum(struct.unpack("512b", blanked)):
        msg = "the header's checksum is wrong: this is no tar, or it is damaged here"
        raise TarError(msg)


def _entry(index: int, kind: int, block: bytes) -> Entry:
    path = block[: block.find(b"\0", 0, 100)] if block[99] == 0 else block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":
        path = block[345:500].partition(b"\0")[0] + b"/" + path
    entry = Entry(
        index,
        FILE if kind in _FILES else kind,
        path,
        b"",
        *_permissions(block[100:124]),
        _number(block[124:136]),
        _number(block[136:148]) * 1_000_000_000,
        0,
        0,
        _NO_XATTRS,
    )
    if kind in _LINKS:
        entry.link = block[157:257].partition(b"\0")[0]
    elif kind in _DEVICES:
        entry.major, entry.minor = _number(block[329:337]), _number(block[337:345])
    return entry


def _permissions(fields: bytes) -> tuple[int, int, int]:
    """Return mode, uid and gid; few headers differ in them."""
    known = _PERMISSIONS.get(fields)
    if known is None:
        known = _PERMISSIONS[fields] = (
            _number(fields[:8]) & 0o7777,
            _number(fields[8:16]),
            _number(fields[16:]),
        )
        _keep_small(_PERMISSIONS)
    return known


def _apply_extension(kind: int, data: bytes, defaults: dict[bytes, bytes], overrides: dict[bytes, bytes]) -> None:
    if kind == _PAX_GLOBAL:
        defaults.update(parse_pax(data))
    elif kind == _PAX:
        overrides.update(parse_pax(data))
    elif kind != _GNU_VOLUME:
        overrides[b"path" if kind == _GNU_LONG_NAME else b"linkpath"] = data.partition(b"\0")[0]


def _override(entry: Entry, records: dict[bytes, bytes]) -> None:
    xattrs = {}
    for key, value in records.items():
        if key.startswith(_XATTR):
            xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue  # takes back what a global header said
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key in _NUMBERS:
            setattr(entry, key.decode(), _decimal(value, key.decode()))
        elif key == b"mtime":
            entry.mtime_ns = parse_time(value)
        elif key.startswith(b"GNU.sparse."):
            msg = "is a sparse file, which this version does not support"
            raise TarError(msg)
    if xattrs:
        entry.xattrs = xattrs


def _settle(entry: Entry, source: Source) -> None:
    """Settle what an entry is that may be no plain file; refuse what is not supported."""
    if entry.kind in _WITHOUT_BODY:
        entry.size = 0
    elif entry.kind == _GNU_SPARSE:
        msg = "is a sparse file, which this version does not support"
        raise TarError(msg)
    elif entry.kind != FILE:
        msg = f"is of type {chr(entry.kind)!r}, which is none that a layer may have"
        raise TarError(msg)
    elif entry.size < 0:
        msg = "has a negative size"
        raise TarError(msg)
    else:
        # A folder, as before ustar and as some tools still write; a body that it has is passed over, as Go does.
        source.skip(entry.size + -entry.size % BLOCK)
        entry.kind, entry.size = DIRECTORY, 0


def parse_time(value: bytes) -> int:
    """Return the nanoseconds of a pax time, decimal seconds with any number of digits; TarError if it is none."""
    whole, _, fraction = value.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > 18:
        msg = f"has a malformed time {value[:40]!r}"
        raise TarError(msg)
    nanoseconds = int(digits) * 1_000_000_000 + int((fraction + b"000000000")[:9])
    return -nanoseconds if whole.startswith(b"-") else nanoseconds


def _number(field: bytes) -> int:
    """Return a header's number: octal, or base-256 for what octal cannot hold.

    Most fields of most headers are ones seen before, so they are remembered.
    """
    value = _REMEMBERED.get(field)
    if value is None:
        value = _REMEMBERED[field] = _base_256(field) if field[0] & 0x80 else _octal(field)
        _keep_small(_REMEMBERED)
    return value


def _keep_small(memory: dict[bytes, Any]) -> None:
    if len(memory) > _MAX_REMEMBERED:
        memory.clear()


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip()  # some tools leave garbage behind the NUL
    if digits.translate(None, b"01234567"):
        msg = f"has a malformed number {field!r}"
        raise TarError(msg)
    return int(digits or b"0", 8)


def _base_256(field: bytes) -> int:
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    if field[0] & 0x40:
        value -= 1 << bits
    if abs(value) >= 1 << 63:
        msg = f"has a number that is too large, {field!r}"
        raise TarError(msg)
    return value


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 19:
        msg = f"has a malformed {what} {value[:40]!r}"
        raise TarError(msg)
    return int(value)


def _extension(source: Source, size: int) -> bytes:
    if not 0 <= size <= MAX_EXTENSION_BYTES:
        msg = f"has an extension header of {size} bytes; {MAX_EXTENSION_BYTES} is the limit"
        raise TarError(msg)
    data = source.take(size)
    if len(data) < size:
        msg = "the archive ends inside an extension header"
        raise TarError(msg)
    return data


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
