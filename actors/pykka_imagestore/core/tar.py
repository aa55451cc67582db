"""Reading tar: headers, and the extension headers that belong to them. Pure: bytes come from a ``Source``.

Everything is bytes, since a name in a tar need not be UTF-8.

Spec:
    POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

BLOCK: Final = 512
MAX_EXTENSION_BYTES: Final = 1 << 20
MAX_PATH_BYTES: Final = 4096

FILE, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE, _GNU_VOLUME = b"xgLKSV"
_FILES = frozenset(b"\x0007")
_WITHOUT_BODY = frozenset((HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))

_ZERO_BLOCK = bytes(BLOCK)
_XATTR = b"SCHILY.xattr."
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s6s2s64s8s8s155s12x")
_BLANKS = b" \0"


class TarError(Exception):
    """A tar is malformed, or asks for what is not supported; the argument is the rest of a sentence."""


class Source(Protocol):
    """Bytes, in order."""

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; fewer only at the end."""

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes; the end is noticed by the next ``take``."""

    def at_end(self) -> bool:
        """Tell whether no byte is left."""


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
    index = 0
    defaults: dict[bytes, bytes] = {}
    overrides: dict[bytes, bytes] = {}
    while (header := _next_header(source)) is not None:
        kind, size = header[7][0], _number(header[4], "size")
        if kind in (_PAX, _PAX_GLOBAL):
            records = parse_pax(_extension(source, size))
            (defaults if kind == _PAX_GLOBAL else overrides).update(records)
        elif kind == _GNU_LONG_NAME:
            overrides[b"path"] = _until_nul(_extension(source, size))
        elif kind == _GNU_LONG_LINK:
            overrides[b"linkpath"] = _until_nul(_extension(source, size))
        elif kind == _GNU_VOLUME:
            _skip_padded(source, size)
        else:
            entry = _entry(index, header, {**defaults, **overrides} if defaults else overrides)
            yield entry
            source.skip(-entry.size % BLOCK)
            index += 1
            if overrides:
                overrides = {}
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
    """Parse the records of a pax extended header, ``LENGTH KEY=VALUE\\n`` each.

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
        if not (space < end <= len(data) and data[end - 1] == ord("\n") and equals and key and b"\0" not in key):
            msg = "has a malformed pax record"
            raise TarError(msg)
        if b"\0" in value and key in (b"path", b"linkpath", b"uname", b"gname"):
            msg = f"has a NUL byte in its pax {key.decode()}"
            raise TarError(msg)
        records[key] = value
        position = end
    return records


def _next_header(source: Source) -> tuple[bytes, ...] | None:
    block = source.take(BLOCK)
    if len(block) < BLOCK:
        if not block:
            return None
        msg = "the archive ends inside a header"
        raise TarError(msg)
    if block == _ZERO_BLOCK:
        return None
    fields: tuple[bytes, ...] = _FIELDS.unpack(block)
    stated = _number(fields[6], "checksum")
    if sum(block) - sum(fields[6]) + 256 != stated and _signed_checksum(block, fields[6]) != stated:
        msg = "the header's checksum is wrong: this is no tar, or it is damaged here"
        raise TarError(msg)
    return fields


def _signed_checksum(block: bytes, field: bytes) -> int:
    """Some old tars sum signed characters."""
    return sum(struct.unpack("512b", block)) - sum(struct.unpack("8b", field)) + 256


def _entry(index: int, header: tuple[bytes, ...], overrides: dict[bytes, bytes]) -> Entry:
    name, mode, uid, gid, size, mtime, _, flag, link, magic, _, _, major, minor, prefix = header
    kind = flag[0]
    path = name.partition(b"\0")[0]
    if magic == b"ustar\0" and prefix[0]:
        path = prefix.partition(b"\0")[0] + b"/" + path
    if kind in _FILES:
        kind = FILE
    entry = Entry(
        index,
        kind,
        path,
        link.partition(b"\0")[0],
        _number(mode, "mode") & 0o7777,
        _number(uid, "uid"),
        _number(gid, "gid"),
        _number(size, "size"),
        _number(mtime, "mtime") * 1_000_000_000,
        _number(major, "device number") if kind in (CHARACTER_DEVICE, BLOCK_DEVICE) else 0,
        _number(minor, "device number") if kind in (CHARACTER_DEVICE, BLOCK_DEVICE) else 0,
        {},
    )
    if overrides:
        _override(entry, overrides)
    if kind == FILE and entry.name.endswith(b"/"):
        entry.kind = DIRECTORY  # as before ustar, and as some tools still write
    if entry.kind in _WITHOUT_BODY:
        entry.size = 0
    _refuse_unsupported(entry)
    return entry


def _override(entry: Entry, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = _decimal(value, "size")
        elif key == b"uid":
            entry.uid = _decimal(value, "uid")
        elif key == b"gid":
            entry.gid = _decimal(value, "gid")
        elif key == b"mtime":
            entry.mtime_ns = parse_time(value)
        elif key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
        elif key.startswith(b"GNU.sparse."):
            msg = "is a sparse file, which this version does not support"
            raise TarError(msg)


def _refuse_unsupported(entry: Entry) -> None:
    if entry.kind == _GNU_SPARSE:
        msg = "is a sparse file, which this version does not support"
        raise TarError(msg)
    if entry.kind != FILE and entry.kind not in _WITHOUT_BODY:
        msg = f"is of type {chr(entry.kind)!r}, which is none that a layer may have"
        raise TarError(msg)
    if entry.size < 0:
        msg = "has a negative size"
        raise TarError(msg)


def parse_time(value: bytes) -> int:
    """Return the nanoseconds of a pax time, decimal seconds with any number of digits; TarError if it is none."""
    whole, _, fraction = value.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > 18:
        msg = f"has a malformed time {value[:40]!r}"
        raise TarError(msg)
    nanoseconds = int(digits) * 1_000_000_000 + int((fraction + b"000000000")[:9])
    return -nanoseconds if whole.startswith(b"-") else nanoseconds


def _number(field: bytes, what: str) -> int:
    """Return a header's number: octal, or base-256 for what octal cannot hold."""
    try:
        return _NUMBERS[field]
    except KeyError:
        pass
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if abs(value) >= 1 << 63:
            msg = f"has a {what} that is too large"
            raise TarError(msg)
        return value
    digits = field.strip(_BLANKS).partition(b"\0")[0].rstrip()
    if digits.translate(None, b"01234567"):
        msg = f"has a malformed {what} {field!r}"
        raise TarError(msg)
    value = int(digits or b"0", 8)
    if len(_NUMBERS) < 4096:
        _NUMBERS[field] = value
    return value


_NUMBERS: dict[bytes, int] = {}  # modes and owners repeat in every header


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
    source.skip(-size % BLOCK)
    return data


def _skip_padded(source: Source, size: int) -> None:
    if size < 0:
        msg = "has a negative size"
        raise TarError(msg)
    source.skip(size + -size % BLOCK)


def _until_nul(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


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
