"""Decide which images to forget, and which layers and configs nobody needs then. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import dataclass, replace

from pykka_imagestore.core.budget import NO_BUDGET, Budget, Size
from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName, without_label
from pykka_imagestore.core.inventory import Inventory, config_of, find_unneeded
from pykka_imagestore.core.needs import Needs
from pykka_imagestore.core.parameters import require_flag, require_seconds
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.text import shown


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """Which images to forget.

    Attributes:
        keep: Never these; a name, or the digest of a config.
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
            InvalidInputError: ``keep`` is one text, or has what is no image name; or a number is none, or negative.
        """
        if isinstance(keep, str) or not isinstance(keep, Iterable):
            raise InvalidInputError(f"keep is {shown(str(keep))}; it takes a list of image names")
        require_seconds("unused_for", unused_for)
        require_flag("dry_run", dry_run)
        budget = Budget.of(budget_bytes, budget_inodes)
        return cls(tuple(map(ImageName.parse_stored, keep)), unused_for, budget, dry_run)


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
        if not needs.cover(image) and keep.isdisjoint((without_label(image.name), image.config_digest))
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
            self._config_users.update(config_of(image))
        self.images = dict.fromkeys(inventory.images)
        layers = [layer for layer in inventory.layers if self._layer_users[layer]]
        configs = [config for config in inventory.configs if self._config_users[config]]
        self.size = inventory.size_of(inventory.images, layers, configs) + inventory.containers_size

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
            self._config_users.subtract(config_of(image))
            self.size -= self._own_size(image)

    def remember_if(self, image: DockerImage, budget: Budget) -> None:
        """Keep a forgotten image after all, if all its layers stay anyway, and a budget holds it."""
        size = self.size + self._own_size(image)
        if all(self._layer_users[layer] for layer in self._layers_of(image)) and budget.holds(size):
            self.images[image], self.size = None, size
            self._layer_users.update(set(image.layer_ids))
            self._config_users.update(config_of(image))

    def _own_size(self, image: DockerImage) -> Size:
        """Return what an image takes that nobody uses, for now."""
        layers = [layer for layer in self._layers_of(image) if not self._layer_users[layer]]
        configs = [config for config in config_of(image) if not self._config_users[config]]
        return self._inventory.size_of((image,), layers, configs)

    def _layers_of(self, image: DockerImage) -> set[DiffID]:
        return {layer for layer in image.layer_ids if layer in self._inventory.layers}
