"""Locks between processes, and between the stores of one process: on one byte of a file each.

The kernel frees them when their process ends, however it ends. A child that this process forks would share them, and
may outlive it: so it lets go of its copies at once.

Source: Linux, fcntl(2), "Open file description locks (non-POSIX)".
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.durable.files import open_file
from pykka_imagestore.durable.owner import store_of, told_if_foreign
from pykka_imagestore.errors import LocksUnsupportedError, MisplacedFileError

_FLOCK = struct.Struct("hhqqi")  # struct flock: l_type, l_whence, l_start, l_len, l_pid
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_TRIES = 100  # each takes a removal of the file by somebody


class FileLock(Uncopyable):
    """A lock that is held until ``release``, or until nobody has this object any more."""

    instead = "take another lock there"

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        _open_locks.add(self)

    def __del__(self) -> None:
        self.release()

    @property
    def descriptor(self) -> int | None:
        """The open file; None once it was let go of."""
        return self._descriptor

    def is_held(self) -> bool:
        """Tell whether this process holds it; a child that was forked since does not."""
        return self._descriptor is not None

    def write(self, data: bytes) -> None:
        """Write to the beginning of the file; not in a child that was forked since."""
        while data and self._descriptor is not None:
            data = data[os.write(self._descriptor, data) :]

    def release(self) -> None:
        """Let go of it; a second time does nothing."""
        if self._descriptor is not None:
            # Not by closing alone: a child that was forked this moment may have the file open too.
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _ALL)
            self.forget()

    def forget(self) -> None:
        """Close the file; the lock is held on by who else has it open."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def acquire(path: Path, byte: int = 0, *, shared: bool = False, wait: bool = True) -> FileLock:
    """Take a lock on one byte of a file, which is made if it is not there.

    A file that was removed, or replaced, while it was waited for excludes nobody who comes later: then the one that is
    there now is locked.

    Args:
        path: The file; the byte need not be there.
        byte: Which one.
        shared: Whether others may hold it shared meanwhile.
        wait: Whether to wait until it is free.

    Raises:
        BlockingIOError: It is not free, and ``wait`` is false.
        ForeignStoreError: It is another user's.
        LocksUnsupportedError: The file system has no such locks.
        MisplacedFileError: Something else is there.
    """
    for _ in range(_MAX_TRIES):
        lock = _acquire(path, byte, shared=shared, wait=wait)
        if _is_at(path, lock):
            return lock
        lock.release()
    raise OSError(errno.ESTALE, "is removed again and again while it is to be locked", str(path))


@contextlib.contextmanager
def locked(path: Path, byte: int = 0, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock; waits for it."""
    lock = acquire(path, byte, shared=shared)
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock on a file's first byte; not if something else, or nothing, is there."""
    try:
        descriptor = open_file(path)
    except MisplacedFileError:
        return False
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _range(fcntl.F_WRLCK, 0))
    finally:
        os.close(descriptor)
    kind = _FLOCK.unpack(found)[0]
    return bool(kind != fcntl.F_UNLCK)


def require_locks(path: Path) -> None:
    """See that locks exclude others on a file's file system: some take them and do nothing.

    Raises:
        LocksUnsupportedError: They do not.
    """
    lock = acquire(path, _PROBE_BYTE)
    try:
        acquire(path, _PROBE_BYTE, wait=False).release()
    except BlockingIOError:
        return
    finally:
        lock.release()
    raise LocksUnsupportedError(str(path))


def layer_byte(diff_id: DiffID) -> int:
    """Return the byte of ``locks/layers`` that a process which unpacks a layer locks."""
    return 1 << 62 | int(diff_id.removeprefix("sha256:")[:15], 16)


_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR})
_PROBE_BYTE = 1
_ALL = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)
_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _acquire(path: Path, byte: int, *, shared: bool, wait: bool) -> FileLock:
    try:
        descriptor = open_file(path, _OPEN | os.O_CREAT)
    except PermissionError:
        with told_if_foreign(store_of(path)):
            raise
    lock = FileLock(descriptor)  # known before it is held: a fork may come meanwhile
    try:
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _range(kind, byte))
    except OSError as error:
        lock.forget()
        if error.errno in _BUSY:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path)) from error
        if error.errno in _UNSUPPORTED:
            raise LocksUnsupportedError(str(path)) from error
        raise
    return lock


def _is_at(path: Path, lock: FileLock) -> bool:
    """Tell whether a lock is on the file that others find; in a child that was forked since, it is on none."""
    descriptor = lock.descriptor
    if descriptor is None:
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _range(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


def _let_go_in_child() -> None:
    for lock in list(_open_locks):
        lock.forget()


os.register_at_fork(after_in_child=_let_go_in_child)
