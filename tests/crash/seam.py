"""The calls that make things last, watched: all of ``durable.disk.Disk``, whoever made the disk.

What is done to the disk otherwise, such as unlinking what is left in staging/, goes on as it may.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from support import seams
from support.processes import TIMEOUT

from pykka_imagestore.durable import journal_file
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.locks import FileLock

JOURNAL = "storedImages.journal"
CALLS = ("sync_file", "sync_data", "sync_directory", "sync_file_system", "rename")

Before = Callable[..., None]


@contextlib.contextmanager
def watched(before: Before, *, one_by_one: bool = True) -> Iterator[None]:
    """Call ``before`` with the name and the arguments of each call of every disk, before it.

    What ``before`` raises, the call raises, and does nothing.

    Args:
        one_by_one: Let no two calls go on at once.
    """
    lock = threading.Lock() if one_by_one else contextlib.nullcontext()

    def watch(name: str) -> Callable[..., Any]:
        real = getattr(Disk, name)

        def call(disk: Disk, *args: Any) -> Any:
            with lock:
                before(name, *args)
                return real(disk, *args)

        return call

    with contextlib.ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(patch.object(Disk, name, watch(name)))
        yield


@contextlib.contextmanager
def watched_writes(before: Before) -> Iterator[None]:
    """Call ``before`` with the name of each write of a small file, of the journal, of a lease, and of each new
    directory.

    What it raises, the write raises, once half of it is done.
    """
    real_write, real_append, real_mkdir = Path.write_bytes, journal_file._write_at, Path.mkdir
    real_lease = FileLock.write

    def write(path: Path, data: bytes) -> int:
        try:
            before("write")
        except OSError:
            real_write(path, data[: len(data) // 2])
            raise
        return real_write(path, data)

    def append(descriptor: int, data: bytes, position: int) -> None:
        try:
            before("append")
        except OSError:
            real_append(descriptor, data[: len(data) // 2], position)
            raise
        real_append(descriptor, data, position)

    def lease(lock: FileLock, data: bytes) -> None:
        try:
            before("lease")
        except OSError:
            real_lease(lock, data[: len(data) // 2])
            raise
        real_lease(lock, data)

    def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
        before("mkdir")
        real_mkdir(path, *args, **kwargs)

    with (
        patch.object(Path, "write_bytes", write),
        patch(seams.APPEND_TO_JOURNAL, append),
        patch(seams.WRITE_LEASE, lease),
        patch.object(Path, "mkdir", mkdir),
    ):
        yield


class NoPowerError(OSError):
    """The power is gone. An OSError, so that all that runs comes to its end; what it then does is not looked at."""


class PowerCut:
    """Cuts the power before one of the calls: what is in the store then is copied, and no later call works.

    What was appended to the journal and not synced is not in the copy.

    Attributes:
        at: The name of the call that it came before; None while there is power.
    """

    def __init__(self, store: Path, copy: Path, calls_before: int) -> None:
        self._store, self._copy = store, copy
        self._calls_left = calls_before
        self._synced: dict[int, int] = {}  # bytes of each journal, by inode number
        self._note(store / JOURNAL)
        self.at: str | None = None

    def __call__(self, name: str, *args: Any) -> None:
        if self.at is None:
            if self._calls_left:
                self._calls_left -= 1
                if name in {"sync_file", "sync_data"}:
                    self._note(args[0])
                return
            self.now(name)
        raise NoPowerError(errno.EIO, f"the power is gone at {self.at}")

    def is_made(self) -> bool:
        return self.at is not None

    def now(self, at: str = "") -> None:
        """Cut the power."""
        copy_tree(self._store, self._copy)
        self._forget_tail()
        self.at = at

    def _note(self, file: Path | int) -> None:
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(file)
            self._synced[found.st_ino] = found.st_size

    def _forget_tail(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self._copy / JOURNAL, self._synced[(self._store / JOURNAL).stat().st_ino])


class UnsyncedNames:
    """Remembers which directories got a name that a power cut may still take back, whatever the file system is.

    Attributes:
        directories: These.
    """

    def __init__(self) -> None:
        self.directories: set[Path] = set()

    def __call__(self, name: str, *args: Any) -> None:
        if name == "rename":
            self.directories.add(args[1].parent)
        elif name == "sync_directory":
            self.directories.discard(args[0])
        elif name == "sync_file_system":
            self.directories.clear()


class Failure:
    """Fails one of the calls, or that and all after it.

    Attributes:
        at: The name of the call that failed; None so far.
    """

    def __init__(self, error: int, calls_before: int, *, for_good: bool = False) -> None:
        self._error, self._calls_left, self._for_good = error, calls_before, for_good
        self.at: str | None = None

    def __call__(self, name: str, *_: object) -> None:
        if self._calls_left:
            self._calls_left -= 1
        elif self.at is None or self._for_good:
            self.at = self.at or name
            raise OSError(self._error, os.strerror(self._error))


EACH_WAY_TO_FAIL = pytest.mark.parametrize(
    ("watch", "error", "for_good"),
    [
        pytest.param(watched, errno.EIO, False, id="sync fails"),
        pytest.param(watched, errno.ENOSPC, True, id="syncs find a full disk"),
        pytest.param(watched_writes, errno.EIO, False, id="write fails"),
        pytest.param(watched_writes, errno.ENOSPC, True, id="writes find a full disk"),
    ],
)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory as it is, with owners, times and attributes; what goes away meanwhile is left out."""
    command = ["cp", "-a", "--reflink=auto", str(source), str(target)]
    copied = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT, env={"LC_ALL": "C"})
    assert all(line.endswith(": No such file or directory") for line in copied.stderr.splitlines()), copied.stderr
