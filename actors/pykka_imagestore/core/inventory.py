"""What a store holds, what of it must stay, and what nobody needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pykka_imagestore.core.budget import NOTHING, Size
from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.needs import Needs

_REFERENCE_BYTES = 75  # of a layer or config in a journal's frame or a snapshot: its digest, and what is around it


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a store holds.

    Attributes:
        images: All of them.
        layers: The layers that are there, and what each takes on disk.
        configs: The image configs that are there, and when an image with it was last used, in seconds since the epoch.
        config_sizes: What each config takes on disk.
        containers: What each container takes on disk, as it was last measured.
    """

    images: tuple[DockerImage, ...]
    layers: Mapping[DiffID, Size]
    configs: Mapping[Digest, float]
    config_sizes: Mapping[Digest, Size] = field(default_factory=dict)
    containers: Mapping[str, Size] = field(default_factory=dict)

    def last_used(self, image: DockerImage) -> float:
        """Return when an image was last used; 0 if nothing tells."""
        return 0.0 if image.config_digest is None else self.configs.get(image.config_digest, 0.0)

    def size(self) -> Size:
        """Return what all of it takes."""
        return self.size_of(self.images, self.layers, self.configs) + self.containers_size

    @property
    def containers_size(self) -> Size:
        """What all containers take."""
        sizes = self.containers.values()
        return Size(sum(size.bytes for size in sizes), sum(size.inodes for size in sizes))

    def size_of(self, images: Iterable[DockerImage], layers: Iterable[DiffID], configs: Iterable[Digest]) -> Size:
        """Return what some of it takes: layers, configs, and what is remembered of images themselves."""
        sizes = [
            *(self.layers.get(layer, NOTHING) for layer in layers),
            *(self.config_sizes.get(config, NOTHING) for config in configs),
            *map(size_of_reference, images),
        ]
        return Size(sum(size.bytes for size in sizes), sum(size.inodes for size in sizes))


def size_of_reference(image: DockerImage) -> Size:
    """Return what it takes to remember which layers make an image: once in the snapshot, once in the journal."""
    return Size(2 * (len(image.name.encode()) + _REFERENCE_BYTES * (len(image.layer_ids) + 1)))


def find_unneeded(
    images: Iterable[DockerImage], needs: Needs, layers: Iterable[DiffID], configs: Iterable[Digest]
) -> tuple[tuple[DiffID, ...], tuple[Digest, ...]]:
    """Return those layers and configs that neither an image has nor somebody needs."""
    used_layers, used_configs = set(needs.layers), set(needs.configs)
    for image in images:
        used_layers.update(image.layer_ids)
        if image.config_digest is not None:
            used_configs.add(image.config_digest)
    return (
        tuple(layer for layer in layers if layer not in used_layers),
        tuple(config for config in configs if config not in used_configs),
    )


def config_of(image: DockerImage) -> tuple[Digest, ...]:
    """Return the digest of an image's config, if it has one."""
    return () if image.config_digest is None else (image.config_digest,)
