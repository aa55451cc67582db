"""Folders that belong to a living process: staging/<random> for work in progress, gc/<random> for what is deleted.

An owner holds the lock of its folder for as long as it needs it; the kernel frees it when the process ends, however it
ends. A folder that is just being made has no lock yet: so its maker holds the guard of the folder around, shared, and
whoever looks for what nobody owns holds that one exclusively.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pykka_imagestore.core.paths import LOCK
from pykka_imagestore.durable.locks import FileLock, acquire, is_locked, locked

_NAME = re.compile("[0-9a-f]{16}")  # token_hex(8)


@dataclass(slots=True)
class OwnedFolder:
    """A folder that will be made, used and removed; making it in vain or twice removing it does no harm.

    Attributes:
        path: The folder.
        guard: The lock of the folder around.
    """

    path: Path
    guard: Path
    _lock: FileLock | None = field(default=None)

    @classmethod
    def below(cls, folder: Path, guard: Path) -> OwnedFolder:
        """Choose a folder's name; nothing is made yet."""
        return cls(folder / secrets.token_hex(8), guard)

    def make(self) -> None:
        """Make the folder and take its lock."""
        with locked(self.guard, shared=True):
            self.path.mkdir(mode=0o700)
            try:
                self._lock = acquire(self.path / LOCK)
            except OSError:
                with contextlib.suppress(OSError):
                    self.path.rmdir()
                raise

    @property
    def opened(self) -> int | None:
        """A descriptor that was open before anything was written into the folder; None if there is none."""
        return None if self._lock is None else self._lock.descriptor

    def release(self) -> None:
        """Let go of the lock; the folder should be gone, or be somebody else's to remove."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def find_orphans(folder: Path, guard: Path) -> list[Path]:
    """Return the folders in ``folder`` that somebody made to own, and nobody owns any more.

    What has another name is not ours: a store may have been opened where somebody keeps files of his own.
    """
    try:
        with locked(guard):
            ours = [path for path in sorted(folder.iterdir()) if _NAME.fullmatch(path.name)]
            return [path for path in ours if not is_locked(path / LOCK)]
    except FileNotFoundError:
        return []
