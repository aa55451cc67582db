"""Where everything lies in a store's directory.

<store>/
    imagestore              says that this is a store: see durable/marker.py
    storedImages            which layers make which image, a snapshot: see durable/checkpoint.py
    storedImages.journal    changes since: see core/journal.py
    layers/sha256-<hex>/    a layer, there entirely or not at all
        rootfs/             its unpacked files
        layer.pb            its record, a LayerRecord
        tar-split.zst       what of its tar is no file's body, compressed
        replaced/           files that later entries replaced, if there are any, and a list of their paths
    configs/sha256-<hex>    image configs, byte for byte
    staging/<random>/       work in progress; containers that a process makes, and the sign that it lives
        lock                held by the process whose work it is
    gc/<random>/            what was removed, waiting to be deleted
        lock                held by the process that deletes it
    containers/<id>/        a provisioned root file system
        container.pb        its record, a ContainerRecord: what it needs stays until it is destroyed
        upper/ work/        what was written to it, where an overlay is mounted
        rootfs/             where it is attached; or its files, where they are copied or linked
        fill/               what those who copy or link them have to tell each other; gone when all is there
    stacks/sha256-<hex>/    what a stack of layers needs on top to mean what its tars say
        rootfs/             its files, whiteouts and directories
        stack.pb            its record, a StackRecord
    leases/<random>         which layers and config a process needs; held by that process
    reserve/                room for removals and leases on a full disk: see durable/reserve.py
    locks/                  empty files, whose bytes processes lock: see durable/locks.py
        references          held while a change of images is written
        layers              a byte for each layer, held by the process that unpacks it
        staging, gc, leases held while something is made or looked for in that directory
        containers          held while containers of dead processes are adopted or destroyed
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pykka_imagestore.core.digest import DiffID, directory_name

if TYPE_CHECKING:  # workers need no more than the names below
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pykka_imagestore.core.image import DockerImage, ImageInfo

ROOTFS = "rootfs"
RECORD = "layer.pb"
TAR_SPLIT = "tar-split.zst"
REPLACED = "replaced"
REPLACED_PATHS = "paths"
LOCK = "lock"
CONTAINER_RECORD = "container.pb"
UPPER = "upper"
WORK = "work"
FILL = "fill"
STACK_RECORD = "stack.pb"
REMOVED_STACK = "stack-"  # what the name of one begins with in gc/, where its own might be a layer's


@dataclass(frozen=True)
class StorePaths:
    """The paths in one store; ``root`` is absolute."""

    root: Path

    @cached_property
    def marker(self) -> Path:
        """What says that this is a store."""
        return self.root / "imagestore"

    @cached_property
    def stored_images(self) -> Path:
        """The reference store's checkpoint."""
        return self.root / "storedImages"

    @cached_property
    def journal(self) -> Path:
        """What changed since the checkpoint."""
        return self.root / "storedImages.journal"

    @cached_property
    def layers(self) -> Path:
        """The directory of published layers."""
        return self.root / "layers"

    @cached_property
    def configs(self) -> Path:
        """The directory of image configs."""
        return self.root / "configs"

    @cached_property
    def staging(self) -> Path:
        """The directory of work in progress."""
        return self.root / "staging"

    @cached_property
    def gc(self) -> Path:
        """The directory of what is being deleted."""
        return self.root / "gc"

    @cached_property
    def containers(self) -> Path:
        """The directory of provisioned root file systems."""
        return self.root / "containers"

    @cached_property
    def stacks(self) -> Path:
        """The directory of what stacks of layers need on top."""
        return self.root / "stacks"

    @cached_property
    def leases(self) -> Path:
        """The directory of leases."""
        return self.root / "leases"

    @cached_property
    def reserve(self) -> Path:
        """The directory of files that keep room."""
        return self.root / "reserve"

    @cached_property
    def locks(self) -> Path:
        """The directory of the files that processes lock."""
        return self.root / "locks"

    @cached_property
    def directories(self) -> tuple[Path, ...]:
        """The directories that every store has."""
        return (self.layers, self.configs, self.staging, self.gc, self.leases, self.locks)

    @cached_property
    def later_directories(self) -> tuple[Path, ...]:
        """The directories that a store gets when something is first to lie in them."""
        return (self.reserve, self.containers, self.stacks)

    @cached_property
    def references_lock(self) -> Path:
        """The lock of the process that writes the checkpoint or the journal."""
        return self.locks / "references"

    @cached_property
    def layers_lock(self) -> Path:
        """The file of which a process that unpacks a layer locks a byte."""
        return self.locks / "layers"

    @cached_property
    def containers_lock(self) -> Path:
        """The lock that is shared by those that destroy other processes' containers, and exclusive for a recovery."""
        return self.locks / "containers"

    @cached_property
    def leases_lock(self) -> Path:
        """The lock that is shared by those that take leases, and exclusive for one that evicts layers."""
        return self.locks / "leases"

    def guard(self, directory: Path) -> Path:
        """Return the lock of ``staging`` or ``gc``: held to make owned directories in it, or to look through them."""
        return self.locks / directory.name

    def layer(self, diff_id: DiffID) -> Path:
        """Return the directory of a layer."""
        return self.layers / directory_name(diff_id)

    def rootfs(self, diff_id: DiffID) -> Path:
        """Return the directory of a layer's unpacked files."""
        return self.layer(diff_id) / ROOTFS

    def container(self, container_id: str) -> Path:
        """Return the directory of a container."""
        return self.containers / container_id

    def stack(self, stack: str) -> Path:
        """Return the directory of what a stack needs on top."""
        return self.stacks / directory_name(stack)

    def config(self, config_digest: str) -> Path:
        """Return the file of an image config."""
        return self.configs / directory_name(config_digest)

    def locate(self, image: DockerImage) -> ImageInfo:
        """Return an image with where its layers lie."""
        return self.locate_all((image,))[0]

    def locate_all(
        self, images: Iterable[DockerImage], whiteouts: Callable[[DiffID], str | None] = lambda _: None
    ) -> tuple[ImageInfo, ...]:
        """Return images with where their layers lie; images share the objects of the layers that they share.

        Args:
            whiteouts: Returns how a layer keeps deletions, once for each.
        """
        from pykka_imagestore.core.image import ImageInfo, Layer  # noqa: PLC0415 - no worker does this

        directory, layers = self.layers, dict[DiffID, Layer]()
        located: list[ImageInfo] = []
        for image in images:
            for diff_id in image.layer_ids:
                if diff_id not in layers:
                    # In one step, not by rootfs(): a list of images makes thousands of these paths.
                    path = directory.joinpath(directory_name(diff_id), ROOTFS)
                    layers[diff_id] = Layer(diff_id, path, whiteouts(diff_id))
            found = tuple(layers[diff_id] for diff_id in image.layer_ids)
            located.append(ImageInfo(image.name, found, image.config_digest, image.missing))
        return tuple(located)
