"""Numbers that several processes, or threads, draw: each number once, in order, and who draws faster draws more.

They lie in a file, as 64-bit numbers: how many were drawn, and for each drawer the last one, from 1; 0 for none. All of
it is written by one call, which a kill does not cut, so no number is lost: who was killed still has it. Behind them is
a byte for each number of which somebody said that it is done with.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_NAME = b"tickets"
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Tickets:
    """One drawer's view of the numbers.

    Args:
        directory: Where the file lies; it is made if it is not there.
        drawer: Which one, from 0.
        drawers: How many there are.
    """

    def __init__(self, directory: int, drawer: int, drawers: int) -> None:
        self._drawer = drawer + 1
        self._table = struct.Struct(f"<{drawers + 1}q")
        self._file = os.open(_NAME, _OPEN, 0o600, dir_fd=directory)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def begin(self) -> int:
        """Return the number that this drawer has, from 0: a new one, or what it was killed with."""
        last = self._read()[self._drawer]
        return last - 1 if last else self.draw()

    def draw(self) -> int:
        """Return the next number, from 0; the one before is done with."""
        with self._locked():
            numbers = self._read()
            numbers[0] += 1
            numbers[self._drawer] = numbers[0]
            os.pwrite(self._file, self._table.pack(*numbers), 0)
            return numbers[0] - 1

    def finish(self, number: int, among: range) -> bool:
        """Say that a number is done with; tell whether it was the last of some: one drawer alone learns that."""
        with self._locked():
            os.pwrite(self._file, b"\1", self._table.size + number)
            done = os.pread(self._file, len(among), self._table.size + among.start)
        return len(done) == len(among) and all(done)

    def _read(self) -> list[int]:
        return [*self._table.unpack(os.pread(self._file, self._table.size, 0).ljust(self._table.size, b"\0"))]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)  # of this opening of the file, so threads exclude each other too
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
