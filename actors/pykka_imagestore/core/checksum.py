"""A checksum at the end of a protobuf message, of all bytes before it. Pure.

It is a field of the message, so a reader that does not know it skips it: an older release, or Mesos.

Spec:
    Protocol Buffers, "Encoding": a tag, and four bytes, little-endian.
"""

from __future__ import annotations

import zlib

_TAG = b"\xa5\x06"  # of ``optional fixed32 checksum = 100``: no field has a higher number, so it is the last one
_BYTES = 4


def with_checksum(message: bytes) -> bytes:
    """Return a serialized message that has none yet with its checksum."""
    return message + _TAG + zlib.crc32(message).to_bytes(_BYTES, "little")


def checksum_fault(data: bytes, checksum: int) -> str | None:
    """Tell what is wrong with a message that has a checksum, as the rest of a sentence; None if it is right."""
    if not data.endswith(_TAG + checksum.to_bytes(_BYTES, "little")):
        return "something follows its checksum"
    found = zlib.crc32(data[: -len(_TAG) - _BYTES])
    if found != checksum:
        return f"its checksum is {checksum:08x}, and that of its bytes {found:08x}: it was changed, or is damaged"
    return None
