"""An overlay that is mounted to see whether it can be, and is gone at once."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pykka_imagestore.core.rootfs import Reads
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.rootfs.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID
from pykka_imagestore.rootfs.overlay import overlay_reads
from pykka_imagestore.rootfs.overlay_ways import USER, WAYS, OverlayWays, Stack
from pykka_imagestore.rootfs.place import MODE

_NAMES = ("rootfs", "lower", "lowest", "upper", "work")
_WAYS = {way.__name__: way for way in WAYS}


@dataclass(frozen=True, slots=True)
class Trial:
    """What to try.

    Attributes:
        directory: Where its directories are made, and removed: it is made, too.
        way: The name of a way to tell the kernel the layers; None for any.
        writes: Whether with an upper directory.
        options: Besides the one for a user namespace.
    """

    directory: str
    way: str | None = None
    writes: bool = True
    options: tuple[str, ...] = ()


def try_overlay(trial: Trial) -> None:
    """Mount an overlay of two empty directories.

    Raises:
        OSError: It cannot be mounted, or the directories cannot be made.
    """
    make_directory(trial.directory, MODE)
    try:
        root, lower, lowest, upper, work = (f"{trial.directory}/{name}" for name in _NAMES)
        for path in (root, lower, lowest, upper, work):
            make_directory(path, MODE)
        options = trial.options + ((USER,) if overlay_reads() is Reads.USER else ())
        written = (upper, work) if trial.writes else None
        stack = Stack((lower, lowest), written, trial.directory, options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
        os.close(OverlayWays(WAYS).mount(stack) if trial.way is None else _WAYS[trial.way](stack, options))
    finally:
        remove_tree(trial.directory)
