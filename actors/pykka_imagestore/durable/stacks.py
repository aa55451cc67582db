"""What stacks of layers need on top, ``stacks/sha256-<hex>/``: found, published, and put on top of the layers.

One is made once for each stack and each way to read whiteouts (``jobs/make_stack.py``), never changed, and removed with
the first of its layers. Its record says how to merge the stack, so that nothing else is read for it.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pykka_imagestore import _proto
from pykka_imagestore.core.checksum import checksum_fault
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import ROOTFS, STACK_RECORD, StorePaths
from pykka_imagestore.core.rootfs import Reads, StackLayer, stack_id
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.layout import require_directory
from pykka_imagestore.durable.messages import parse_message
from pykka_imagestore.errors import StateError


def find_stack(paths: StorePaths, layer_ids: Sequence[str], reads: Reads) -> _proto.StackRecord | None:
    """Return the record of what a stack of layers needs on top; None if that must be made first.

    It stays while somebody needs the layers: hold a lease of them.

    Args:
        layer_ids: DiffIDs, the root layer first.
        reads: Which whiteouts those read who will merge the layers.
    """
    stack = stack_id(layer_ids, reads)
    record = read_stack(paths.stack(stack))
    is_it = record is not None and (record.stack, record.reads) == (stack, reads)
    return record if is_it and record is not None and list(record.layer_ids) == [*layer_ids] else None


def read_stack(directory: Path) -> _proto.StackRecord | None:
    """Return the record in a directory of stacks/; None if there is none that is sound."""
    try:
        data = read_file(directory / STACK_RECORD)
        record = parse_message(_proto.StackRecord, data)
    except (OSError, StateError, ValueError):
        return None
    is_whole = record.HasField("checksum") and len(record.layer_whiteouts) == len(record.layer_ids)
    return record if is_whole and checksum_fault(data, record.checksum) is None else None


def stack_layers(paths: StorePaths, record: _proto.StackRecord) -> tuple[StackLayer, ...]:
    """Return of which directories a root file system is merged, the lowest first, what is needed on top the last.

    A layer that a stack has several times is there once, where it comes last: nothing of it below shows then, and an
    overlay takes no directory twice.
    """
    forms = dict(zip(reversed(record.layer_ids), reversed(record.layer_whiteouts), strict=True))
    layers = [_layer(paths.layer(DiffID(diff_id)) / ROOTFS, form) for diff_id, form in reversed(forms.items())]
    if not record.is_empty:
        layers.append(_layer(paths.stack(record.stack) / ROOTFS, record.whiteouts))
    return tuple(layers)


def publish_stack(paths: StorePaths, staged: Path, stack: str, on: Disk, opened: int | None = None) -> None:
    """Make what ``jobs/make_stack.py`` made durable, then visible; safe to run again.

    One that is there already stays, and the staged one is left where it is. So is one that was there but is not sound.

    Args:
        staged: It; the directory around is removed afterwards.
        stack: Its id.
        opened: As for ``Disk.sync_file_system``.

    Raises:
        OSError: The disk failed. It is there entirely or not at all.
    """
    target = paths.stack(stack)
    require_directory(paths.stacks)
    if read_stack(target) is None:
        on.sync_file_system(staged, opened)
        with suppress(FileNotFoundError):
            on.rename(target, staged.parent / target.name)
        try:
            on.rename(staged, target)  # commit point
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    on.sync_directory(target.parent)


def _layer(path: Path, form: int) -> StackLayer:
    return StackLayer(str(path), WhiteoutFormat(form))
