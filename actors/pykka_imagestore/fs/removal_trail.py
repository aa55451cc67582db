"""The way down a tree that others may change meanwhile: the directories on it, few of them open.

The directory at hand and those nearest above it stay open, so that going up asks nobody for the way, and each is read
once: to read a directory from its beginning for each one that was removed from it takes quadratic time on ext4, which
keeps the blocks of what is gone. Any depth may come, and there are not enough descriptors for directories farther up.
Those are reached through "..", which leads wherever somebody moved the directory meanwhile, out of the tree too (GNU
rm, CVE-2002-0435): so it counts only if device and inode are those of the directory that we came from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pykka_imagestore.fs.flags import DIRECTORY_FLAGS

_MAX_OPEN = 16
_MAX_REMEMBERED = 1000  # directories on the way down of which it is known what else is in them


class Entries(Protocol):
    """What ``os.scandir`` returns."""

    def __iter__(self) -> Iterator[os.DirEntry[str]]: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Level:
    """A directory on the way down, with what is known of it.

    Attributes:
        directory: Its descriptor; -1 while it is not kept.
        identity: Its device and inode; known while the descriptor is not kept.
        entries: What is still to be read of it, once that has begun.
        is_read: Whether nothing is.
        directories: Those in it that were met and not tried yet.
        left: What in it could not be removed.
        is_taken_over: Whether that was tried.
    """

    name: bytes
    directory: int
    identity: tuple[int, int] | None = None
    entries: Entries | None = None
    is_read: bool = False
    directories: list[bytes] = field(default_factory=list)
    left: set[bytes] = field(default_factory=set)
    is_taken_over: bool = False

    def scan(self) -> Entries:
        """Read the directory from its beginning."""
        return os.scandir(self.directory)

    def close(self) -> None:
        """Let go of the directory; what is still to be read of it will be read from the beginning."""
        if self.entries is not None:
            self.entries.close()
            self.entries = None
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1


class Trail:
    """The directories from the first one down to the one at hand.

    Args:
        forgets: Whether of the directories far below the first one it may be forgotten what else is in them.

    Attributes:
        first: Where all ways begin; it stays open.
        here: The directory at hand, which is open.
    """

    def __init__(self, first: Level, *, forgets: bool = True) -> None:
        self.first = self.here = first
        self._forgets = forgets
        self._levels = [first]

    def __len__(self) -> int:
        """Return how many directories there are."""
        return len(self._levels)

    @property
    def is_at_first(self) -> bool:
        """Whether the directory at hand is the first."""
        return len(self._levels) == 1

    def path(self, name: bytes) -> bytes:
        """Return the path of a name in the directory at hand, from the first one."""
        return b"/".join([*(level.name for level in self._levels[1:]), name])

    def go_down(self, level: Level) -> None:
        """Go on in a directory that lies in the one at hand."""
        self._levels.append(level)
        self.here = level
        self._close_a_distant_one()

    def go_up(self) -> Level:
        """Leave the directory at hand, and return it; its descriptor is the caller's to close, after ``come_back``."""
        left = self._levels.pop()
        self.here = self._levels[-1]
        return left

    def come_back(self, below: int) -> bytes | None:
        """Have the directory at hand open again, given the descriptor of the one that was left.

        Returns:
            None; or, if a directory on the way is not where it was any more, its name: at hand is then the one above.
        """
        level = self.here
        if level.directory < 0:
            level.directory = _open_same(b"..", below, level.identity)
        return self._go_anew() if level.directory < 0 else None

    def close(self) -> None:
        """Close all directories."""
        for level in self._levels:
            level.close()

    def _close_a_distant_one(self) -> None:
        if len(self._levels) <= _MAX_OPEN + 1:
            return
        level = self._levels[-_MAX_OPEN - 1]
        if level.directory < 0:
            return
        level.identity = _identity(level.directory)
        if self._forgets and len(self._levels) > _MAX_REMEMBERED:
            level.directories.clear()
            level.is_read = False
        level.close()

    def _go_anew(self) -> bytes | None:
        """Go the whole way down once more: a directory was moved, or may not be passed through any more."""
        directory = os.dup(self.first.directory)
        for depth, level in enumerate(self._levels[1:], 1):
            below = _open_same(level.name, directory, level.identity)
            if below < 0:
                self._end_at(depth, directory)
                return level.name
            os.close(directory)
            directory = below
        self.here.directory = directory
        return None

    def _end_at(self, depth: int, directory: int) -> None:
        """Forget the way below ``directory``, which is not there any more."""
        del self._levels[depth:]
        self.here = self._levels[-1]
        if depth == 1:
            os.close(directory)
        else:
            self.here.directory = directory


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def _open_same(name: bytes, parent: int, identity: tuple[int, int] | None) -> int:
    """Open a directory that we were in before; return -1 if it is another one by now, or cannot be opened."""
    try:
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except OSError:
        return -1
    if _identity(directory) == identity:
        return directory
    os.close(directory)
    return -1
