"""Publish one unpacked layer. Runs in a worker process."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore.durable.disk import Disk, disk
from pykka_imagestore.durable.owned import worked_in


@dataclass(frozen=True, slots=True)
class MoveLayer:
    """What to publish: ``source`` and ``target`` are on one file system.

    Attributes:
        source: The staged layer: its rootfs and its record.
        target: The layer's directory in the store.
        durable: Whether to sync before and after; without, a power loss may leave a layer in part.
        owned: The owned folder that ``source`` is in, to be kept from being swept meanwhile; None if there is none.
    """

    source: str
    target: str
    durable: bool = True
    owned: str | None = None


def move_layer(move: MoveLayer, on: Disk | None = None) -> None:
    """Make a staged layer durable, then visible; safe to run again.

    A layer that is there already stays: equal DiffID, equal content. The staged one is then left to be removed.

    Raises:
        OSError: The disk refused, or who wanted it is dead. The layer is whole or absent, never in part.
    """
    on = on or disk(durable=move.durable)
    source, target = Path(move.source), Path(move.target)
    # Who sweeps what a dead owner left might have deleted half of it before the rename.
    with nullcontext() if move.owned is None else worked_in(Path(move.owned)):
        if not target.exists():
            on.sync_file_system(source)
            target.parent.mkdir(exist_ok=True)
            try:
                on.rename(source, target)  # commit point
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    on.sync_folder(target.parent)  # also the name that another gave it, who may have died before this line
