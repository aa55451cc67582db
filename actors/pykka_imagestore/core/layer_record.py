"""The bytes of a layer's record, a LayerRecord of proto/layer.proto, as protobuf would write them.

Workers that unpack write such records and read none: protobuf would take 4 MB of a worker's memory, and 25 ms of its
start, to write a few fields. All other code reads and writes records with protobuf; a test compares what both write,
byte for byte.

Spec:
    Protocol Buffers, "Encoding": tags, varints, length-delimited fields, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from pykka_imagestore.core.checksum import with_checksum
from pykka_imagestore.core.time_range import TimeRange

_64_BITS = (1 << 64) - 1  # a negative number is written as its two's complement


class WhiteoutFormat(IntEnum):
    """How a layer's deletions are kept on disk; see layer.proto."""

    NONE = 0
    OVERLAY_TRUSTED = 1
    OVERLAY_USER = 2
    FILES = 3


def pack_layer_record(
    *,
    diff_id: str,
    size_bytes: int,
    entries: int,
    whiteouts: WhiteoutFormat,
    implicit_directories: Iterable[bytes],
    unset: Iterable[tuple[bytes, str]],
    unset_count: int,
    stored_bytes: int,
    replaced_lost: bool,
    inodes: int,
    implicit_root: bool,
    lower_links: Iterable[tuple[bytes, bytes]],
    opaque_directories: Iterable[bytes],
    hiding_directories: Iterable[bytes],
    owner: tuple[int, int],
    times: TimeRange | None,
    split: tuple[int, int],
    replaced_checksum: int,
) -> bytes:
    """Return a record as bytes; the fields are those of layer.proto.

    Args:
        unset: Paths of entries, and which attribute of each could not be set.
        lower_links: Paths of hard links, and where each leads to.
        owner: User and group of what was not given away.
        times: Which times the file system can keep; None if that is not known.
        split: Size and checksum of the tar-split.
    """
    record = b"".join(
        (
            # First, so that what is left of a record that was cut off is known to lack its checksum.
            _number(10, owner[0]),
            _number(11, owner[1]),
            _bytes(1, diff_id.encode()),
            _number(2, size_bytes),
            _number(3, entries),
            _number(4, whiteouts),
            *(_bytes(5, path) for path in implicit_directories),
            *(_bytes(6, _bytes(1, path) + _bytes(2, what.encode())) for path, what in unset),
            _number(7, unset_count),
            _number(8, stored_bytes),
            _number(9, replaced_lost),
            *(() if times is None else _times(times)),
            _number(15, split[0]),
            _fixed32(16, split[1]),
            _fixed32(17, replaced_checksum),
            _number(20, inodes),
            _number(21, implicit_root),
            *(_bytes(22, _bytes(1, path) + _bytes(2, target)) for path, target in lower_links),
            *(_bytes(23, path) for path in opaque_directories),
            *(_bytes(24, path) for path in hiding_directories),
        )
    )
    return with_checksum(record)


def _times(times: TimeRange) -> Iterable[bytes]:
    return (_number(12, times.earliest), _number(13, times.latest), _number(14, times.step_ns))


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number & _64_BITS)


def _fixed32(field: int, number: int) -> bytes:
    return _varint(field << 3 | 5) + number.to_bytes(4, "little")


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Return a number, seven bits a byte, the lowest first; all bytes but the last have the eighth bit set."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
