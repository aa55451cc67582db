"""A pipe as a ``ByteSource``: its first bytes can be peeked at, and a wait for more bytes ends at a discard."""

from __future__ import annotations

import io
import os
import select

from pykka_imagestore.runtime.worker import raise_if_discarded

_POLL_MILLISECONDS = 100  # after which a worker that cannot be killed checks whether to stop


class PipeFile(io.RawIOBase):
    """The bytes that come through a pipe.

    Args:
        descriptor: The open pipe, non-blocking. It is the caller's; ``close`` leaves it open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._head = b""
        self.bytes_read = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end, and leave them to be read."""
        while len(self._head) < size and (data := self._receive(size - len(self._head))):
            self._head += data
        return self._head

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes of what comes next, none only at the end; by default all."""
        if size < 0:
            return self.readall()
        data, self._head = self._head[:size], self._head[size:]
        data = data or self._receive(size)
        self.bytes_read += len(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read what is there; nothing only at the end."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _receive(self, size: int) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, size)
            except BlockingIOError:
                raise_if_discarded()
                self._poll.poll(_POLL_MILLISECONDS)
