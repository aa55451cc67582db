"""What stacks of layers need on top, ``stacks/sha256-<hex>/``: found, published, and put on top of the layers.

One is made once for each stack and each way to read whiteouts (``jobs/make_stack.py``), never changed, and removed with
the first of its layers. Its record says how to merge the stack, so that nothing else is read for it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore import _proto
from pykka_imagestore.core.budget import Size
from pykka_imagestore.core.checksum import checksum_fault
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import ROOTFS, STACK_RECORD, StorePaths
from pykka_imagestore.core.rootfs import Reads, StackLayer, stack_id
from pykka_imagestore.core.store_names import is_own_name
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.layout import require_directory
from pykka_imagestore.durable.messages import parse_message
from pykka_imagestore.errors import StateError

_OWN = Size(2 * 4096, 2)  # of a stack's directory and record


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

    Raises:
        StateError: A newer version made one of them.
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
        if os.path.lexists(target):
            on.rename(target, staged.parent / target.name)
        try:
            on.rename(staged, target)  # commit point
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    on.sync_directory(target.parent)


@dataclass(frozen=True, slots=True)
class StoredStack:
    """A directory in stacks/.

    Attributes:
        layers: DiffIDs of the layers that it is for, the root layer first; none if its record cannot be read.
        size: What it takes on disk.
    """

    path: Path
    layers: tuple[DiffID, ...]
    size: Size


class StackTable:
    """What is in stacks/; a record, which never changes, is read once. For one thread."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._known: dict[str, StoredStack] = {}

    def all(self) -> Collection[StoredStack]:
        """Return all stacks.

        Raises:
            OSError: They cannot be listed.
        """
        try:
            names = os.listdir(self._paths.stacks)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            names = []
        found = {name: self._known.get(name) or self._read(name) for name in names if is_own_name("stacks", name)}
        self._known = {name: stack for name, stack in found.items() if stack.layers}
        return found.values()

    def without_layers(self, gone: Container[str]) -> list[StoredStack]:
        """Return those that lack one of their layers once some are gone."""
        return [stack for stack in self.all() if any(layer in gone for layer in stack.layers)]

    def _read(self, name: str) -> StoredStack:
        path = self._paths.stacks / name
        record = read_stack(path)
        layers = () if record is None else tuple(map(DiffID, record.layer_ids))
        return StoredStack(path, layers, _size_of(record))


def measure_stack(directory: Path) -> Size:
    """Return what a directory takes that is or was one of stacks/."""
    return _size_of(read_stack(directory))


def _size_of(record: _proto.StackRecord | None) -> Size:
    return _OWN if record is None else _OWN + Size(record.stored_bytes, record.inodes)


def _layer(path: Path, form: int) -> StackLayer:
    try:
        return StackLayer(str(path), WhiteoutFormat(form))
    except ValueError as error:
        raise StateError(f"{path} has whiteouts in a form that only a newer version knows; use that one") from error
