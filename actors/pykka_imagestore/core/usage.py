"""What each image and layer of a store costs on disk, shared and alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.inventory import Inventory, config_of, find_unneeded
from pykka_imagestore.core.needs import Needs


@dataclass(frozen=True, slots=True)
class LayerUsage:
    """What a layer costs.

    Attributes:
        bytes: On disk.
        images: Names of the images that have it; none if it waits for a prune.
        inodes: Files, directories and the like.
    """

    diff_id: DiffID
    bytes: int
    images: tuple[str, ...]
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """What an image costs.

    Attributes:
        bytes: On disk, of all its layers, its config, and what remembers them.
        own_bytes: Of what no other image has: what its removal frees.
        last_used: In seconds since the epoch; 0 if nothing tells.
        inodes: Files, directories and the like.
        own_inodes: Those that no other image has.
    """

    name: str
    bytes: int
    own_bytes: int
    last_used: float
    inodes: int = 0
    own_inodes: int = 0


@dataclass(frozen=True, slots=True)
class LeaseUsage:
    """Who needs layers now.

    Attributes:
        process: Whose need it is.
        purpose: What for.
        layers: DiffIDs.
    """

    process: int
    purpose: str
    layers: tuple[DiffID, ...]


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container costs beside its image.

    Attributes:
        container_id: Which one.
        image: Name of the image that its root file system was made of.
        backend: What made it.
        bytes: On disk, of what was written to its root file system, or copied for it.
        inodes: Files, directories and the like.
    """

    container_id: str
    image: str
    backend: str
    bytes: int
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store costs, which is what a budget bounds.

    Attributes:
        images: By name.
        layers: The largest first.
        leases: What stays until somebody needs it no more.
        bytes: On disk: all layers, configs and containers, and what remembers the images.
        unused_bytes: Of the layers and configs that no image has.
        inodes: Files, directories and the like.
        containers: Those of all processes, by id.
    """

    images: tuple[ImageUsage, ...]
    layers: tuple[LayerUsage, ...]
    leases: tuple[LeaseUsage, ...] = ()
    bytes: int = 0
    unused_bytes: int = 0
    inodes: int = 0
    containers: tuple[ContainerUsage, ...] = ()


def measure(
    inventory: Inventory, leases: Iterable[LeaseUsage] = (), containers: Iterable[ContainerUsage] = ()
) -> Usage:
    """Return what each image and layer costs, shared and alone, what containers cost, and who needs layers."""
    images = sorted(inventory.images, key=lambda image: image.name)
    names: dict[DiffID, list[str]] = {}
    for image in images:
        for layer in dict.fromkeys(image.layer_ids):
            names.setdefault(layer, []).append(image.name)
    layers = [
        LayerUsage(layer, size.bytes, tuple(names.get(layer, ())), size.inodes)
        for layer, size in inventory.layers.items()
    ]
    layers.sort(key=lambda layer: (-layer.bytes, layer.diff_id))
    users = {layer: len(some) for layer, some in names.items()}
    configs = Counter(image.config_digest for image in images)
    used = [_measure_image(inventory, image, users, configs) for image in images]
    unused = inventory.size_of((), *find_unneeded(images, Needs(), inventory.layers, inventory.configs))
    size = inventory.size()
    return Usage(tuple(used), tuple(layers), tuple(leases), size.bytes, unused.bytes, size.inodes, tuple(containers))


def _measure_image(
    inventory: Inventory, image: DockerImage, users: Mapping[DiffID, int], configs: Mapping[Digest | None, int]
) -> ImageUsage:
    own_layers = {layer for layer in image.layer_ids if users[layer] == 1}
    own_config = [] if image.config_digest is None or configs[image.config_digest] > 1 else [image.config_digest]
    size = inventory.size_of((image,), set(image.layer_ids), config_of(image))
    own = inventory.size_of((image,), own_layers, own_config)
    return ImageUsage(image.name, size.bytes, own.bytes, inventory.last_used(image), size.inodes, own.inodes)
