"""Decide what nobody needs any more. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.errors import InvalidInputError, shown


@dataclass(frozen=True, slots=True)
class Stock:
    """What a store holds.

    Attributes:
        images: All of them.
        layers: The layers that are there, and the bytes that each takes on disk.
        configs: The image configs that are there, and when an image with it was last used, in seconds since the epoch.
    """

    images: tuple[DockerImage, ...]
    layers: Mapping[DiffID, int]
    configs: Mapping[Digest, float]

    def last_used(self, image: DockerImage) -> float:
        """Return when an image was last used; 0 if nothing tells."""
        return 0.0 if image.config_digest is None else self.configs.get(image.config_digest, 0.0)


@dataclass(frozen=True, slots=True)
class Needs:
    """What must stay, whatever images there are.

    Attributes:
        layers: DiffIDs.
        configs: Digests of image configs.
    """

    layers: frozenset[DiffID] = frozenset()
    configs: frozenset[Digest] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.layers | other.layers, self.configs | other.configs)

    def cover(self, image: DockerImage) -> bool:
        """Tell whether all of an image must stay."""
        config = image.config_digest
        return self.layers.issuperset(image.layer_ids) and (config is None or config in self.configs)


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """Which images to forget.

    Attributes:
        keep: Never these.
        unused_for: Those that were not used for so many seconds; None for none.
        budget_bytes: The least recently used, until all layers together take no more; None for none.
        dry_run: Only tell which these are.
    """

    keep: tuple[ImageName, ...] = ()
    unused_for: float | None = None
    budget_bytes: int | None = None
    dry_run: bool = False

    @classmethod
    def of(
        cls, keep: Iterable[str], unused_for: float | None, budget_bytes: int | None, *, dry_run: bool = False
    ) -> PruneOptions:
        """Make options of what a caller says.

        Raises:
            InvalidInputError: ``keep`` is one text, or has what is no image name; or a number is negative.
        """
        if isinstance(keep, str):
            raise InvalidInputError(f"the images to keep are a list of names, not {shown(keep)}")
        for what, number in {"unused_for": unused_for, "budget_bytes": budget_bytes}.items():
            if number is not None and not number >= 0:
                raise InvalidInputError(f"{what} is {number}; a negative one would remove everything")
        return cls(tuple(map(ImageName.parse, keep)), unused_for, budget_bytes, dry_run)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What to take out: images first, then what only they needed.

    Attributes:
        images: Those that are forgotten, the least recently used first.
        layers: DiffIDs of the layers that nothing needs then.
        configs: Digests of the configs that nothing needs then.
        freed_bytes: Bytes on disk of the layers that go.
        kept_bytes: Of those that stay.
    """

    images: tuple[DockerImage, ...]
    layers: tuple[DiffID, ...]
    configs: tuple[Digest, ...]
    freed_bytes: int = 0
    kept_bytes: int = 0


def plan_prune(stock: Stock, needs: Needs, options: PruneOptions, now: float) -> Pruned:
    """Choose images to forget, least recently used first; and all layers and configs that nothing needs then."""
    keep = {name.stored for name in options.keep}
    candidates = [
        image
        for image in sorted(stock.images, key=lambda image: (stock.last_used(image), image.name))
        if not needs.cover(image) and image.name not in keep
    ]
    kept = _Kept(stock, needs)
    forgotten = []
    for image in candidates:
        is_old = options.unused_for is not None and now - stock.last_used(image) > options.unused_for
        is_too_much = options.budget_bytes is not None and kept.bytes > options.budget_bytes
        if is_old or is_too_much:
            forgotten.append(image)
            kept.forget(image)
    rest = set(stock.images).difference(forgotten)
    layers, configs = find_unneeded(rest, needs, stock.layers, stock.configs)
    freed_bytes = sum(stock.layers[layer] for layer in layers)
    return Pruned(tuple(forgotten), layers, configs, freed_bytes, kept.bytes)


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


@dataclass(frozen=True, slots=True)
class LayerUsage:
    """What a layer costs.

    Attributes:
        bytes: On disk.
        images: Names of the images that have it; none if it waits for a prune.
    """

    diff_id: DiffID
    bytes: int
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """What an image costs.

    Attributes:
        bytes: On disk, of all its layers.
        own_bytes: Of the layers that no other image has: what its removal frees.
        last_used: In seconds since the epoch; 0 if nothing tells.
    """

    name: str
    bytes: int
    own_bytes: int
    last_used: float


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
class Usage:
    """What a store costs.

    Attributes:
        images: By name.
        layers: The largest first.
        leases: What stays until somebody needs it no more.
    """

    images: tuple[ImageUsage, ...]
    layers: tuple[LayerUsage, ...]
    leases: tuple[LeaseUsage, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes on disk of all layers."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def unused_bytes(self) -> int:
        """Bytes on disk of the layers that no image has."""
        return sum(layer.bytes for layer in self.layers if not layer.images)


def measure(stock: Stock, leases: Iterable[LeaseUsage] = ()) -> Usage:
    """Return what each image and layer costs, shared and alone, and who needs layers."""
    names: dict[DiffID, list[str]] = {}
    for image in sorted(stock.images, key=lambda image: image.name):
        for layer in dict.fromkeys(image.layer_ids):
            names.setdefault(layer, []).append(image.name)
    layers = [LayerUsage(layer, size, tuple(names.get(layer, ()))) for layer, size in stock.layers.items()]
    layers.sort(key=lambda layer: (-layer.bytes, layer.diff_id))
    images = []
    for image in sorted(stock.images, key=lambda image: image.name):
        sizes = {layer: stock.layers.get(layer, 0) for layer in image.layer_ids}
        own = sum(size for layer, size in sizes.items() if len(names[layer]) == 1)
        images.append(ImageUsage(image.name, sum(sizes.values()), own, stock.last_used(image)))
    return Usage(tuple(images), tuple(layers), tuple(leases))


class _Kept:
    """The bytes that are kept, while images are forgotten one after the other."""

    def __init__(self, stock: Stock, needs: Needs) -> None:
        self._sizes = stock.layers
        self._users = Counter(layer for image in stock.images for layer in set(image.layer_ids))
        self._users.update(needs.layers)
        self.bytes = sum(size for layer, size in stock.layers.items() if self._users[layer])

    def forget(self, image: DockerImage) -> None:
        for layer in set(image.layer_ids):
            self._users[layer] -= 1
            if not self._users[layer]:
                self.bytes -= self._sizes.get(layer, 0)
