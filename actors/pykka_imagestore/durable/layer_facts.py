"""What callers want to know of a stored layer, from its record, which is read once."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID, directory_name
from pykka_imagestore.core.image import DockerImage, ImageInfo
from pykka_imagestore.core.paths import RECORD, StorePaths
from pykka_imagestore.errors import RecordError

_REMEMBERED = 10_000
_FORMS = ("none", "trusted", "user", "files")  # by number, as in proto/layer.proto


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a record says.

    Attributes:
        record: Which one it is: a layer that is put anew has another.
    """

    record: tuple[int, ...]
    whiteouts: str | None
    has_lower_links: bool


class LayerFacts:
    """Looks up layers, and remembers what their records say. Thread-safe."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._layers = str(paths.layers)
        self._known: OrderedDict[DiffID, _Facts] = OrderedDict()  # each use of it is atomic in Python

    def locate(self, image: DockerImage) -> ImageInfo:
        """Return an image with where its layers lie, and how each keeps deletions."""
        return self.locate_all((image,))[0]

    def locate_all(self, images: Iterable[DockerImage]) -> tuple[ImageInfo, ...]:
        """Return several as ``locate`` does. For many, ``StorePaths.locate_all`` reads no record."""
        return self._paths.locate_all(images, self.whiteouts)

    def whiteouts(self, layer: DiffID) -> str | None:
        """Return how a layer keeps deletions, see ``Layer``; None if that cannot be read."""
        facts = self._look_up(layer)
        return None if facts is None else facts.whiteouts

    def have_lower_links(self, layers: Iterable[DiffID]) -> bool:
        """Tell whether any of some layers has hard links to files of lower layers."""
        return any(facts is not None and facts.has_lower_links for facts in map(self._look_up, layers))

    def _look_up(self, layer: DiffID) -> _Facts | None:
        try:
            status = os.lstat(f"{self._layers}/{directory_name(layer)}/{RECORD}")
        except OSError:
            return None
        record, known = (status.st_dev, status.st_ino, status.st_ctime_ns), self._known.get(layer)
        if known is None or known.record != record:
            known = self._known[layer] = self._read(layer, record)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _read(self, layer: DiffID, record: tuple[int, ...]) -> _Facts:
        from pykka_imagestore.durable.layer_record import read_record  # noqa: PLC0415 - a list of images needs none

        try:
            read = read_record(self._paths.layer(layer))
        except RecordError:
            return _Facts(record, None, has_lower_links=False)  # a check tells what is wrong with it
        return _Facts(record, _FORMS[read.whiteouts], bool(read.lower_links))
