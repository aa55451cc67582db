"""Copies what is in a file, by the kernel where it can do that. Holes stay holes.

A copy by copy_file_range(2) shares its blocks with the source where the file system can do that: the kernel tries that
first. Which way works depends on the two file systems, so each is tried once and then kept.

Spec:
    copy_file_range(2), sendfile(2), lseek(2), "Seeking file data and holes".
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

_BLOCK_BYTES = 1 << 20
_MAX_BYTES = 1 << 30  # in one call; the kernel takes less than 2 GiB
# Not here, or not so: the two are on different file systems, or a filter of system calls knows no such call.
_NOT_SO = frozenset(
    {
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EXDEV,
        errno.EINVAL,
        errno.EPERM,
        errno.EACCES,
        errno.ETXTBSY,
        errno.EBADF,
    }
)

Move = Callable[[int, int, int, int], int]
"""Copies some of so many bytes at an offset from one file to another; returns how many, 0 where it cannot."""


class Contents:
    """Copies contents, and remembers which way works from which file system."""

    def __init__(self) -> None:
        self._moves: dict[int, Move] = {}

    def copy(self, source: int, target: int, status: os.stat_result) -> None:
        """Copy all of an open file into an empty one.

        Args:
            status: The source's.

        Raises:
            OSError: The disk failed or is full, or the source is shorter than its status says.
        """
        size, device = status.st_size, status.st_dev
        if not has_holes(status):
            self._move(source, target, device, 0, size)
            return
        for start, end in data_of(source, size):
            self._move(source, target, device, start, end)
        os.ftruncate(target, size)

    def _move(self, source: int, target: int, device: int, start: int, end: int) -> None:
        move = self._moves.get(device, _copy_range)
        while start < end:
            moved = move(source, target, start, min(end - start, _MAX_BYTES))
            if not moved:
                if move is _read_and_write:
                    msg = f"ends at byte {start} of {end}: somebody changed it meanwhile"
                    raise OSError(errno.ESTALE, msg)
                move = self._moves[device] = _AFTER[move]
            start += moved


def stored_bytes(status: os.stat_result) -> int:
    """Return what a file takes on disk: its status counts blocks of 512 bytes, whatever the file system's are."""
    return status.st_blocks * 512


def has_holes(status: os.stat_result) -> bool:
    """Tell whether a file takes less on disk than it has: it has holes, or the file system packs it."""
    return stored_bytes(status) < status.st_size


def data_of(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where the parts of a file that are no holes begin and end."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if start >= size:  # by now it is larger
            return
        end = min(os.lseek(file, start, os.SEEK_HOLE), size)
        yield start, end


def _copy_range(source: int, target: int, offset: int, size: int) -> int:
    try:
        return os.copy_file_range(source, target, size, offset, offset)
    except OSError as error:
        if error.errno in _NOT_SO:
            return 0
        raise


def _send(source: int, target: int, offset: int, size: int) -> int:
    try:
        os.lseek(target, offset, os.SEEK_SET)
        return os.sendfile(target, source, offset, size)
    except OSError as error:
        if error.errno in _NOT_SO:
            return 0
        raise


def _read_and_write(source: int, target: int, offset: int, size: int) -> int:
    return os.pwrite(target, os.pread(source, min(size, _BLOCK_BYTES), offset), offset)


_AFTER: dict[Move, Move] = {_copy_range: _send, _send: _read_and_write}
