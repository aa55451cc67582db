"""The messages that a worker and its pool send each other.

They go through a SOCK_SEQPACKET socket pair, where each packet arrives whole or not at all. A message is one byte for
its kind, eight bytes for the number of its task, and a body. If it is larger than a packet, a packet of the kind LARGE
goes first, with the size of what follows.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing for it takes long, and every worker imports this
if TYPE_CHECKING:
    from collections.abc import Iterator

SETUP, TASK, MESSAGE = b"S", b"T", b"M"  # to a worker
HELLO, RESULT, ERROR, REPORT = b"H", b"R", b"E", b"N"  # from a worker
LARGE = b"L"
PACKET_BYTES = 1 << 16
MAX_REPORT_BYTES = 4096
NUMBER_BYTES = 8


class MalformedError(ValueError):
    """A worker has sent what no worker sends: it may have been taken over."""


def message(kind: bytes, number: int, body: bytes) -> bytes:
    """Return a message about a task."""
    return b"".join((kind, number.to_bytes(NUMBER_BYTES), body))


def parse_message(data: bytes) -> tuple[bytes, int, bytes]:
    """Return a message's kind, the number of its task, and its body."""
    return data[:1], int.from_bytes(data[1 : 1 + NUMBER_BYTES]), data[1 + NUMBER_BYTES :]


def packets(message: bytes) -> Iterator[bytes | memoryview]:
    """Yield the packets that a message is sent in."""
    if len(message) <= PACKET_BYTES:
        yield message
        return
    yield LARGE + len(message).to_bytes(NUMBER_BYTES)
    view = memoryview(message)
    for start in range(0, len(view), PACKET_BYTES):
        yield view[start : start + PACKET_BYTES]


class Reassembler:
    """Puts messages together from packets.

    Args:
        max_bytes: How large a message may be.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._missing = 0
        self._parts: list[bytes] = []

    def add(self, packet: bytes) -> bytes | None:
        """Take the next packet; return the message that it completes, if any.

        Raises:
            MalformedError: The packet neither begins a message nor continues the last one.
        """
        if self._missing:
            # All but the last are full: keeping a small packet takes much more memory than the bytes in it.
            if len(packet) != min(PACKET_BYTES, self._missing):
                msg = f"it sent {len(packet)} of the {self._missing} bytes that it had announced"
                raise MalformedError(msg)
            self._missing -= len(packet)
            self._parts.append(packet)
            if self._missing:
                return None
            parts, self._parts = self._parts, []
            return b"".join(parts)
        if packet[:1] != LARGE:
            if len(packet) <= NUMBER_BYTES:
                msg = f"it sent {len(packet)} bytes that are no message"
                raise MalformedError(msg)
            return packet
        self._missing = int.from_bytes(packet[1 : 1 + NUMBER_BYTES])
        if not PACKET_BYTES < self._missing <= self._max_bytes:
            msg = f"it announced {self._missing} bytes; {self._max_bytes} are the most"
            raise MalformedError(msg)
        return None
