"""File systems of their own for quotas, and a kernel that only remembers them: many are built without."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.rootfs import quota
from pykka_imagestore.rootfs.quota import DQBLK, FSXATTR

IMAGE_BYTES = 400 << 20  # mkfs.xfs makes none below 300 MiB
MAKE: dict[str, list[str]] = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "ext4 that could": ["mkfs.ext4", "-q", "-F", "-O", "quota,project"],
    "xfs": ["mkfs.xfs", "-q"],
    "btrfs": ["mkfs.btrfs", "-q"],
}


@contextmanager
def mounted_image(directory: Path, kind: str, options: str = "") -> Iterator[Path]:
    """Mount a new file system below a directory for a while; a test is skipped where that cannot be."""
    place = Path(tempfile.mkdtemp(prefix="mounted-", dir=directory))
    image = place.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    if shutil.which(MAKE[kind][0]) is None:
        pytest.skip(f"this machine has no {MAKE[kind][0]}")
    subprocess.run([*MAKE[kind], str(image)], check=True, timeout=TIMEOUT)
    mount = ("mount", "-o", f"loop,{options}" if options else "loop", str(image), str(place))
    done = subprocess.run(mount, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        told = done.stderr.split(": ", 2)[-1].split(",")[0]
        pytest.skip(f"this machine does not let us mount {kind} with {options!r}: {told}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, timeout=TIMEOUT)
        image.unlink()


def project_of(path: Path) -> int:
    """Return under which project a file or a directory is counted."""
    attributes = bytearray(FSXATTR.size)
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(file, quota.FS_IOC_FSGETXATTR, attributes)
    finally:
        os.close(file)
    project: int = FSXATTR.unpack(attributes)[3]
    return project


def in_turn(*numbers: int) -> Callable[[int], int]:
    """Return what gives numbers in turn, and is called with something."""
    left = iter(numbers)
    return lambda _: next(left)


class Kernel:
    """Remembers limits, as the kernel does; nothing is ever used but what a test says."""

    def __init__(self, *, enforces: bool = True, missing: bool = False, is_xfs: bool = False) -> None:
        self.quotas: dict[int, bytes] = {}
        self._enforces, self._missing, self._is_xfs = enforces, missing, is_xfs

    def __call__(
        self, name: str, directory: int, command: int, project: int, buffer: ctypes.Array[ctypes.c_char]
    ) -> int:
        assert name == "quotactl_fd"
        failure = self._answer(directory, command, project, memoryview(buffer).cast("B"))
        if failure:
            raise OSError(failure, os.strerror(failure))
        return 0

    def _answer(self, directory: int, command: int, project: int, data: memoryview) -> int:
        assert command & 0xFF == quota.PRJQUOTA
        if self._missing:
            return errno.ENOSYS
        if directory < 0:
            return errno.EBADF
        match command >> 8:
            case quota.Q_XGETQSTATV:
                assert data[0] == quota.FS_QSTATV_VERSION1
                data[2:4] = (0x10 | 0x20 * self._enforces).to_bytes(2, "little")
            case quota.Q_GETQUOTA:
                if self._is_xfs and project not in self.quotas:
                    return errno.ENOENT
                data[:] = self.quotas.get(project, bytes(len(data)))
            case quota.Q_SETQUOTA:
                assert DQBLK.unpack(data)[8] == quota.QIF_BLIMITS
                used = DQBLK.unpack(self.quotas.get(project, bytes(len(data))))
                self.quotas[project] = DQBLK.pack(*DQBLK.unpack(data)[:2], *used[2:8], 0)
        return 0

    def use(self, project: int, size_bytes: int) -> None:
        self.quotas[project] = DQBLK.pack(0, 0, size_bytes, 0, 0, 1, 0, 0, 0)

    def limit(self, project: int) -> int:
        limit: int = DQBLK.unpack(self.quotas[project])[0]
        return limit
