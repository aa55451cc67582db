"""Writes the headers of a tar: ustar, and pax records for what that cannot hold. The same entry gives the same bytes.

Spec:
    POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

import zlib
from typing import Final

from pykka_imagestore.core.tar.format import BLOCK, BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, PAX, Entry

END: Final = bytes(2 * BLOCK)
_NAME_BYTES, _PREFIX_BYTES = 100, 155
_SMALL, _LARGE = 8**7 - 1, 8**11 - 1  # what a field of 8 or 12 bytes holds
_SECOND = 1_000_000_000  # in nanoseconds
_XATTR = b"SCHILY.xattr."
_MAGIC = b"ustar\x0000" + bytes(64)
_NO_DEVICE = b"0000000\0" * 2
_BLANK_CHECKSUM = b" " * 8
_TEXTS = (b"path", b"linkpath", b"GNU.sparse.name")
_SPARSE = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))

_Records = list[tuple[bytes, bytes]]


def pack_entry(entry: Entry) -> bytes:
    """Return all that comes before an entry's body; of a sparse file that includes its map.

    Args:
        entry: ``size`` is that of its body, without the map. The name of a directory has no ``/`` at its end; that of
            the root is empty. Extended attributes that ``has_key`` says no to are left out.
    """
    name = (entry.name or b".") + b"/" if entry.kind == DIRECTORY else entry.name
    records: _Records = []
    size, map_ = entry.size, b""
    if entry.sparse is not None:
        records += [*_SPARSE, (b"GNU.sparse.name", name), (b"GNU.sparse.realsize", b"%d" % entry.sparse.size_bytes)]
        map_ = _pack_map(entry.sparse.segments)
        name, size = b"GNUSparseFile.0/" + name.rpartition(b"/")[2], size + len(map_)
    place = _place_of(name)
    if place is None:
        records.append((b"path", name))
        place = name[:_NAME_BYTES], b""
    if len(entry.link) > _NAME_BYTES:
        records.append((b"linkpath", entry.link))
    fields = _numbers(entry, size, records)
    header = _with_checksum(entry.kind, place, fields, entry.link, _device(entry))
    records += [(_XATTR + key, value) for key, value in sorted(entry.xattrs.items()) if has_key(key)]
    return (_pack_pax(records, name) if records else b"") + header + map_


def has_key(xattr: bytes) -> bool:
    """Tell whether a record can have an extended attribute of that name: ``=`` ends a key."""
    return b"=" not in xattr


def _pack_pax(records: _Records, name: bytes) -> bytes:
    """Return an extended header for the entry of that name."""
    if not all(map(_is_text, (value for key, value in records if key in _TEXTS))):
        records = [(b"hdrcharset", b"BINARY"), *records]  # or the names would have to be UTF-8
    data = b"".join(_pack_record(key, value) for key, value in records)
    place = b"PaxHeaders/" + name.rstrip(b"/").rpartition(b"/")[2]
    fields = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % len(data) + b"0" * 11 + b"\0"
    return _with_checksum(PAX, (place[:_NAME_BYTES], b""), fields, b"", _NO_DEVICE) + data + bytes(-len(data) % BLOCK)


def _numbers(entry: Entry, size: int, records: _Records) -> bytes:
    """Return mode, owner, size and time as fields, and add a record for each that its field cannot hold."""
    seconds, fraction = divmod(entry.mtime_ns, _SECOND)
    if fraction or not 0 <= seconds <= _LARGE:
        records.append((b"mtime", _decimal(entry.mtime_ns)))
    for key, value, most in ((b"uid", entry.uid, _SMALL), (b"gid", entry.gid, _SMALL), (b"size", size, _LARGE)):
        if value > most:
            records.append((key, b"%d" % value))
    return b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        entry.mode,
        entry.uid if entry.uid <= _SMALL else 0,
        entry.gid if entry.gid <= _SMALL else 0,
        size if size <= _LARGE else 0,
        min(max(seconds, 0), _LARGE),
    )


def _device(entry: Entry) -> bytes:
    if entry.kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
        return b"%07o\0%07o\0" % (entry.major, entry.minor)
    return _NO_DEVICE


def _place_of(name: bytes) -> tuple[bytes, bytes] | None:
    """Return a name as a header's two fields, name and prefix; None if it does not fit."""
    if len(name) <= _NAME_BYTES:
        return name, b""
    slash = name.find(b"/", len(name) - _NAME_BYTES - 1, len(name) - 1)
    return (name[slash + 1 :], name[:slash]) if 0 < slash <= _PREFIX_BYTES else None


def _with_checksum(kind: int, place: tuple[bytes, bytes], fields: bytes, link: bytes, device: bytes) -> bytes:
    name, prefix = place
    before = name.ljust(_NAME_BYTES, b"\0") + fields
    after = b"%c%s%s%s%s" % (kind, link[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"), _MAGIC, device, prefix)
    after = after.ljust(BLOCK - len(before) - len(_BLANK_CHECKSUM), b"\0")
    block = before + _BLANK_CHECKSUM + after
    # The low half of Adler-32 is one more than the sum, modulo 65521, and far quicker than to sum here. ASCII does not
    # come to more than that.
    total = (zlib.adler32(block) & 0xFFFF) - 1 if block.isascii() else sum(block)
    return b"%s%06o\0 %s" % (before, total, after)


def _pack_record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)  # its own digits count, and may be one more for that
    return b"%d %s=%s\n" % (length, key, value)


def _pack_map(segments: tuple[tuple[int, int], ...]) -> bytes:
    numbers = (len(segments), *(number for segment in segments for number in segment))
    data = b"".join(b"%d\n" % number for number in numbers)
    return data + bytes(-len(data) % BLOCK)


def _decimal(time_ns: int) -> bytes:
    seconds, fraction = divmod(abs(time_ns), _SECOND)
    return b"%s%d%s" % (b"-" if time_ns < 0 else b"", seconds, (b".%09d" % fraction).rstrip(b"0").rstrip(b"."))


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
