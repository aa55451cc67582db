"""Directories that belong to a living process: staging/<random> for work in progress, gc/<random> for what is deleted.

An owner holds the lock of its directory for as long as it needs it; the kernel frees it when the process ends, however
it ends. A directory that is just being made has no lock yet: so its maker holds the guard of the directory around,
shared; a process that looks for directories without an owner holds it exclusively.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pykka_imagestore.core.paths import LOCK
from pykka_imagestore.core.store_names import is_random_name, is_work
from pykka_imagestore.durable.files import make_directory
from pykka_imagestore.durable.locks import FileLock, acquire, is_locked, locked


@dataclass(slots=True)
class LockedDirectory:
    """A directory that will be made, used and removed; making it in vain or twice removing it does no harm.

    Attributes:
        path: The directory.
        guard: The lock of the directory around.
    """

    path: Path
    guard: Path
    _lock: FileLock | None = field(default=None)

    @classmethod
    def below(cls, directory: Path, guard: Path) -> LockedDirectory:
        """Choose a directory's name; nothing is made yet."""
        return cls(directory / os.urandom(8).hex(), guard)

    def make(self) -> None:
        """Make the directory and take its lock."""
        with locked(self.guard, shared=True):
            make_directory(self.path, 0o700)
            try:
                self._lock = acquire(self.path / LOCK)
            except OSError:
                with contextlib.suppress(OSError):
                    self.path.rmdir()
                raise

    @property
    def opened(self) -> int | None:
        """A descriptor that was open before anything was written into the directory; None if there is none."""
        return None if self._lock is None else self._lock.descriptor

    def release(self) -> None:
        """Let go of the lock; the directory should be gone, or be somebody else's to remove."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def find_orphans(directory: Path, guard: Path) -> list[Path]:
    """Return the directories in ``directory`` that somebody made to own, and nobody owns any more.

    What else lies there is somebody's own, and is left alone: what has another name, is another user's, or is no
    directory with a lock; but who makes one may have died before it had its lock, and who deletes one after it was
    gone.
    """
    try:
        with locked(guard):
            return [path for path in sorted(directory.iterdir()) if _is_ours(path) and not is_locked(path / LOCK)]
    except FileNotFoundError:
        return []


def _is_ours(path: Path) -> bool:
    if not is_random_name(path.name):
        return False
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        return _is_lock(path / LOCK) or is_work(os.listdir(path))  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return False  # its owner has just removed it


def _is_lock(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0
