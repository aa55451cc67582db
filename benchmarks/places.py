"""Fresh directories to write to; nothing is deleted in between, for ext4 makes files slowly after a mass deletion."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from surroundings import file_system


class Places:
    """Lends one directory after another, all on the same file system, or each on a new one.

    Args:
        work: Where the directories are made.
        fresh_fs: Size of a new file system for each directory, as ``truncate`` takes it; needs root.
        kind: Its type: ext4 on a loop file, or tmpfs.
    """

    def __init__(self, work: Path, fresh_fs: str | None = None, kind: str = "ext4") -> None:
        self._work = work
        self._fresh_fs = fresh_fs
        self._kind = kind
        self._count = 0

    @property
    def file_system(self) -> dict[str, str]:
        """The directories' file system, for the JSON."""
        return {"type": f"{self._kind}, a fresh one for each run"} if self._fresh_fs else file_system(self._work)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Lend an empty directory, after everything written before has been synced."""
        self._count += 1
        directory = self._work / f"place{self._count}"
        directory.mkdir()
        if self._fresh_fs is None:
            subprocess.run(["sync", "--file-system", directory], check=True)
            yield directory
            return
        mount = {"ext4": mount_ext4, "tmpfs": mount_tmpfs}[self._kind]
        mount(directory, self._fresh_fs)
        try:
            subprocess.run(["sync", "--file-system", self._work], check=True)
            yield directory
        finally:
            unmount_below(directory)
            loop_file(directory).unlink(missing_ok=True)


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    """Lend the descriptor of a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def mount_ext4(directory: Path, size: str) -> None:
    # Not lazily: the kernel would go on making the file system while we measure.
    now = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["truncate", "--size", size, loop_file(directory)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", now, loop_file(directory)], check=True)
    subprocess.run(["mount", "-o", "loop", loop_file(directory), directory], check=True)


def mount_tmpfs(directory: Path, size: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)


def loop_file(directory: Path) -> Path:
    return directory.with_suffix(".ext4")


@contextmanager
def work_directory(on: Path | None) -> Iterator[Path]:
    """Lend a directory for a whole run, and delete it at the end."""
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=on)).resolve()
    try:
        yield work
    finally:
        unmount_below(work)
        subprocess.run(["rm", "-rf", work], check=True)


def unmount_below(directory: Path) -> None:
    """Unmount all that is mounted at a directory or below it: storage drivers leave mounts behind."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((point for point in points if Path(point).is_relative_to(directory)), reverse=True):
        subprocess.run(["umount", point], check=True)


def read_into_cache(path: Path) -> None:
    """Read a file, or the files of a directory, so that no contestant waits for the disk."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            subprocess.run(["cat", file], stdout=subprocess.DEVNULL, check=True)


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--on", type=Path, metavar="DIR", help="where to write (default: for temporary files)")
    parser.add_argument("--fresh-fs", metavar="SIZE", help="a new file system of so much (8G) for each run; needs root")
    parser.add_argument("--fs", choices=("ext4", "tmpfs"), default="ext4", help="its type (default: ext4)")
