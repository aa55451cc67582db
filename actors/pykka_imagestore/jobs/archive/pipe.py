"""A pipe as a file to read: its first bytes can be looked at, and who waits for more notices a discard."""

from __future__ import annotations

import io
import os
import select

from pykka_imagestore.runtime.worker import raise_if_discarded

_PATIENCE = 100  # milliseconds until a worker that cannot be killed looks whether to stop


class PipeFile(io.RawIOBase):
    """What comes through a pipe, from an open descriptor that does not block; ``position`` counts its bytes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._head = b""
        self.position = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end, and leave them to be read."""
        while len(self._head) < size and (data := self._receive(size - len(self._head))):
            self._head += data
        return self._head

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read what is there; nothing only at the end."""
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        data = data or self._receive(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _receive(self, size: int) -> bytes:
        while True:
            try:
                data = os.read(self._descriptor, size)
            except BlockingIOError:
                raise_if_discarded()
                self._poll.poll(_PATIENCE)
            else:
                self.position += len(data)
                return data
