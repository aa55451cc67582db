"""The messages that a worker and its pool send each other.

They go through a SOCK_SEQPACKET socket pair, where each packet arrives whole or not at all. A message is one byte for
its kind, eight for the number of its task, eight for the size of its body, and the body. One that is larger than a
packet goes in several, all full but the last.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing for it takes long, and every worker imports this
if TYPE_CHECKING:
    from collections.abc import Sequence

SETUP, TASK, MESSAGE = b"S", b"T", b"M"  # to a worker
HELLO, RESULT, ERROR, REPORT = b"H", b"R", b"E", b"N"  # from a worker
PACKET_BYTES = 1 << 16
HEADER_BYTES = 17
MAX_REPORT_BYTES = 4096


class MalformedError(ValueError):
    """A worker has sent what no worker sends: it may have been taken over."""


def message(kind: bytes, number: int, body: bytes) -> bytes:
    """Return a message about a task."""
    return b"".join((kind, number.to_bytes(8), len(body).to_bytes(8), body))


def packets(message: bytes) -> Sequence[bytes | memoryview]:
    """Return the packets that a message is sent in."""
    if len(message) <= PACKET_BYTES:
        return [message]
    view = memoryview(message)
    return [view[start : start + PACKET_BYTES] for start in range(0, len(view), PACKET_BYTES)]


class Reassembler:
    """Puts messages together from packets.

    Args:
        max_bytes: How large the body of a message may be.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._missing = 0
        self._parts: list[bytes] = []

    def add(self, packet: bytes) -> tuple[bytes, int, bytes] | None:
        """Take the next packet; return the kind, the task's number and the body of the message that it completes.

        Raises:
            MalformedError: The packet neither begins a message nor continues the last one.
        """
        if not self._parts:
            size_bytes = int.from_bytes(packet[9:HEADER_BYTES])
            if size_bytes > self._max_bytes:
                msg = f"it announced {size_bytes} bytes; {self._max_bytes} are the most"
                raise MalformedError(msg)
            self._missing = HEADER_BYTES + size_bytes
        # All but the last are full: keeping a small packet takes much more memory than the bytes in it.
        if len(packet) != min(PACKET_BYTES, self._missing):
            msg = f"it sent {len(packet)} of the {self._missing} bytes that it had announced"
            raise MalformedError(msg)
        self._parts.append(packet)
        self._missing -= len(packet)
        if self._missing:
            return None
        data, self._parts = b"".join(self._parts), []
        return data[:1], int.from_bytes(data[1:9]), data[HEADER_BYTES:]
