"""Damage to stored layers, and what a check finds of it."""

from __future__ import annotations

import os
from pathlib import Path

from support.layers import Unpacked


def faults(unpacked: Unpacked) -> tuple[str, ...]:
    """Return what a deep check finds wrong, but the times of directories, which most damage changes.

    All of the layer could be checked.
    """
    found = unpacked.check()
    assert found.unchecked == ()
    return tuple(fault for fault in found.faults if " of time " not in fault)


def flip(path: Path, position: int) -> None:
    """Change a bit of a file, and neither its size nor its times."""
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_symlink(path: Path) -> None:
    """Move something aside, and let a symlink lead there."""
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")
