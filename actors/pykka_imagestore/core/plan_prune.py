"""Decide what nobody needs any more. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.text import shown

_REFERENCE_BYTES = 75  # of a layer or config in a journal's frame or a snapshot: its digest, and what is around it


@dataclass(frozen=True, slots=True)
class Size:
    """What something takes on disk."""

    bytes: int = 0
    inodes: int = 0

    def __str__(self) -> str:
        return f"{self.bytes} bytes and {self.inodes} inodes"

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, self.inodes + other.inodes)

    def __sub__(self, other: Size) -> Size:
        return Size(self.bytes - other.bytes, self.inodes - other.inodes)


NOTHING: Final = Size()


@dataclass(frozen=True, slots=True)
class Budget:
    """What all of a store may take on disk; None for as much as there is, 0 for what must stay and no more."""

    bytes: int | None = None
    inodes: int | None = None

    def __bool__(self) -> bool:
        """Tell whether it bounds anything."""
        return not (self.bytes is None and self.inodes is None)

    def __str__(self) -> str:
        numbers = {"bytes": self.bytes, "inodes": self.inodes}
        return " and ".join(f"{number} {what}" for what, number in numbers.items() if number is not None)

    def holds(self, size: Size) -> bool:
        """Tell whether a store of this size is within it."""
        return (self.bytes is None or size.bytes <= self.bytes) and (self.inodes is None or size.inodes <= self.inodes)

    def can_hold(self, least: Size) -> bool:
        """Tell whether a store that cannot be smaller may be within it; as good as, if that is all it is to hold."""
        return 0 in (self.bytes, self.inodes) or self.holds(least)

    def __add__(self, more: Size) -> Budget:
        return Budget(
            None if self.bytes is None else max(1, self.bytes + more.bytes),
            None if self.inodes is None else max(1, self.inodes + more.inodes),
        )


NO_BUDGET: Final = Budget()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a store holds.

    Attributes:
        images: All of them.
        layers: The layers that are there, and what each takes on disk.
        configs: The image configs that are there, and when an image with it was last used, in seconds since the epoch.
        config_sizes: What each config takes on disk.
    """

    images: tuple[DockerImage, ...]
    layers: Mapping[DiffID, Size]
    configs: Mapping[Digest, float]
    config_sizes: Mapping[Digest, Size] = field(default_factory=dict)

    def last_used(self, image: DockerImage) -> float:
        """Return when an image was last used; 0 if nothing tells."""
        return 0.0 if image.config_digest is None else self.configs.get(image.config_digest, 0.0)

    def size(self) -> Size:
        """Return what all of it takes."""
        return self.size_of(self.images, self.layers, self.configs)

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
        budget: The least recently used, until the store is within it.
        dry_run: Only tell which these are.
    """

    keep: tuple[ImageName, ...] = ()
    unused_for: float | None = None
    budget: Budget = NO_BUDGET
    dry_run: bool = False

    @classmethod
    def of(
        cls,
        keep: Iterable[str],
        unused_for: float | None,
        budget_bytes: int | None,
        budget_inodes: int | None = None,
        *,
        dry_run: bool = False,
    ) -> PruneOptions:
        """Make options of what a caller says.

        Raises:
            InvalidInputError: ``keep`` is one text, or has what is no image name; or a number is negative.
        """
        if isinstance(keep, str):
            raise InvalidInputError(f"the images to keep are a list of names, not {shown(keep)}")
        numbers = {"unused_for": unused_for, "budget_bytes": budget_bytes, "budget_inodes": budget_inodes}
        for what, number in numbers.items():
            if number is not None and not number >= 0:
                raise InvalidInputError(f"{what} is {number}; a negative one would remove everything")
        return cls(tuple(map(ImageName.parse, keep)), unused_for, Budget(budget_bytes, budget_inodes), dry_run)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What to take out: images first, then what only they needed.

    Attributes:
        images: Those that are forgotten, the least recently used first.
        layers: DiffIDs of the layers that nothing needs then.
        configs: Digests of the configs that nothing needs then.
        freed_bytes: Bytes on disk of what goes.
        kept_bytes: Of what stays.
        freed_inodes: Files, directories and the like that go.
        kept_inodes: That stay.
        is_out_of_reach: Whether the budget could not be kept even if all went that may: then no image goes for it.
        least_bytes: Bytes on disk of what must stay.
        least_inodes: Files, directories and the like that must stay.
    """

    images: tuple[DockerImage, ...]
    layers: tuple[DiffID, ...]
    configs: tuple[Digest, ...]
    freed_bytes: int = 0
    kept_bytes: int = 0
    freed_inodes: int = 0
    kept_inodes: int = 0
    is_out_of_reach: bool = False
    least_bytes: int = 0
    least_inodes: int = 0

    @property
    def kept(self) -> Size:
        """What stays."""
        return Size(self.kept_bytes, self.kept_inodes)

    @property
    def least(self) -> Size:
        """What must stay."""
        return Size(self.least_bytes, self.least_inodes)

    def without(self, stayed: AbstractSet[str], inventory: Inventory) -> Pruned:
        """Return it less the layers and configs that stayed after all."""
        layers = tuple(layer for layer in self.layers if layer not in stayed)
        configs = tuple(config for config in self.configs if config not in stayed)
        freed = inventory.size_of(self.images, layers, configs)
        kept = inventory.size() - freed
        return replace(
            self,
            layers=layers,
            configs=configs,
            freed_bytes=freed.bytes,
            freed_inodes=freed.inodes,
            kept_bytes=kept.bytes,
            kept_inodes=kept.inodes,
        )


def plan_prune(inventory: Inventory, needs: Needs, options: PruneOptions, now: float) -> Pruned:
    """Choose images to forget, least recently used first; and all layers and configs that nothing needs then.

    For a budget that cannot be kept whatever is forgotten, no image is, unless it is 0, which asks for all that may go.
    Nor is one whose layers stay anyway, if the budget can be kept with it.
    """
    keep = {name.stored for name in options.keep}
    candidates = [
        image
        for image in sorted(inventory.images, key=lambda image: (inventory.last_used(image), image.name))
        if not needs.cover(image) and image.name not in keep
    ]
    kept = _Kept(inventory, needs)
    for image in candidates:
        if options.unused_for is not None and now - inventory.last_used(image) > options.unused_for:
            kept.forget(image)
    used = kept.copy()
    _keep_to(options.budget, kept, candidates)
    least = kept.copy()
    for image in candidates:
        least.forget(image)
    is_out_of_reach = not options.budget.can_hold(least.size)
    if is_out_of_reach:
        kept = used
    forgotten = tuple(image for image in candidates if image not in kept.images)
    layers, configs = find_unneeded(kept.images, needs, inventory.layers, inventory.configs)
    pruned = Pruned(
        forgotten,
        layers,
        configs,
        is_out_of_reach=is_out_of_reach,
        least_bytes=least.size.bytes,
        least_inodes=least.size.inodes,
    )
    return pruned.without(frozenset(), inventory)


def _keep_to(budget: Budget, kept: _Kept, candidates: Sequence[DockerImage]) -> None:
    """Forget images, the first ones first, until a budget is kept; but none in vain."""
    forgotten = []
    for image in candidates:
        if budget.holds(kept.size):
            break
        if image in kept.images:
            forgotten.append(image)
            kept.forget(image)
    for image in reversed(forgotten):
        kept.remember_if(image, budget)


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
class Usage:
    """What a store costs, which is what a budget bounds.

    Attributes:
        images: By name.
        layers: The largest first.
        leases: What stays until somebody needs it no more.
        bytes: On disk: all layers and configs, and what remembers the images.
        unused_bytes: Of the layers and configs that no image has.
        inodes: Files, directories and the like.
    """

    images: tuple[ImageUsage, ...]
    layers: tuple[LayerUsage, ...]
    leases: tuple[LeaseUsage, ...] = ()
    bytes: int = 0
    unused_bytes: int = 0
    inodes: int = 0


def measure(inventory: Inventory, leases: Iterable[LeaseUsage] = ()) -> Usage:
    """Return what each image and layer costs, shared and alone, and who needs layers."""
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
    return Usage(tuple(used), tuple(layers), tuple(leases), size.bytes, unused.bytes, size.inodes)


def _measure_image(
    inventory: Inventory, image: DockerImage, users: Mapping[DiffID, int], configs: Mapping[Digest | None, int]
) -> ImageUsage:
    own_layers = {layer for layer in image.layer_ids if users[layer] == 1}
    own_config = [] if image.config_digest is None or configs[image.config_digest] > 1 else [image.config_digest]
    size = inventory.size_of((image,), set(image.layer_ids), _config_of(image))
    own = inventory.size_of((image,), own_layers, own_config)
    return ImageUsage(image.name, size.bytes, own.bytes, inventory.last_used(image), size.inodes, own.inodes)


def _config_of(image: DockerImage) -> tuple[Digest, ...]:
    return () if image.config_digest is None else (image.config_digest,)


class _Kept:
    """What is kept, while images are forgotten one after the other.

    Attributes:
        images: Those that are kept.
        size: Of all that is kept.
    """

    def __init__(self, inventory: Inventory, needs: Needs) -> None:
        self._inventory = inventory
        self._layer_users, self._config_users = Counter(needs.layers), Counter(needs.configs)
        for image in inventory.images:
            self._layer_users.update(set(image.layer_ids))
            self._config_users.update(_config_of(image))
        self.images = dict.fromkeys(inventory.images)
        layers = [layer for layer in inventory.layers if self._layer_users[layer]]
        self.size = inventory.size_of(
            inventory.images, layers, [config for config in inventory.configs if self._config_users[config]]
        )

    def copy(self) -> _Kept:
        """Return another one, which goes its own way."""
        other = copy(self)
        other.images = dict(self.images)
        other._layer_users, other._config_users = Counter(self._layer_users), Counter(self._config_users)
        return other

    def forget(self, image: DockerImage) -> None:
        """Keep an image no more; a second time does nothing."""
        if image in self.images:
            del self.images[image]
            self._layer_users.subtract(set(image.layer_ids))
            self._config_users.subtract(_config_of(image))
            self.size -= self._own_size(image)

    def remember_if(self, image: DockerImage, budget: Budget) -> None:
        """Keep a forgotten image after all, if all its layers stay anyway, and a budget holds it."""
        size = self.size + self._own_size(image)
        if all(self._layer_users[layer] for layer in self._layers_of(image)) and budget.holds(size):
            self.images[image], self.size = None, size
            self._layer_users.update(set(image.layer_ids))
            self._config_users.update(_config_of(image))

    def _own_size(self, image: DockerImage) -> Size:
        """Return what an image takes that nobody uses, for now."""
        layers = [layer for layer in self._layers_of(image) if not self._layer_users[layer]]
        configs = [config for config in _config_of(image) if not self._config_users[config]]
        return self._inventory.size_of((image,), layers, configs)

    def _layers_of(self, image: DockerImage) -> set[DiffID]:
        return {layer for layer in image.layer_ids if layer in self._inventory.layers}
