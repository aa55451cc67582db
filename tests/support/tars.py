"""Tars made by hand, block by block: what no tool would write can be written here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

BLOCK = 512
END = bytes(2 * BLOCK)

FILE, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = (b"%d" % kind for kind in range(7))
PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK = b"x", b"g", b"L", b"K"


def octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def base_256(number: int, width: int) -> bytes:
    """Return what GNU tar writes where octal digits do not do."""
    data = bytearray(number.to_bytes(width, "big", signed=True))
    data[0] |= 0x80
    return bytes(data)


def header(
    name: bytes,
    kind: bytes = FILE,
    *,
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
) -> bytes:
    """Return a header with a right checksum; a field given as bytes goes in as it is, a long name before it."""
    numbers = ((mode, 8), (uid, 8), (gid, 8), (size, 12), (mtime, 12))
    long = (long_name(name) if len(name) > 100 else b"") + (long_name(link, GNU_LONG_LINK) if len(link) > 100 else b"")
    block = name[:100].ljust(100, b"\0") + b"".join(_field(*number) for number in numbers) + b" " * 8 + kind
    block += (
        link[:100].ljust(100, b"\0")
        + magic
        + bytes(64)
        + _field(major, 8)
        + _field(minor, 8)
        + prefix.ljust(155, b"\0")
    )
    return long + with_checksum(block.ljust(BLOCK, b"\0"))


def with_checksum(block: bytes, *, signed: bool = False) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    total = sum(blank) - (256 * sum(byte > 127 for byte in blank) if signed else 0)
    return blank[:148] + b"%06o\0 " % total + blank[156:]


def padded(body: bytes) -> bytes:
    return body + bytes(-len(body) % BLOCK)


def file(name: bytes, body: bytes = b"", **fields: Any) -> bytes:
    return header(name, FILE, **{"size": len(body), **fields}) + padded(body)


def files(names: Iterable[bytes], body: bytes) -> Iterator[bytes]:
    """Yield what ``file`` returns for each name, in a tenth of its time: a test wants 100,000 of them."""
    before, after = file(b"", body)[100:148], file(b"", body)[156:]
    total = sum(before) + sum(b" " * 8) + sum(after[: BLOCK - 156])
    for name in names:
        yield name.ljust(100, b"\0") + before + b"%06o\0 " % (total + sum(name)) + after


def directory(name: bytes, **fields: Any) -> bytes:
    return header(name, DIRECTORY, **{"mode": 0o755, **fields})


def symlink(name: bytes, target: bytes, **fields: Any) -> bytes:
    return header(name, SYMLINK, link=target, **{"mode": 0o777, **fields})


def hard_link(name: bytes, target: bytes, **fields: Any) -> bytes:
    return header(name, HARD_LINK, link=target, **fields)


def whiteout(name: bytes) -> bytes:
    directory, slash, base = name.rpartition(b"/")
    return file(directory + slash + b".wh." + base)


def opaque(directory: bytes) -> bytes:
    return file(directory + b"/.wh..wh..opq" if directory else b".wh..wh..opq")


def pax(records: dict[bytes, bytes], kind: bytes = PAX) -> bytes:
    """Return an extended header."""
    return raw_pax(b"".join(pax_record(key, value) for key, value in records.items()), kind)


def raw_pax(data: bytes, kind: bytes = PAX) -> bytes:
    return header(b"././@PaxHeader", kind, size=len(data)) + padded(data)


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest
    while length != rest + len(b"%d" % length):  # the length counts its own digits
        length = rest + len(b"%d" % length)
    return b"%d %s=%s\n" % (length, key, value)


def long_name(name: bytes, kind: bytes = GNU_LONG_NAME) -> bytes:
    return header(b"././@LongLink", kind, size=len(name) + 1, magic=b"ustar  \0") + padded(name + b"\0")


def gnu_sparse(name: bytes, size: int | bytes, segments: list[tuple[int, int]], body: bytes, **fields: Any) -> bytes:
    """Return a sparse file as GNU tar's own format has it: four segments in the header, 21 in each block behind it."""
    fields = {"magic": b"ustar  \0", "size": len(body), **fields}
    block = bytearray(header(name, b"S", **fields))
    block[386:482] = _segments(segments[:4], 96)
    more = [segments[start : start + 21] for start in range(4, len(segments), 21)]
    block[482] = bool(more)
    block[483:495] = _field(size, 12)
    behind = [
        _segments(some, 504) + bytes([number < len(more)]) + bytes(7) for number, some in enumerate(more, start=1)
    ]
    return with_checksum(bytes(block)) + b"".join(behind) + padded(body)


def pax_sparse(
    version: str, name: bytes, size: int, segments: list[tuple[int, int]], body: bytes, **fields: Any
) -> bytes:
    """Return a sparse file as one of the pax formats has it: 0.0, 0.1 or 1.0."""
    numbers = [number for segment in segments for number in segment]
    if version == "0.0":
        pairs = [pax_record(b"GNU.sparse." + (b"offset", b"numbytes")[n % 2], b"%d" % x) for n, x in enumerate(numbers)]
        counted = {b"GNU.sparse.size": size, b"GNU.sparse.numblocks": len(segments)}
        data = b"".join([*(pax_record(key, b"%d" % number) for key, number in counted.items()), *pairs])
        return raw_pax(data) + file(name, body, **fields)
    if version == "0.1":
        joined = b",".join(b"%d" % number for number in numbers)
        records = {b"GNU.sparse.size": b"%d" % size, b"GNU.sparse.name": name, b"GNU.sparse.map": joined}
        return pax(records) + file(b"GNUSparseFile.0/f", body, **fields)
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": name}
    lines = b"".join(b"%d\n" % number for number in (len(segments), *numbers))
    return pax({**records, b"GNU.sparse.realsize": b"%d" % size}) + file(
        b"GNUSparseFile.0/f", padded(lines) + body, **fields
    )


def tar(*parts: bytes) -> bytes:
    return b"".join(parts) + END


def _segments(segments: list[tuple[int, int]], width: int) -> bytes:
    return b"".join(_field(number, 12) for segment in segments for number in segment).ljust(width, b"\0")


def _field(value: int | bytes, width: int) -> bytes:
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")
    return octal(value, width) if 0 <= value < 8 ** (width - 1) else base_256(value, width)


SPARSE: dict[str, Callable[..., bytes]] = {
    "gnu": gnu_sparse,
    **{version: partial(pax_sparse, version) for version in ("0.0", "0.1", "1.0")},
}
