"""Any inventory of a store, and what of it is needed."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from pykka_imagestore.core.budget import Size
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.inventory import Inventory, size_of_reference
from pykka_imagestore.core.needs import Needs

NOW = 1000.0
LAYERS = [DiffID(sha256(b"layer %d" % number)) for number in range(6)]
CONFIGS = [sha256(b"config %d" % number) for number in range(4)]
NAMES = [f"{letter}:latest" for letter in "abcde"]

layer_ids = st.lists(st.sampled_from(LAYERS), max_size=4).map(tuple)
images = st.lists(
    st.builds(DockerImage, st.sampled_from(NAMES), layer_ids, st.none() | st.sampled_from(CONFIGS)),
    unique_by=lambda image: image.name,
    max_size=5,
).map(tuple)
sizes = st.builds(Size, st.integers(0, 1000), st.integers(0, 9))
inventories = st.builds(
    lambda images, layers, configs, containers: Inventory(
        images,
        layers,
        {config: used for config, (used, _) in configs.items()},
        {config: size for config, (_, size) in configs.items()},
        containers,
    ),
    images,
    st.dictionaries(st.sampled_from(LAYERS), sizes),
    st.dictionaries(st.sampled_from(CONFIGS), st.tuples(st.sampled_from([0.0, 100.0, 500.0, NOW, NOW + 10]), sizes)),
    st.dictionaries(st.sampled_from(["box-1", "box-2"]), sizes),
)
needed = st.builds(Needs, st.frozensets(st.sampled_from(LAYERS)), st.frozensets(st.sampled_from(CONFIGS)))


def size_with(inventory: Inventory, needs: Needs, images: Iterable[DockerImage]) -> Size:
    """Return what would be kept with some images, and with what is needed, counted naively."""
    layers = {layer for image in images for layer in image.layer_ids} | needs.layers
    configs = {image.config_digest for image in images} | needs.configs
    total = sum(inventory.containers.values(), Size())
    for layer, size in inventory.layers.items():
        total += size if layer in layers else Size()
    for config, size in inventory.config_sizes.items():
        total += size if config in configs else Size()
    for image in images:
        total += size_of_reference(image)
    return total
