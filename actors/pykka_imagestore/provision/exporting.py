"""Of which directories the tar of an image or of a container is written: steps, as those of ``making``."""

from __future__ import annotations

from collections.abc import Sequence

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import ROOTFS, UPPER
from pykka_imagestore.core.rootfs import DEVICES_FOR, Reads, StackLayer, stack_id
from pykka_imagestore.durable.containers import read_container
from pykka_imagestore.errors import ContainerNotFoundError, StateError
from pykka_imagestore.provision.making import Site, Steps


def find_container_layers(site: Site, container_id: str) -> Steps[tuple[StackLayer, ...]]:
    """Return what a container's tree is merged of, the lowest first: all of it stays until it is destroyed.

    Raises:
        ContainerNotFoundError: It is not there.
        ContainerRecordError: Its record cannot be read.
        StateError: As ``find_layers``.
    """
    container = read_container(site.paths, container_id)
    if container is None:
        raise ContainerNotFoundError(container_id, str(site.paths.root))
    directory = site.paths.container(container_id)
    if container.has_own_files:
        return (StackLayer(str(directory / ROOTFS), WhiteoutFormat.NONE),)
    reads = next((each for each in Reads if stack_id(container.layer_ids, each) == container.stack), Reads.ANY)
    layers = yield from find_layers(site, container.layer_ids, reads)
    if container.read_only:
        return layers
    return (*layers, StackLayer(str(directory / UPPER), DEVICES_FOR[reads]))


def find_layers(site: Site, layer_ids: Sequence[DiffID], reads: Reads) -> Steps[tuple[StackLayer, ...]]:
    """Return what a stack of layers is merged of, the lowest first; somebody needs the layers.

    Raises:
        StateError: What it needs on top was made, and is not there.
    """
    layers = yield from site.stack_layers.need(layer_ids, reads)
    if layers is None:
        raise StateError("what the layers need on top was made, and is gone or damaged; try it again")
    return layers
