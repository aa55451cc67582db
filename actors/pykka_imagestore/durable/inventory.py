"""What a store holds, as it is on disk now: layers with their sizes, configs with their last use."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.budget import NOTHING, Size
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.inventory import Inventory
from pykka_imagestore.core.paths import LOCK, RECORD, REMOVED_STACK, REPLACED, REPLACED_PATHS, TAR_SPLIT, StorePaths
from pykka_imagestore.durable.container_sizes import ContainerSizes
from pykka_imagestore.durable.files import touch
from pykka_imagestore.durable.layer_record import read_record
from pykka_imagestore.durable.layout import find_configs, find_layers
from pykka_imagestore.durable.reserve import STAT_BLOCK_BYTES
from pykka_imagestore.durable.stacks import StackTable, measure_stack
from pykka_imagestore.errors import RecordError

_BLOCK_BYTES = 4096
_BESIDE = (".", RECORD, TAR_SPLIT, REPLACED, f"{REPLACED}/{REPLACED_PATHS}")  # what a layer has beside rootfs/
_ENTRY_BYTES = 300  # of disk for an entry's inode and names, which older versions did not count


class InventoryTaker:
    """Takes inventory of a store, repeatedly and in one thread; a layer, which never changes, is measured once.

    Attributes:
        containers: What containers take: the caller has them measured.
    """

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self.containers = ContainerSizes(paths)
        self._stacks = StackTable(paths)
        self._sizes: dict[DiffID, Size] = {}

    def take(self, images: Iterable[DockerImage]) -> Inventory:
        """Return ``images`` together with the layers and configs that are there."""
        layers = find_layers(self._paths)
        self._sizes = {layer: self._size_of(layer) for layer in layers}
        uses, sizes = {}, {}
        for config in find_configs(self._paths):
            with contextlib.suppress(FileNotFoundError):
                found = self._paths.config(config).lstat()
                uses[config], sizes[config] = found.st_mtime, Size(_bytes_of(found), 1)
        return Inventory(tuple(images), self._with_stacks(), uses, sizes, self.containers.sizes())

    def weigh(self, layers: Iterable[DiffID]) -> Size:
        """Return what some layers take together; those that are not there count nothing."""
        sizes = list(map(self._size_of, set(layers)))
        return Size(sum(size.bytes for size in sizes), sum(size.inodes for size in sizes))

    def weigh_moved(self, waiting: Path) -> tuple[int, Size]:
        """Return how many layers were moved to a directory below gc/, and what they and the configs there take."""
        layers, size = 0, NOTHING
        for moved in waiting.iterdir():
            if moved.name == LOCK:
                continue
            found = moved.lstat()
            if moved.name.startswith(REMOVED_STACK):
                size += measure_stack(moved)
            elif stat.S_ISDIR(found.st_mode):
                layers += 1
                size += self._measure(moved)
            else:
                size += Size(_bytes_of(found), 1)
        return layers, size

    def _with_stacks(self) -> dict[DiffID, Size]:
        """Return the sizes of layers; what a stack needs on top goes with its last one, as good as always."""
        sizes = dict(self._sizes)
        for stack in self._stacks.all():
            if stack.layers and stack.layers[-1] in sizes:
                sizes[stack.layers[-1]] += stack.size
        return sizes

    def _size_of(self, layer: DiffID) -> Size:
        known = self._sizes.get(layer, NOTHING)
        return self._measure(self._paths.layer(layer)) if known == NOTHING else known

    def _measure(self, directory: Path) -> Size:
        try:
            size = _size_of_files(read_record(directory))
        except RecordError:
            return NOTHING  # its size is unknown; a check reports what is wrong with it
        for part in _BESIDE:
            with contextlib.suppress(OSError):
                size += Size(_bytes_of((directory / part).lstat()), 1)
        return size


def _size_of_files(record: LayerRecord) -> Size:
    """Return what rootfs/ and the files in replaced/ take."""
    if record.HasField("inodes"):
        return Size(record.stored_bytes, record.inodes)
    # Older versions counted file bodies and directories only, or recorded only the size of the tar.
    counted = record.stored_bytes if record.HasField("stored_bytes") else record.size_bytes
    inodes = 1 + record.entries + len(record.implicit_directories)
    return Size(counted + inodes * _ENTRY_BYTES, inodes)


def _bytes_of(found: os.stat_result) -> int:
    # A file that has not been written back yet may have no blocks.
    return max(found.st_blocks * STAT_BLOCK_BYTES, -(-found.st_size // _BLOCK_BYTES) * _BLOCK_BYTES)


def note_use(paths: StorePaths, image: DockerImage) -> None:
    """Record that an image was used now, as its config's time; does nothing where the store cannot be written to."""
    if image.config_digest is not None:
        with contextlib.suppress(OSError):
            touch(paths.config(image.config_digest))
