"""Finding the directory that somebody named, on a way where other users may change what lies there.

The kernel resolves a path anew at each call, and follows whatever symlink is there by then. So a path is walked once,
by descriptors, and a symlink counts only if this user made it, or root. Another user can still choose among the
directories that he may rename: the caller checks who owns the directory at the end.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Self

from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.pins import PIN_FLAGS
from pykka_imagestore.fs.walk import MAX_SYMLINKS


class NamedDirectory:
    """Where a directory is, or is to be: the directory above, which stays open, and a name in there that is no symlink.

    Args:
        path: What it names need not be there.
        make_above: Mode of the directories to make on the way there, if they are missing; None for none.

    Raises:
        InvalidInputError: A symlink on the way is another user's.
        OSError: The directory above is not there, or may not be passed.

    Attributes:
        above: A descriptor by which what lies there is found, and no more.
        name: One part of a path; ``.`` and ``..`` are such.
    """

    def __init__(self, path: str, *, make_above: int | None = None) -> None:
        self.above, self.name = os.open("/" if path[:1] == "/" else ".", PIN_FLAGS), "."
        try:
            self._walk(path, make_above)
        except OSError as error:
            self.close()
            error.filename = path
            raise
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory above."""
        os.close(self.above)

    def make(self, mode: int) -> bool:
        """Make the directory; tell whether it was not there yet."""
        try:
            make_directory(self.name, mode, self.above)
        except FileExistsError:
            return False
        return True

    def open(self) -> int:
        """Open the directory.

        Raises:
            OSError: It is not there, is no directory, or may not be read.
        """
        return os.open(self.name, DIRECTORY_FLAGS, dir_fd=self.above)

    def _walk(self, path: str, make_above: int | None) -> None:
        parts, symlinks = path.split("/")[::-1], 0
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            self._enter(self.name)
            self.name = part
            if make_above is not None and any(parts):
                self.make(make_above)
            target = self._target(path)
            if target is None:
                continue
            symlinks += 1
            if symlinks > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            parts += target.split("/")[::-1]
            self.name = "."
            if target[:1] == "/":
                self._enter("/")

    def _enter(self, name: str) -> None:
        above = os.open(name, PIN_FLAGS | os.O_DIRECTORY, dir_fd=self.above)
        os.close(self.above)
        self.above = above

    def _target(self, path: str) -> str | None:
        """Return where a symlink leads; None if there is none."""
        try:
            there = os.open(self.name, PIN_FLAGS, dir_fd=self.above)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(there)
            if not stat.S_ISLNK(status.st_mode):
                return None
            # The owner of "/" is root where a user namespace shows him by another number.
            if status.st_uid not in (os.geteuid(), 0, os.stat("/").st_uid):
                raise InvalidInputError(
                    f"{path}: {self.name!r} on the way is a symlink of user {status.st_uid}, who could lead it "
                    "anywhere. Nothing was changed; name the path that is meant"
                )
            return os.readlink("", dir_fd=there)
        finally:
            os.close(there)


def is_empty(directory: int) -> bool:
    """Tell whether nothing is in an open directory."""
    with os.scandir(directory) as entries:
        return next(entries, None) is None
