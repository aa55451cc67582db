"""A small ext4 on a loop device, and copies of what has reached the device: what a power cut would leave."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.processes import TIMEOUT

SIZE = "40M"


@dataclass(frozen=True)
class Device:
    """A mounted device.

    Attributes:
        image: The file that is the device.
        directory: Where it is mounted.
        loop: Its name, such as ``loop3``.
    """

    image: Path
    directory: Path
    loop: str

    def copy(self, target: Path) -> None:
        """Copy the device as it is at one moment, which lies between the call and the return.

        A copy that was made while something was written would hold later writes without earlier ones, as no disk does
        that obeys flushes; so it is made again.
        """
        until = time.monotonic() + TIMEOUT
        while time.monotonic() < until:
            before = self._writes()
            if before is not None:
                _run("cp", "--sparse=always", self.image, target)
                if self._writes() == before:
                    return
            time.sleep(0.005)
        raise AssertionError(f"{self.loop} is written to all the time")

    def _writes(self) -> tuple[str, ...] | None:
        """Return how much was written so far; None while something is in flight."""
        numbers = Path("/sys/block", self.loop, "stat").read_text().split()
        return None if numbers[8] != "0" else tuple(numbers[4:7] + numbers[11:14] + numbers[15:16])


@contextlib.contextmanager
def new_device(directory: Path, size: str = SIZE) -> Iterator[Device]:
    """Lend an empty ext4, mounted."""
    image = directory / "device"
    _run("truncate", "-s", size, image)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", image)
    with mounted(image, directory / "mounted") as device:
        yield device


@contextlib.contextmanager
def mounted(image: Path, directory: Path) -> Iterator[Device]:
    """Mount a device; its journal is replayed."""
    directory.mkdir(exist_ok=True)
    _run("mount", "-o", "loop", image, directory)
    try:
        source = _run("findmnt", "--noheadings", "--output", "SOURCE", directory).strip()
        yield Device(image, directory, os.path.basename(source))
    except BaseException:
        _run("umount", "--lazy", directory)  # what failed may have files open yet
        raise
    _run("umount", directory)


def why_not(directory: Path) -> str | None:
    """Return why devices cannot be made here, as a sentence; None if they can."""
    if os.geteuid() != 0:
        return "needs root, to mount"
    try:
        with new_device(directory):
            return None
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        said = str(getattr(error, "stderr", None) or error).splitlines()[0]
        return f"needs an ext4 on a loop device, which cannot be had here: {said}"


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout
