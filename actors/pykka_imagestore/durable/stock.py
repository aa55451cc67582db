"""What a store holds, as it is on disk now: layers with their sizes, configs with their last use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.prune import Stock
from pykka_imagestore.durable.files import touch
from pykka_imagestore.durable.layout import find_configs, find_layers
from pykka_imagestore.durable.record import read_record
from pykka_imagestore.errors import RecordError


class StockTaker:
    """Looks at a store again and again; a layer's record, which never changes, is read once."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._sizes: dict[DiffID, int] = {}

    def take(self, images: Iterable[DockerImage]) -> Stock:
        """Return what there is, beside ``images``."""
        layers = find_layers(self._paths)
        self._sizes = {layer: self._sizes.get(layer) or self._read_size(layer) for layer in layers}
        return Stock(tuple(images), self._sizes, self._last_uses())

    def _read_size(self, layer: DiffID) -> int:
        try:
            record = read_record(self._paths.layer(layer))
        except RecordError:
            return 0  # what it costs is not known; a check tells what is wrong with it
        # Older versions kept no more than the size of the tar.
        return record.stored_bytes if record.HasField("stored_bytes") else record.size_bytes

    def _last_uses(self) -> dict[Digest, float]:
        uses = {}
        for config in find_configs(self._paths):
            with contextlib.suppress(FileNotFoundError):
                uses[config] = self._paths.config(config).lstat().st_mtime
        return uses


def note_use(paths: StorePaths, image: DockerImage) -> None:
    """Remember that an image was used now: its config's time tells. A store that is read only does not."""
    if image.config_digest is not None:
        with contextlib.suppress(OSError):
            touch(paths.config(image.config_digest))
