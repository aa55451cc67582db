"""The images of a store, for the verbs that only read: no actor is started, nothing is made or changed.

That is quick, and serves a store on a read-only file system too. Readers need no lock.
"""

from __future__ import annotations

from pathlib import Path

from pykka_imagestore.core.image import ImageInfo
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.plan_prune import Usage, measure
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.inventory import InventoryTaker
from pykka_imagestore.durable.layout import require_readable
from pykka_imagestore.durable.leases import find_leases
from pykka_imagestore.durable.owner import told_if_foreign
from pykka_imagestore.durable.references import References
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
    return StorePaths(store).locate_all(_references(store).list())


def read_image(store: Path, name: str) -> ImageInfo:
    """Return one image.

    Raises:
        InvalidNameError: ``name`` is no image name.
        NoStoreError: ``store`` is no store.
        NotFoundError: The image is not there; ImageIncompleteError if some of its layers are not.
        CheckpointError: What images there are cannot be read.
    """
    wanted = ImageName.parse(name)
    found = _references(store).use(wanted)
    if found is None:
        raise NotFoundError(wanted.stored)
    if found.missing:
        raise ImageIncompleteError(found.name, found.missing)
    return StorePaths(store).locate(found)


def read_usage(store: Path) -> Usage:
    """Return what each image and layer costs.

    Raises:
        NoStoreError: ``store`` is no store.
        CheckpointError: What images there are cannot be read.
    """
    images = _references(store).list()
    paths = StorePaths(store)
    return measure(InventoryTaker(paths).take(images), find_leases(paths))


def read_config(store: Path, image: ImageInfo) -> bytes:
    """Return an image's config, byte for byte.

    Raises:
        NotFoundError: The store does not have it.
    """
    if image.config_digest is None:
        raise NotFoundError(f"{image.name} with a config")
    with told_if_foreign(store):
        return read_file(StorePaths(store).config(image.config_digest))


def require_store(store: Path) -> None:
    """Refuse a directory where there is no store. Whether one that is there can be used, whoever opens it finds out.

    Raises:
        NoStoreError: There is none.
        ForeignStoreError: It is another user's, who does not share it.
    """
    paths = StorePaths(store)
    with told_if_foreign(store):
        if not any(map(_is_there, (paths.marker, paths.layers, paths.stored_images, paths.journal))):
            raise NoStoreError(str(store))


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _references(store: Path) -> References:
    require_store(store)
    paths = StorePaths(store)
    require_readable(paths)
    return References(paths, disk(durable=False))
