"""An image that is to be put: what every source of images, an archive or a registry, is turned into. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_blob import LayerBlob


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image to put, and the names to put it under.

    Attributes:
        names: As they are stored; at least one, the digest of its config if it has no name.
        config: The image config; of a legacy image, the JSON of its leaf layer.
        layers: Root layer first.
        diff_ids: The config's claim, one for each layer; None for a legacy image, which makes none.
    """

    names: tuple[str, ...]
    config: bytes
    layers: tuple[LayerBlob, ...]
    diff_ids: tuple[DiffID, ...] | None
