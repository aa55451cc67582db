"""Folders that belong to a living process: staging/<random> for work in progress, gc/<random> for what is deleted.

An owner holds the lock of its folder for as long as it needs it; the kernel frees it when the process ends, however it
ends. A folder that is just being made has no lock yet: so its maker holds the guard of the folder around, shared, and
whoever looks for what nobody owns holds that one exclusively.

A worker may live a little longer than its owner. What it must not do in a folder that is being swept, it does under a
lock of its own, on another byte of the same file.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.paths import LOCK, StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.locks import FileLock, acquire, is_locked, locked

_OWNERS_BYTE, _WORKERS_BYTE = 0, 1


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
            self._lock = acquire(self.path / LOCK, _OWNERS_BYTE)

    def release(self) -> None:
        """Let go of the lock; the folder should be gone, or be somebody else's to remove."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


@contextmanager
def worked_in(folder: Path) -> Iterator[None]:
    """Keep a folder, for a worker, from being swept, even if its owner dies meanwhile.

    Raises:
        FileNotFoundError: The owner is dead, and the folder may be swept already.
    """
    lock = acquire(folder / LOCK, _WORKERS_BYTE, shared=True)
    try:
        if not is_locked(folder / LOCK, _OWNERS_BYTE):
            raise FileNotFoundError(errno.ENOENT, "nobody owns it any more", str(folder))
        yield
    finally:
        lock.release()


def find_orphans(folder: Path, guard: Path) -> list[Path]:
    """Return what lies in ``folder`` and has no living owner."""
    try:
        with locked(guard):
            return [path for path in sorted(folder.iterdir()) if not is_locked(path / LOCK)]
    except FileNotFoundError:
        return []


def take_out(paths: StorePaths, on: Disk, layers: tuple[DiffID, ...], configs: tuple[Digest, ...]) -> OwnedFolder:
    """Take layers and configs out of the store, at once, by a rename each; return the folder that waits for deletion.

    What is not there is passed over.

    Raises:
        OSError: The disk refused. What was taken out by then, the next sweep deletes.
    """
    waiting = OwnedFolder.below(paths.gc, paths.guard(paths.gc))
    try:
        waiting.make()
        for source in (*map(paths.layer, layers), *map(paths.config, configs)):
            with suppress(FileNotFoundError):
                on.rename(source, waiting.path / source.name)
    except OSError:
        waiting.release()
        raise
    return waiting
