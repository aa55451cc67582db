"""Folders for work in progress, each with a lock that says whether its owner lives.

An owner holds its lock shared for as long as the work lasts; the kernel lets go of it when the process ends, however
it ends. Who sweeps takes it exclusively, so never while an owner lives. A folder that is just being made has no lock
yet: the folder around is locked meanwhile, and while it is swept.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pykka_imagestore.core.paths import LOCK
from pykka_imagestore.durable.disk import locked


@dataclass(slots=True)
class Staging:
    """A folder that will be made, used and removed; making it in vain or twice removing it does no harm."""

    path: Path
    _lock: int | None = field(default=None)

    @classmethod
    def below(cls, folder: Path) -> Staging:
        """Choose a folder's name; nothing is made yet."""
        return cls(folder / secrets.token_hex(8))

    def make(self) -> None:
        """Make the folder and take its lock."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent, fcntl.LOCK_SH):
            self.path.mkdir()
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go of the lock; the folder should be gone."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def find_orphans(folder: Path) -> list[Path]:
    """Return what lies in ``folder`` and has no living owner."""
    try:
        with locked(folder, fcntl.LOCK_EX):
            return [path for path in sorted(folder.iterdir()) if not _has_owner(path)]
    except FileNotFoundError:
        return []


def _has_owner(path: Path) -> bool:
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in _NO_LOCK:
            raise
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


_NO_LOCK = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR})
