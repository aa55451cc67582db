"""The images of a store, for the verbs that only read: no actor is started, nothing is made or changed.

That is quick, and serves a store on a read-only file system too. The checkpoint is always whole, so no lock is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pykka_imagestore.core.image import DockerImage, ImageInfo, Layer
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.checkpoint import read_checkpoint
from pykka_imagestore.durable.layout import find_missing
from pykka_imagestore.errors import ImageIncompleteError, NotFoundError, StoreError


class NoStoreError(StoreError):
    """There is no store where one was looked for.

    Attributes:
        directory: Where that was.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.directory = directory

    def __str__(self) -> str:
        return f"there is no image store at {self.directory}; name another with --store, or put an image first"


def read_images(store: Path) -> tuple[ImageInfo, ...]:
    """Return all images, by name, incomplete ones too.

    Raises:
        NoStoreError: ``store`` is no store.
        CheckpointError: What images there are cannot be read.
    """
    return _look_at(store, sorted(_read(store), key=lambda image: image.name))


def read_image(store: Path, name: str) -> ImageInfo:
    """Return one image.

    Raises:
        InvalidNameError: ``name`` is no image name.
        NoStoreError: ``store`` is no store.
        NotFoundError: The image is not there; ImageIncompleteError if some of its layers are not.
        CheckpointError: What images there are cannot be read.
    """
    wanted = ImageName.parse(name)
    found = _look_at(store, [image for image in _read(store) if ImageName.parse(image.name).key == wanted.key])
    if not found:
        raise NotFoundError(wanted.stored)
    if found[0].missing:
        raise ImageIncompleteError(found[0].name, found[0].missing)
    return found[0]


def read_config(store: Path, image: ImageInfo) -> bytes:
    """Return an image's config, byte for byte.

    Raises:
        NotFoundError: The store does not have it.
    """
    if image.config_digest is None:
        raise NotFoundError(f"{image.name} with a config")
    return StorePaths(store).config(image.config_digest).read_bytes()


def require_store(store: Path) -> None:
    """Refuse a directory that is no store.

    Raises:
        NoStoreError: It is none.
    """
    paths = StorePaths(store)
    if not (paths.layers.is_dir() or paths.stored_images.exists()):
        raise NoStoreError(str(store))


def _read(store: Path) -> list[DockerImage]:
    require_store(store)
    return read_checkpoint(StorePaths(store).stored_images)


def _look_at(store: Path, images: Sequence[DockerImage]) -> tuple[ImageInfo, ...]:
    """Add to images where their layers are, and which are not there."""
    paths = StorePaths(store)
    absent = find_missing(paths, [layer for image in images for layer in image.layer_ids])
    return tuple(
        ImageInfo(
            image.name,
            tuple(Layer(diff_id, paths.rootfs(diff_id)) for diff_id in image.layer_ids),
            image.config_digest,
            tuple(diff_id for diff_id in image.layer_ids if diff_id in absent),
        )
        for image in images
    )
