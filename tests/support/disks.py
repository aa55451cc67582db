"""Disks that lose power, remember what was asked of them, fail, or have only so much room."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from pykka_imagestore.durable.disk import Disk

BLOCK = 4096


class PowerCutError(BaseException):
    """Not an Exception, so that no handler in the code under test swallows it."""


class DyingDisk(Disk):
    """A disk that loses power just before one of its calls."""

    def __init__(self, calls_before_cut: int) -> None:
        self._calls_left = calls_before_cut

    def __getattribute__(self, attribute: str) -> object:
        real = super().__getattribute__(attribute)
        if not attribute.startswith("_"):
            if self._calls_left == 0:
                raise PowerCutError(attribute)
            self._calls_left -= 1
        return real


class RecordingDisk(Disk):
    """A disk that lists its calls: what was called, and the names of the files, open ones too."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def __getattribute__(self, attribute: str) -> object:
        real = super().__getattribute__(attribute)
        if attribute.startswith("_") or attribute == "calls":
            return real

        def call(*files: Path | int | None) -> object:
            self.calls.append((attribute, *(_name_of(file) for file in files if file is not None)))
            return real(*files)

        return call


class FailingDisk(Disk):
    """A disk whose calls of one kind fail with EIO, for as long as ``failing`` says."""

    def __init__(self, *failing: str) -> None:
        self.failing = set(failing)

    def __getattribute__(self, attribute: str) -> object:
        if not attribute.startswith("_") and attribute != "failing" and attribute in self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), attribute)
        return super().__getattribute__(attribute)


def statvfs_of(free: int) -> Callable[[int | str], SimpleNamespace]:
    """Return an ``os.statvfs`` that tells of so many free bytes, and else of what is there."""
    real = os.statvfs

    def statvfs(path: int | str) -> SimpleNamespace:
        found = real(path)
        fields = {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}
        return SimpleNamespace(**{**fields, "f_bfree": free, "f_bavail": free, "f_frsize": 1})

    return statvfs


@contextlib.contextmanager
def filled(directory: Path, free_bytes: int) -> Iterator[None]:
    """Leave so many bytes free of a file system."""
    filler = directory / "filler"
    with filler.open("wb") as file:
        size, step = 0, 1 << 20
        while step >= BLOCK:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
        file.truncate(max(0, size - free_bytes))
        os.fsync(file.fileno())
    try:
        yield
    finally:
        filler.unlink()
        Disk().sync_file_system(directory)  # or the room is free a little later only


def _name_of(file: Path | int) -> str:
    return os.path.basename(os.readlink(f"/proc/self/fd/{file}")) if isinstance(file, int) else file.name
