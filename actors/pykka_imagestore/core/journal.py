"""The bytes of ``storedImages.journal``: a header, then one frame for each group of changes. Pure.

    header      bytes 0..7      "IMGJRNL1"
                bytes 8..15     sequence, uint64: the frames continue from this one
                bytes 16..19    CRC-32 of all before
    frame       bytes 0..3      F5 49 4D 47
                bytes 4..7      length of the payload, uint32
                bytes 8..15     sequence, uint64: one more than that of the frame before
                bytes 16..23    attested, uint64: bytes of this file that were synced when the frame was written
                bytes 24..27    CRC-32 of bytes 0..23 and the payload, uint32
                bytes 28..      payload, a JournalFrame

Numbers are little-endian. A frame that is not sound was cut off by a crash, or is damaged. It was cut off if it was
never synced: then nobody was told that its changes were made, and all from it on is dropped. It is damaged if a sound
frame after it attests that it had been synced.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_HEADER = struct.Struct("<8sQ")
_FRAME = struct.Struct("<4sIQQ")
_CRC = struct.Struct("<I")
_HEADER_MAGIC = b"IMGJRNL1"
_FRAME_MAGIC = b"\xf5IMG"
_FRAME_BYTES = _FRAME.size + _CRC.size

HEADER_BYTES = _HEADER.size + _CRC.size


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        sequence: Its number.
        attested_bytes: Bytes of the file, from its beginning, that were synced when it was written.
        payload: What it says.
        size_bytes: What it takes in the file.
    """

    sequence: int
    attested_bytes: int
    payload: bytes

    @property
    def size_bytes(self) -> int:
        return _FRAME_BYTES + len(self.payload)


def pack_header(sequence: int) -> bytes:
    """Return the beginning of a journal whose first frame has the number after ``sequence``."""
    header = _HEADER.pack(_HEADER_MAGIC, sequence)
    return header + _CRC.pack(zlib.crc32(header))


def parse_header(data: bytes) -> int | None:
    """Return the sequence that a journal continues from; None if this is no sound header."""
    header = data[: _HEADER.size]
    if len(data) < HEADER_BYTES or data[_HEADER.size : HEADER_BYTES] != _CRC.pack(zlib.crc32(header)):
        return None
    magic, sequence = _HEADER.unpack(header)
    return int(sequence) if magic == _HEADER_MAGIC else None


def pack_frame(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    head = _FRAME.pack(_FRAME_MAGIC, len(frame.payload), frame.sequence, frame.attested_bytes)
    return head + _CRC.pack(zlib.crc32(frame.payload, zlib.crc32(head))) + frame.payload


def parse_frame(data: bytes, at: int = 0) -> Frame | None:
    """Return the frame that begins at a position; None if there is no sound one."""
    if len(data) - at < _FRAME_BYTES:
        return None
    magic, length, sequence, attested_bytes = _FRAME.unpack_from(data, at)
    begin = at + _FRAME_BYTES
    payload = data[begin : begin + length]
    if magic != _FRAME_MAGIC or len(payload) < length:
        return None
    (expected,) = _CRC.unpack_from(data, at + _FRAME.size)
    if zlib.crc32(payload, zlib.crc32(data[at : at + _FRAME.size])) != expected:
        return None
    return Frame(sequence, attested_bytes, payload)


def find_attested(data: bytes) -> int:
    """Return how many bytes of a file were synced, as far as the sound frames say that lie anywhere in ``data``."""
    attested_bytes, at = 0, data.find(_FRAME_MAGIC)
    while at >= 0:
        frame = parse_frame(data, at)
        if frame is not None:
            attested_bytes = max(attested_bytes, frame.attested_bytes)
        at = data.find(_FRAME_MAGIC, at + 1 if frame is None else at + frame.size_bytes)
    return attested_bytes
