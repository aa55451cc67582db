"""What a tree takes on disk that somebody else goes on writing to: looked at by directory descriptors only."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from pykka_imagestore.core.budget import Size
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.contents import stored_bytes
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.walk import FREE_LOOKUPS, Policy, Walk

_MAX_LINKED = 100_000  # files that are remembered


def measure_tree(path: str, without: Collection[str] = ()) -> Size:
    """Return what a directory takes with all below it on its file system; nothing if it is not there.

    A file that has more names than are met, as one that is linked to a layer's has, is not counted. What may not be
    looked at is not, either, nor what is found only after a million lookups of directories.

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
        self._root = root
        self._status = os.fstat(root)
        self._walk = Walk(root, Policy(self._count_lookup), follows=False)
        self._lookups = 0
        self._bytes, self._inodes = stored_bytes(self._status), 1
        self._linked: dict[int, int] = {}  # how often each file of several names was met

    def measure(self, without: Collection[bytes]) -> Size:
        directories = [b""]
        try:
            while directories and self._lookups < FREE_LOOKUPS:
                path = directories.pop()
                found = [] if path else without
                directories.extend(join(path, name) for name in self._look(path, found))
        finally:
            self._walk.forget()
        return Size(self._bytes, self._inodes)

    def _look(self, path: bytes, without: Collection[bytes]) -> list[bytes]:
        """Count what is in a directory; return the names of the directories among it."""
        names = []
        try:
            directory: int = self._walk.open(path)
            with os.scandir(directory) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if name not in without and self._count(directory, name):
                        names.append(name)
        except OSError:
            pass  # it is gone, or may not be read
        return names

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

    def _count_lookup(self, _: bytes) -> None:
        self._lookups += 1
