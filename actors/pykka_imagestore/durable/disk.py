"""The calls that make things last, and nothing else; a test may count them, or cut the power between two."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pykka_imagestore.durable.files import create_file

_FILE_MODE = 0o644  # read by those with whom the store's owner shares it


class Disk:
    """The real disk."""

    def sync_file(self, path: Path) -> None:
        """Make a file's bytes durable."""
        _sync(path, os.O_RDONLY | os.O_NOFOLLOW)

    def sync_data(self, descriptor: int) -> None:
        """Make the bytes of an open file durable, and its size."""
        os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make a directory's names durable."""
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def sync_file_system(self, path: Path, opened: int | None = None) -> None:
        """Make all of the file system that holds ``path`` durable: for a tree, far cheaper than file by file.

        Args:
            path: What is meant, for an error to name.
            opened: A file of it that was open before anything was written that is to be durable. The kernel tells of
                a write that failed only those who had a file open then.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if opened is None else opened
        try:
            error = _syncfs(descriptor)
            if error:
                raise OSError(error, os.strerror(error), str(path))
        finally:
            if opened is None:
                os.close(descriptor)

    def sync_placed(self, directory: Path, file: int) -> None:
        """Make a directory durable that was renamed to where it is, and the one file in it, which is open."""
        self.sync_data(file)
        self.sync_directory(directory)
        self.sync_directory(directory.parent)

    def rename(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``, at once and whole; both are on one file system."""
        os.rename(source, target)  # noqa: PTH104 - Path.rename takes its target to pieces


class ForgetfulDisk(Disk):
    """A disk that is not synced: what it wrote may be lost with the power, and may then be there in part."""

    def sync_file(self, path: Path) -> None:
        """Do nothing."""

    def sync_data(self, descriptor: int) -> None:
        """Do nothing."""

    def sync_directory(self, path: Path) -> None:
        """Do nothing."""

    def sync_file_system(self, path: Path, opened: int | None = None) -> None:
        """Do nothing."""


def _syncfs(descriptor: int) -> int:
    """Sync a file system; return the number of the error, 0 for none."""
    import ctypes  # noqa: PLC0415 - it takes 3 ms, and a program that only reads does not need it

    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syncfs(descriptor) != 0 else 0


def disk(*, durable: bool) -> Disk:
    """Return the disk to work with."""
    return Disk() if durable else ForgetfulDisk()


def write_whole(target: Path, data: bytes, to: Disk, *, aside: Path) -> None:
    """Write a file that is there entirely or not at all, whatever happens; an old one is replaced.

    Durable on return. Before the target is there, its bytes are at ``aside``, on the same file system, which nobody
    else uses meanwhile; a crash may leave it. What is there already is removed, and not opened.
    """
    try:
        _write_new(aside, data)
        to.sync_file(aside)
        to.rename(aside, target)  # commit point
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    to.sync_directory(target.parent)


def _write_new(path: Path, data: bytes) -> None:
    with os.fdopen(create_file(path, _FILE_MODE), "wb") as file:
        file.write(data)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
