"""What must stay in a store, whatever images there are: for leases, and for containers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pykka_imagestore.core.digest import DiffID, Digest

if TYPE_CHECKING:
    from pykka_imagestore.core.image import DockerImage


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
