"""What a store holds, as its files have it now: one view for its actors and for the command line.

Apart from the time at which an image was last used, which it writes where it may, it only reads. It needs no lock, and
works on a read-only file system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pykka_imagestore.core.digest import DiffID, is_sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.layout import require_readable
from pykka_imagestore.durable.owner import told_if_foreign
from pykka_imagestore.durable.references import References
from pykka_imagestore.errors import ImageIncompleteError, NotFoundError

if TYPE_CHECKING:
    from pykka_imagestore.core.budget import Size
    from pykka_imagestore.core.inventory import Inventory
    from pykka_imagestore.core.usage import Usage
    from pykka_imagestore.durable.container_sizes import ContainerSizes
    from pykka_imagestore.durable.inventory import InventoryTaker


class StoredView:
    """The images, layers and configs of a store.

    Images may be looked up by several threads at once; inventories, sizes and usage are for one thread.

    Args:
        references: Which images there are.

    Attributes:
        containers: What containers take, for inventories and usage: the caller has them measured.
    """

    def __init__(self, paths: StorePaths, references: References) -> None:
        self._paths = paths
        self._references = references

    @classmethod
    def open(cls, store: Path) -> StoredView:
        """Open a store for reading; nothing is made.

        Raises:
            As ``require_readable``.
        """
        paths = StorePaths(store)
        require_readable(paths)
        return cls(paths, References(paths, disk(durable=False)))

    def list(self) -> tuple[DockerImage, ...]:
        """Return all images, by name, incomplete ones too.

        Raises:
            CheckpointError: What images there are cannot be read.
        """
        return self._references.list()

    def get(self, name: ImageName) -> DockerImage:
        """Return an image all of whose layers are there; it counts as used now.

        Args:
            name: Its name, or the digest of its config.

        Raises:
            NotFoundError: There is no such image.
            ImageIncompleteError: Some of its layers are missing.
            CheckpointError: As ``list``.
        """
        image = _find(self._references, name, self._references.use)
        if image.missing:
            raise ImageIncompleteError(image.name, image.missing)
        return image

    def recall(self, name: ImageName) -> DockerImage:
        """Return an image, used now; whether its layers are there is to be looked at afterwards.

        Args:
            name: As for ``get``.

        Raises:
            NotFoundError: There is no such image.
            CheckpointError: As ``list``.
        """
        return _find(self._references, name, self._references.recall)

    def config(self, image: DockerImage) -> bytes:
        """Return an image's config as ``read_config`` does."""
        return read_config(self._paths, image)

    def inventory(self, images: Iterable[DockerImage] | None = None) -> Inventory:
        """Return what there is and what each part takes on disk.

        Args:
            images: The images, where the caller has just listed them.

        Raises:
            CheckpointError: As ``list``.
        """
        return self._inventories.take(self.list() if images is None else images)

    def weigh(self, layers: Iterable[DiffID]) -> Size:
        """Return what some layers take together; those that are not there count nothing."""
        return self._inventories.weigh(layers)

    def weigh_moved(self, waiting: Path) -> tuple[int, Size]:
        """Return how many layers a directory below gc/ has, and what they and the configs there take."""
        return self._inventories.weigh_moved(waiting)

    def usage(self, images: Iterable[DockerImage] | None = None) -> Usage:
        """Return what each image, layer and container costs, and who has leases; else as ``inventory``."""
        # Imported here: a list of images should be there at once, and needs neither.
        from pykka_imagestore.core.usage import measure  # noqa: PLC0415
        from pykka_imagestore.durable.leases import find_leases  # noqa: PLC0415

        return measure(self.inventory(images), find_leases(self._paths), self.containers.usages())

    @property
    def containers(self) -> ContainerSizes:
        """What containers take."""
        return self._inventories.containers

    @cached_property
    def _inventories(self) -> InventoryTaker:
        from pykka_imagestore.durable.inventory import InventoryTaker  # noqa: PLC0415 - as above

        return InventoryTaker(self._paths)


def _find(references: References, name: ImageName, look: Callable[[ImageName], DockerImage | None]) -> DockerImage:
    """Return the image that is stored under a name, or the first one whose config has that digest.

    Raises:
        NotFoundError: There is neither.
    """
    image = look(name)
    if image is None and is_sha256(name.stored):
        named = next((each for each in references.list() if each.config_digest == name.stored), None)
        image = None if named is None else look(ImageName.parse_stored(named.name))
    if image is None:
        raise NotFoundError(name.stored)
    return image


def read_config(paths: StorePaths, image: DockerImage) -> bytes:
    """Return an image's config, byte for byte.

    Raises:
        NotFoundError: The store does not have it.
        ForeignStoreError: The store is another user's, who does not share it.
    """
    if image.config_digest is not None:
        try:
            with told_if_foreign(paths.root):
                return read_file(paths.config(image.config_digest))
        except FileNotFoundError:
            pass
    raise NotFoundError(f"{image.name} with a config")
