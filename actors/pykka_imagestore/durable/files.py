"""The store's own files: opened without following a link and without waiting, and only if they are plain files.

A user who could once write into a store's directory may have left anything there: a symlink to a file of root's, a fifo
that nobody writes to, a device.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from pykka_imagestore.core.identity import kind_of
from pykka_imagestore.durable.owner import require_owner
from pykka_imagestore.errors import MisplacedFileError

# What open(2) says of symlinks, directories, fifos, sockets and devices; the last of devices on a nodev mount.
_NO_PLAIN_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EACCES})
_ALWAYS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def open_file(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a plain file of the store's.

    Args:
        path: The file.
        flags: As for open(2); what follows no link and does not wait is added.
        mode: That of a file that is made, whatever the umask.

    Raises:
        MisplacedFileError: Something else is there.
        ForeignStoreError: It belongs to somebody whose files have no place there.
    """
    try:
        descriptor = os.open(path, flags | _ALWAYS, mode)
    except OSError as error:
        if error.errno not in _NO_PLAIN_FILE:
            raise
        found = path.lstat().st_mode
        if stat.S_ISREG(found):
            raise
        raise MisplacedFileError(str(path), kind_of(found), "a file") from error
    try:
        status = os.fstat(descriptor)
        _require_own(path, status)
        if flags & os.O_CREAT and mode & ~status.st_mode:
            os.fchmod(descriptor, mode)  # which the umask has taken: nobody could open it again
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def has_file(path: Path) -> bool:
    """Tell whether a file of the store's is there.

    Raises:
        MisplacedFileError, ForeignStoreError: As ``open_file``.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    _require_own(path, status)
    return True


def read_file(path: Path, at_most: int = -1) -> bytes:
    """Return what is in a plain file of the store's.

    Args:
        at_most: How many bytes of it; by default all.

    Raises:
        MisplacedFileError, ForeignStoreError: As ``open_file``.
    """
    with os.fdopen(open_file(path), "rb") as file:
        return file.read(at_most)


def create_file(path: Path, mode: int) -> int:
    """Make a new file to write to, in the place of one that is there.

    The old one is not opened: it may be a link to another's.

    Args:
        mode: The file's, whatever the umask.

    Raises:
        MisplacedFileError: A directory is there.
    """
    try:
        with suppress(FileNotFoundError):
            path.unlink()
    except IsADirectoryError as error:
        raise MisplacedFileError(str(path), "a directory", "a file") from error
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _ALWAYS, mode)
    os.fchmod(descriptor, mode)
    return descriptor


def make_directory(path: Path, mode: int) -> None:
    """Make a directory of that mode without what the umask takes from others.

    Raises:
        FileExistsError: There is something of that name.
    """
    path.mkdir(mode)
    if mode & stat.S_IRWXU & ~path.lstat().st_mode:
        # By a descriptor, since chmod would follow a symlink that is there by now. And no more than the owner's bits:
        # a user who may rename here can put another directory of ours there, one that is closed to that user.
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor).st_mode
            Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IMODE(found) | mode & stat.S_IRWXU)
        finally:
            os.close(descriptor)


def touch(path: Path) -> bool:
    """Date a plain file of the store's now; tell whether that was done: not if it has another name outside, too."""
    name = os.fspath(path)
    found = os.lstat(name)
    is_own = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if is_own:
        os.utime(name, follow_symlinks=False)
    return is_own


def _require_own(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise MisplacedFileError(str(path), kind_of(status.st_mode), "a file")
    require_owner(path, status)
