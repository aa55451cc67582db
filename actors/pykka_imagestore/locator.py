"""Where the layers of images lie, for those who list the same images again and again."""

from __future__ import annotations

from collections.abc import Sequence

from pykka_imagestore.core.image import DockerImage, ImageInfo
from pykka_imagestore.core.paths import StorePaths

MAX_KNOWN = 10_000  # images; with five layers of its own, one takes some 2 KiB


class Locator:
    """Locates images, and remembers those of the last list: their paths take three times as long as all else in it.

    Thread-safe: what is remembered is replaced as a whole, and the same whoever makes it.

    Args:
        most: How many images are remembered; of longer lists, none are.
    """

    def __init__(self, paths: StorePaths, most: int = MAX_KNOWN) -> None:
        self._paths = paths
        self._most = most
        self._known: dict[str, tuple[DockerImage, ImageInfo]] = {}

    def locate_all(self, images: Sequence[DockerImage]) -> tuple[ImageInfo, ...]:
        """Return images with where their layers lie, in the same order; no two have one name."""
        before = self._known
        new = [image for image in images if before.get(image.name, (None,))[0] is not image]
        located = {image.name: (image, info) for image, info in zip(new, self._paths.locate_all(new), strict=True)}
        known = {image.name: located.get(image.name) or before[image.name] for image in images}
        if len(known) <= self._most:
            self._known = known
        return tuple(info for _, info in known.values())
