"""The calls that make things last, and nothing else; a test may count them, or cut the power between two."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """The real disk."""

    def sync_file(self, path: Path) -> None:
        """Make a file's bytes durable."""
        _sync(path, os.O_RDONLY)

    def sync_folder(self, path: Path) -> None:
        """Make a folder's names durable."""
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def sync_file_system(self, path: Path) -> None:
        """Make all of the file system that holds ``path`` durable: for a tree, far cheaper than file by file."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(descriptor) != 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error), str(path))
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``, at once and whole; both are on one file system."""
        source.rename(target)


class ForgetfulDisk(Disk):
    """A disk that is not synced: what it wrote may be lost with the power, and may then be there in part."""

    def sync_file(self, path: Path) -> None:
        """Do nothing."""

    def sync_folder(self, path: Path) -> None:
        """Do nothing."""

    def sync_file_system(self, path: Path) -> None:
        """Do nothing."""


def disk(*, durable: bool) -> Disk:
    """Return the disk to work with."""
    return Disk() if durable else ForgetfulDisk()


def write_whole(target: Path, data: bytes, to: Disk) -> None:
    """Write a file that is there entirely or not at all, whatever happens; an old one is replaced.

    Durable on return. Writers into one folder wait for each other. What a crash leaves is ``<name>.new``, which the
    next write replaces.
    """
    new = target.with_name(f"{target.name}.new")
    with locked(target.parent, fcntl.LOCK_EX):
        try:
            new.write_bytes(data)
            to.sync_file(new)
            to.rename(new, target)  # commit point
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
    to.sync_folder(target.parent)


@contextlib.contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """Hold a lock on a folder, ``fcntl.LOCK_SH`` or ``LOCK_EX``; waits for it. The kernel frees a dead process'."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
