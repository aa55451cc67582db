"""Publish one unpacked layer. Runs in a thread: most of the time it waits for the disk."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore.durable.disk import Disk, disk


@dataclass(frozen=True, slots=True)
class MoveLayer:
    """What to publish; ``source`` and ``target`` are on one file system.

    Attributes:
        source: The staged layer: its rootfs and its record.
        target: The layer's directory in the store.
        durable: Whether to sync before and after the rename; if not, a power loss may leave a part of the layer.
        opened: A file on that file system, open since before the layer was written; see ``Disk.sync_file_system``.
    """

    source: str
    target: str
    durable: bool = True
    opened: int | None = None


def move_layer(move: MoveLayer, on: Disk | None = None) -> None:
    """Make a staged layer durable, then visible; safe to run again.

    A layer that is there already stays, since an equal DiffID means equal content. The staged one is then left where it
    is, to be removed with its staging directory.

    Raises:
        OSError: The disk failed. The layer is there entirely or not at all.
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
    on.sync_directory(target.parent)  # another process may have renamed it, and died before this line
