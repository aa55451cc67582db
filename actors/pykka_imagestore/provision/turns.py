"""Threads that take turns: one goes on while the others wait for the disk.

Python runs one thread at a time in any case. Threads that compete for that hand it over at every call of the kernel,
and wake each other up on the other processors: with four of them, a crowd of small tasks takes half as much time again
as with one. One thread alone would have all of them wait for each sync.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pykka_imagestore.durable.disk import Disk

A = TypeVar("A")
T = TypeVar("T")

PATIENCE = 0.1  # seconds after which a thread goes on without its turn: who has it may wait for a dead disk


class Turns:
    """One turn, for any number of threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._mine = threading.local()

    def take(self, function: Callable[[A], T], argument: A) -> T:
        """Call a function as soon as it is this thread's turn, or PATIENCE is over."""
        self._begin()
        try:
            return function(argument)
        finally:
            self._end()

    @contextmanager
    def given_away(self) -> Iterator[None]:
        """Let another thread go on meanwhile, if it is this thread's turn."""
        had_turn = self._end()
        try:
            yield
        finally:
            if had_turn:
                self._begin()

    def _begin(self) -> None:
        self._mine.is_now = self._turn.acquire(timeout=PATIENCE)

    def _end(self) -> bool:
        """End this thread's turn; tell whether it had it."""
        had_turn = getattr(self._mine, "is_now", False)
        self._mine.is_now = False
        if had_turn:
            self._turn.release()
        return had_turn


class DiskBetweenTurns(Disk):
    """A disk whose syncs are waited for while others have their turns."""

    def __init__(self, disk: Disk, turns: Turns) -> None:
        self._disk = disk
        self._turns = turns

    def sync_file(self, path: Path) -> None:
        """Make a file's bytes durable."""
        with self._turns.given_away():
            self._disk.sync_file(path)

    def sync_data(self, descriptor: int) -> None:
        """Make the bytes of an open file durable, and its size."""
        with self._turns.given_away():
            self._disk.sync_data(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make a directory's names durable."""
        with self._turns.given_away():
            self._disk.sync_directory(path)

    def sync_file_system(self, path: Path, opened: int | None = None) -> None:
        """Make all of the file system that holds ``path`` durable."""
        with self._turns.given_away():
            self._disk.sync_file_system(path, opened)

    def rename(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``, in this thread's turn."""
        self._disk.rename(source, target)

    def sync_placed(self, directory: Path, file: int) -> None:
        """Make a directory durable that was renamed to where it is, and the one file in it, which is open."""
        with self._turns.given_away():
            self._disk.sync_placed(directory, file)
