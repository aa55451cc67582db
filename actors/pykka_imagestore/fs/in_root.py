"""Opening what a path means in a tree that somebody else filled: as if its root were ``/``.

Whatever lies there, no call leads out of it: each names one component, in a directory that is held open, and does not
follow it. What is read from a symlink starts at the tree's root again, and ``..`` goes no higher than that. So programs
that looked for an image's users read the machine's instead, or waited for a fifo (containers/storage, CVE-2024-9676;
containerd 2.3.5).
"""

from __future__ import annotations

import errno
import os
import stat

from pykka_imagestore.core.identity import kind_of
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.pins import PIN_FLAGS, pin_path
from pykka_imagestore.fs.walk import MAX_SYMLINKS, SymlinkLoopError

MAX_DEPTH = 256  # one descriptor each


class SpecialFileError(OSError):
    """What is there is neither a file nor a directory: to open it could wait, or act on a device."""

    def __init__(self, status: os.stat_result) -> None:
        super().__init__(errno.ENXIO, f"it is {kind_of(status.st_mode)}")


def open_in_root(root: int, path: str | bytes) -> int:
    """Open a file or a directory for reading, and nothing else; the caller closes it.

    Args:
        root: The tree's root, or a mount of it; may be a descriptor that opens nothing.
        path: With or without a slash in front.

    Raises:
        FileNotFoundError: Nothing is there.
        NotADirectoryError: Something else is on the way.
        SymlinkLoopError: Too many symlinks are on the way.
        SpecialFileError: A fifo, a socket or a device is there. It was not opened.
        OSError: It cannot be reached or read.
    """
    way = _Way(root)
    try:
        way.go(os.fsencode(path))
        return way.open()
    except OSError as error:
        error.filename = path
        raise
    finally:
        way.close()


class _Way:
    """What a path has led to so far, and the directories above it up to the root, each held open."""

    def __init__(self, root: int) -> None:
        self._held = [os.open(".", PIN_FLAGS | os.O_DIRECTORY, dir_fd=root)]
        self._symlinks = 0

    def close(self) -> None:
        while self._held:
            self._leave()

    def go(self, path: bytes) -> None:
        left = path.split(b"/")[::-1]
        while left:
            part = left.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                self._leave_unless_root()
                continue
            self._enter(part)
            status = os.fstat(self._held[-1])
            if stat.S_ISLNK(status.st_mode):
                left += self._target().split(b"/")[::-1]
            elif left and not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def open(self) -> int:
        """Open what was found for reading."""
        found = self._held[-1]
        status = os.fstat(found)
        if stat.S_ISDIR(status.st_mode):
            return os.open(".", DIRECTORY_FLAGS, dir_fd=found)
        if not stat.S_ISREG(status.st_mode):
            raise SpecialFileError(status)
        # Not by its name once more, which may be a device's by now.
        return os.open(pin_path(found), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _enter(self, name: bytes) -> None:
        if len(self._held) > MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, f"it lies below more than {MAX_DEPTH} directories")
        self._held.append(os.open(name, PIN_FLAGS, dir_fd=self._held[-1]))

    def _target(self) -> bytes:
        """Return where the symlink that was found leads, from the directory that is found now."""
        self._symlinks += 1
        if self._symlinks > MAX_SYMLINKS:
            raise SymlinkLoopError
        target = os.readlink(b"", dir_fd=self._held[-1])
        self._leave()
        if target.startswith(b"/"):
            while len(self._held) > 1:
                self._leave()
        return target

    def _leave_unless_root(self) -> None:
        if len(self._held) > 1:
            self._leave()

    def _leave(self) -> None:
        os.close(self._held.pop())
