"""A directory of the user's choice that a layer is unpacked into, all of it or nothing.

Other users may be at work where that directory lies: they may rename it, put another in its place, or wait for a
set-user-ID program to appear in it. So it is found once, by the process that asks for the work, and stays open to the
end; a worker process, which has to open it anew, checks that it is the same. And it is closed to others until all is
there.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.errors import InvalidInputError, NotRemovedError
from pykka_imagestore.fs.attributes import ACLS, disown, remove_acls
from pykka_imagestore.fs.create import umask
from pykka_imagestore.fs.named_directory import NamedDirectory
from pykka_imagestore.fs.remove_tree import empty_directory

_ROOT_MODE = 0o755  # of a directory that was made for this, if the layer says nothing


class Target:
    """The directory to unpack into: made for this, or empty and this user's own. Closed to others until ``finish``.

    Args:
        path: An absolute path. Symlinks in it are followed if this user or root made them.

    Attributes:
        is_new: Whether it was made for this.

    Raises:
        InvalidInputError: It holds something, or is another user's, or lies behind another user's symlink.
        OSError: It cannot be made, read or closed to others.
        In each case it is as it was.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._directory = -1
        self._before: _State | None = None
        self._place = NamedDirectory(path)
        self.is_new = False
        try:
            self.is_new = self._place.make(stat.S_IRWXU)
            self._open()
        except BaseException:
            with suppress(OSError):
                self._put_back()
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory's descriptors."""
        self._place.close()
        if self._directory >= 0:
            os.close(self._directory)

    def identity(self) -> FileIdentity:
        """Return which directory it is, for the worker that opens it anew."""
        return FileIdentity.of(os.fstat(self._directory))

    def finish(self, root_mode: int | None) -> None:
        """Open the directory to others for good; a directory that was there before, to nobody that it kept out.

        Args:
            root_mode: The mode that the layer says its root has; None if it says nothing.

        Raises:
            OSError: That failed, and the directory is still closed to others.
        """
        if self._before is not None:
            mode = self._before.mode
            self._before.restore(self._directory, mode if root_mode is None else mode & root_mode)
        elif root_mode is None:
            os.fchmod(self._directory, _ROOT_MODE & ~umask())

    def undo(self) -> None:
        """Undo all that was done, also by a worker that was killed; safe to run again.

        Raises:
            NotRemovedError: Something is left; the directory is closed to others.
            OSError: Its mode, access control lists or times could not be restored.
        """
        empty_directory(self._directory, self.path)
        self._put_back()

    def _open(self) -> None:
        self._directory = self._place.open()
        owner = os.fstat(self._directory).st_uid
        if owner != os.geteuid():
            raise InvalidInputError(
                f"{self.path} belongs to user {owner}, who could change what is unpacked there, and this is user "
                f"{os.geteuid()}. Nothing was changed; unpack into a directory that is not there yet, or into your own"
            )
        self._require_empty()
        if self.is_new:
            disown(self._directory)
        else:
            self._before = _State.of(self._directory)
            remove_acls(self._directory)
        os.fchmod(self._directory, stat.S_IRWXU)
        self._require_empty()  # once more, now that nobody else can put anything there

    def _require_empty(self) -> None:
        if os.listdir(self._directory):
            raise InvalidInputError(f"{self.path} is not empty; a layer is unpacked into an empty directory")

    def _put_back(self) -> None:
        if self._before is not None:
            self._before.restore(self._directory, self._before.mode)
            os.utime(self._directory, ns=self._before.times_ns)
        elif self.is_new:
            self._remove()

    def _remove(self) -> None:
        try:
            there = os.stat(self._place.name, dir_fd=self._place.above, follow_symlinks=False)
        except FileNotFoundError:
            return
        if self._directory >= 0 and not os.path.samestat(there, os.fstat(self._directory)):
            raise NotRemovedError(self.path, "it was moved, and something else is there now")
        os.rmdir(self._place.name, dir_fd=self._place.above)


@dataclass(frozen=True, slots=True)
class _State:
    """What an existing directory had before it was closed to others."""

    mode: int
    acls: tuple[tuple[bytes, bytes], ...]
    times_ns: tuple[int, int]

    @classmethod
    def of(cls, directory: int) -> Self:
        status = os.fstat(directory)
        acls = []
        for acl in ACLS:
            with suppress(OSError):
                acls.append((acl, os.getxattr(directory, acl)))
        return cls(stat.S_IMODE(status.st_mode), tuple(acls), (status.st_atime_ns, status.st_mtime_ns))

    def restore(self, directory: int, mode: int) -> None:
        """Restore a directory's access control lists, and then set a mode, which may let others in."""
        for acl, value in self.acls:
            os.setxattr(directory, acl, value)
        os.fchmod(directory, mode)
