"""Publish one unpacked layer. Runs in a thread, which waits for the disk most of the time."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore.durable.disk import Disk, disk


@dataclass(frozen=True, slots=True)
class MoveLayer:
    """What to publish: ``source`` and ``target`` are on one file system.

    Attributes:
        source: The staged layer: its rootfs and its record.
        target: The layer's directory in the store.
        durable: Whether to sync before and after; without, a power loss may leave a layer in part.
        opened: A file on that file system, open since before the layer was written; see ``Disk.sync_file_system``.
    """

    source: str
    target: str
    durable: bool = True
    opened: int | None = None


def move_layer(move: MoveLayer, on: Disk | None = None) -> None:
    """Make a staged layer durable, then visible; safe to run again.

    A layer that is there already stays: equal DiffID, equal content. The staged one is then left to be removed.

    Raises:
        OSError: The disk refused. The layer is whole or absent, never in part.
    """
    on = on or disk(durable=move.durable)
    source, target = Path(move.source), Path(move.target)
    if not target.exists():
        on.sync_file_system(source, move.opened)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            on.rename(source, target)  # commit point
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    on.sync_directory(target.parent)  # also the name that another gave it, who may have died before this line
