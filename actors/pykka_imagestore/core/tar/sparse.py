"""Sparse files: which parts of a file its body holds, as GNU tar's own format and its three pax formats say it.

Spec:
    GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

from typing import Final

from pykka_imagestore.core.tar.format import (
    BLOCK,
    FILE,
    Entry,
    Source,
    SparseMap,
    TarError,
    parse_decimal,
    parse_number,
)

MAX_SEGMENTS: Final = 100_000
SPARSE_MAP: Final = b"GNU.sparse.map"
SPARSE_PAIR: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
SPARSE_KEYS: Final = frozenset(
    b"GNU.sparse." + key for key in (b"major", b"minor", b"name", b"realsize", b"size", b"map", b"offset", b"numbytes")
)
_GNU_MAGIC = b"ustar  \0"


def read_gnu_map(entry: Entry, block: bytes, source: Source) -> None:
    """Read the map of GNU tar's own format: four segments in the header, and more in the blocks behind it."""
    if block[257:265] != _GNU_MAGIC:
        msg = "is a sparse file in a header that is not GNU tar's"
        raise TarError(msg)
    numbers = _gnu_segments(block[386:482])
    more = block[482]
    while more:
        extension = source.take(BLOCK)
        if len(extension) < BLOCK:
            msg = "is cut off: the archive ends inside its sparse map"
            raise TarError(msg)
        numbers += _gnu_segments(extension[:504])
        more = extension[504]
        _check_segments(len(numbers) // 2)
    entry.kind = FILE
    entry.sparse = _sparse_map(parse_number(block[483:495], "sparse size"), numbers, entry.size)


def _gnu_segments(fields: bytes) -> list[int]:
    """Return offset and size of each segment in turn; an empty field ends them."""
    numbers = []
    for start in range(0, len(fields), 24):
        if not (fields[start] and fields[start + 12]):
            break
        numbers += [parse_number(fields[at : at + 12], "sparse map") for at in (start, start + 12)]
    return numbers


def read_pax_map(entry: Entry, records: dict[bytes, bytes], source: Source) -> SparseMap:
    """Return the map of GNU tar's pax formats: 0.0 and 0.1 have it in records, 1.0 at the beginning of the body."""
    version = records.get(b"GNU.sparse.major", b"0"), records.get(b"GNU.sparse.minor", b"")
    if entry.kind != FILE:
        msg = "has the map of a sparse file, but is no file"
        raise TarError(msg)
    if version == (b"1", b"0"):
        numbers = _take_map(entry, source)
    elif version in ((b"0", b""), (b"0", b"0"), (b"0", b"1")):
        numbers = _parse_map(records.get(SPARSE_MAP, b""))
    else:
        msg = f"is a sparse file of an unknown version, {b'.'.join(version)[:40]!r}"
        raise TarError(msg)
    entry.name = records.get(b"GNU.sparse.name") or entry.name
    size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"%d" % entry.size
    sparse = entry.sparse = _sparse_map(parse_decimal(size, "sparse size"), numbers, entry.size)
    return sparse


def _take_map(entry: Entry, source: Source) -> list[int]:
    """Take the map from a body: the number of segments, then offset and size of each, a line each, padded."""
    lines: list[bytes] = []
    wanted, rest = 1, b""
    while len(lines) < wanted:
        block = source.take(BLOCK)
        entry.size -= BLOCK
        if len(block) < BLOCK or entry.size < 0:
            msg = "has a sparse map that does not end"
            raise TarError(msg)
        *whole, rest = (rest + block).split(b"\n")
        lines += whole
        if wanted == 1 and lines:
            wanted += 2 * _check_segments(parse_decimal(lines[0], "sparse map"))
        if len(lines) < wanted and len(rest) > BLOCK:  # zeros may lead a number, but not for ever
            msg = f"has a malformed sparse map {rest[:40]!r}"
            raise TarError(msg)
    return [parse_decimal(line, "sparse map") for line in lines[1:wanted]]


def _parse_map(value: bytes) -> list[int]:
    """Parse the map of format 0.1: offset and size of each segment in turn, between commas."""
    _check_segments(value.count(b",") // 2)
    return [parse_decimal(number, "sparse map") for number in value.split(b",")] if value else []


def join_pairs(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return the map of format 0.0, a pair of records for each segment, as 0.1 has it."""
    if any(key != SPARSE_PAIR[number % 2] for number, (key, _) in enumerate(pairs)):
        msg = "has a malformed sparse map: offsets and sizes do not take turns"
        raise TarError(msg)
    return b",".join(value for _, value in pairs)


def _check_segments(count: int) -> int:
    if count > MAX_SEGMENTS:
        msg = f"is a sparse file of {count} segments or more; {MAX_SEGMENTS} is the limit"
        raise TarError(msg)
    return count


def _sparse_map(size: int, numbers: list[int], body: int) -> SparseMap:
    segments = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    end = held = 0
    for offset, length in segments:
        if offset < end or length < 0:
            msg = f"has a sparse map whose segments overlap or run backwards at {offset}"
            raise TarError(msg)
        end = offset + length
        held += length
    if end > size or len(numbers) % 2:
        msg = f"has a sparse map that does not fit its size of {size} bytes"
        raise TarError(msg)
    if held != body:
        msg = f"has a sparse map of {held} bytes and a body of {body}"
        raise TarError(msg)
    return SparseMap(size, segments)
