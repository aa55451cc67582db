"""Bounds what compressed bytes become: a number of bytes, a ratio, and the room on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.tar.format import OverLimitError
from pykka_imagestore.errors import FileTooLargeError, NoSpaceError

RATIO_COUNTS_FROM = 1 << 30
_LOOK_EVERY = 64 << 20
_UID_MAP = "/proc/self/uid_map"
_KEPT_FREE = 16 << 20  # for the store's own records, and other programs that write here


class Limiter:
    """Bounds what one stream of bytes becomes.

    Args:
        path: The directory that the bytes are written below; None if they are not written.
        directory: That directory's descriptor; by default it is found by its path.
    """

    def __init__(self, limits: Limits, path: str | None, directory: int | None = None) -> None:
        self._limits = limits
        self._path = path
        self._directory = directory
        self._next_look = _LOOK_EVERY

    def check(self, bytes_read: int, size_bytes: int) -> None:
        """Check how far the stream has come.

        Args:
            bytes_read: Bytes read as they are stored.
            size_bytes: What they became.

        Raises:
            OverLimitError: They became too many.
            NoSpaceError: The disk is all but full.
        """
        if size_bytes > self._limits.layer_bytes:
            msg = f"brings the total to {size_bytes} bytes; {self._limits.layer_bytes} is the limit"
            raise OverLimitError(msg, "layer_bytes")
        if size_bytes > RATIO_COUNTS_FROM and size_bytes > bytes_read * self._limits.inflate_ratio:
            ratio = f"{self._limits.inflate_ratio} for each is the limit"
            msg = f"brings the total to {size_bytes} bytes, inflated from {bytes_read}; {ratio}"
            raise OverLimitError(msg, "inflate_ratio")
        if self._path is not None and size_bytes >= self._next_look:
            self._next_look = size_bytes + _LOOK_EVERY
            require_space(self._path, _KEPT_FREE, self._directory)


def require_space(path: str, needed_bytes: int, directory: int | str | None = None) -> None:
    """Check that the file system of ``path``, or of the open directory that it names, has room for so many bytes.

    Raises:
        NoSpaceError: It has no such room.
    """
    free = free_bytes(path if directory is None else directory)
    if free is not None and free < needed_bytes:
        raise NoSpaceError(path, needed_bytes, free)


@contextmanager
def space_for(needed_bytes: int, directory: int | str, path: str) -> Iterator[None]:
    """Check first that so many bytes may fit into a directory; if the disk turns out full, say how much is missing.

    Raises:
        NoSpaceError: The disk is full, or would be.
    """
    require_space(path, needed_bytes, directory)
    try:
        yield
    except OSError as error:
        free = free_bytes(directory) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        if free is None or isinstance(error, NoSpaceError):
            raise
        raise NoSpaceError(path, needed_bytes, free, free_inodes(directory)) from error


def too_large(error: OSError, archive: str, what: str, size_bytes: int) -> FileTooLargeError | None:
    """Return what to say of a file that cannot be as large as it should be; None if an error is about something else.

    Args:
        what: Which file.
        size_bytes: How large it should be, at least.
    """
    if error.errno != errno.EFBIG:
        return None
    import resource  # noqa: PLC0415 - seldom needed

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return FileTooLargeError(archive, what, size_bytes, None)
    # A smaller file is not the one that was refused.
    return FileTooLargeError(archive, what, size_bytes, limit) if size_bytes > limit else None


def free_bytes(path: str | int) -> int | None:
    """Return the bytes that are free for this process; None if the file system does not tell."""
    status = os.statvfs(path)
    blocks = status.f_bfree if _has_the_reserve() else status.f_bavail
    return blocks * status.f_frsize if status.f_blocks else None


def _has_the_reserve() -> bool:
    """Tell whether this process may use what file systems reserve for root, which the root of a user namespace may not.

    Spec:
        user_namespaces(7), "User and group ID mappings"; mke2fs(8), "-m".
    """
    if os.geteuid() != 0:
        return False
    try:
        with open(_UID_MAP) as uid_map:
            inside, outside = uid_map.read().split()[:2]
    except (OSError, ValueError):
        return False
    return inside == outside == "0"


def free_inodes(path: str | int) -> int | None:
    """Return how many more files the file system of ``path`` takes; None if it has no such bound."""
    status = os.statvfs(path)
    return status.f_ffree if status.f_files else None
