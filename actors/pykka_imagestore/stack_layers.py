"""The directories that a root file system is merged of."""

from __future__ import annotations

from collections.abc import Sequence

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import StackLayer
from pykka_imagestore.durable.identity import Identity, identify
from pykka_imagestore.durable.layer_record import read_record
from pykka_imagestore.errors import RecordError


class StackLayers:
    """Layers as directories to be merged; the record of one that has not changed is read once. Thread-safe."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._known: dict[DiffID, tuple[Identity, StackLayer]] = {}

    def find(self, layer_ids: Sequence[DiffID]) -> tuple[StackLayer, ...] | None:
        """Return the layers of an image, the lowest first; None if one is not there.

        Raises:
            RecordError: The record of one cannot be read.
        """
        found = []
        for diff_id in layer_ids:
            layer = self._find(diff_id)
            if layer is None:
                return None
            found.append(layer)
        return tuple(found)

    def _find(self, diff_id: DiffID) -> StackLayer | None:
        directory = self._paths.layer(diff_id)
        identity = identify(directory)
        if identity is None:
            return None
        known = self._known.get(diff_id)
        if known is None or known[0] != identity:
            try:
                record = read_record(directory)
            except RecordError:
                if identify(directory) is None:  # it was removed meanwhile
                    return None
                raise
            layer = StackLayer(str(self._paths.rootfs(diff_id)), WhiteoutFormat(record.whiteouts))
            known = self._known[diff_id] = identity, layer
        return known[1]
