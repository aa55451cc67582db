"""What a tree takes on disk that somebody else goes on writing to: looked at by directory descriptors only."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import closing, suppress

from pykka_imagestore.core.budget import Size
from pykka_imagestore.fs.contents import stored_bytes
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.removal_trail import Level, Trail

MAX_LOOKUPS = 1_000_000  # of directories
_MAX_LINKED = 100_000  # files that are remembered


def measure_tree(path: str, without: Collection[str] = ()) -> Size:
    """Return what a directory takes with all below it on its file system; nothing if it is not there.

    A file that has more names than are met, as one that is linked to a layer's has, is not counted. What may not be
    looked at is not, either, nor what is found only after a million directories.

    Args:
        without: Names in the directory that are left out.
    """
    try:
        root = os.open(path, DIRECTORY_FLAGS)
    except OSError:
        return Size()
    try:
        return _Measure(root).measure(set(map(os.fsencode, without)))
    finally:
        os.close(root)


class _Measure:
    def __init__(self, root: int) -> None:
        self._status = os.fstat(root)
        self._trail = Trail(Level(b"", os.dup(root)), forgets=False)
        self._lookups = 0
        self._bytes, self._inodes = stored_bytes(self._status), 1
        self._linked: dict[int, int] = {}  # how often each file of several names was met

    def measure(self, without: Collection[bytes]) -> Size:
        try:
            self._look(without)
            while self._lookups < MAX_LOOKUPS and self._go_on():
                pass
        finally:
            self._trail.close()
        return Size(self._bytes, self._inodes)

    def _go_on(self) -> bool:
        """Go to the next directory; tell whether there was one."""
        if self._trail.here.directories:
            self._enter(self._trail.here.directories.pop())
            return True
        if self._trail.is_at_first:
            return False
        left = self._trail.go_up()
        try:
            if self._trail.come_back(left.directory) is not None:  # it was moved, and the way was gone anew
                self._lookups += len(self._trail)
        finally:
            left.close()
        return True

    def _enter(self, name: bytes) -> None:
        self._lookups += 1
        try:
            directory = os.open(name, DIRECTORY_FLAGS, dir_fd=self._trail.here.directory)
        except OSError:
            return  # it is gone, or may not be read
        self._trail.go_down(Level(name, directory))
        self._look(())

    def _look(self, without: Collection[bytes]) -> None:
        """Count what is in the directory at hand."""
        here = self._trail.here
        with suppress(OSError), closing(here.scan()) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if name not in without and self._count(here.directory, name):
                    here.directories.append(name)

    def _count(self, directory: int, name: bytes) -> bool:
        """Count something; tell whether it is a directory to look into."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        is_directory = stat.S_ISDIR(status.st_mode)
        if status.st_dev != self._status.st_dev:
            return False  # something is mounted there
        if is_directory or self._is_last(status):
            self._bytes += stored_bytes(status)
            self._inodes += 1
        return is_directory

    def _is_last(self, status: os.stat_result) -> bool:
        if status.st_nlink == 1 or len(self._linked) > _MAX_LINKED:
            return True
        self._linked[status.st_ino] = met = self._linked.get(status.st_ino, 0) + 1
        return met == status.st_nlink
