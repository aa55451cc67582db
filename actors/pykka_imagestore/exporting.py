"""What the tar of an image or of a container is written of: the directories that its tree is merged of."""

from __future__ import annotations

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import ROOTFS, UPPER, StorePaths
from pykka_imagestore.core.rootfs import Reads, StackLayer, stack_id
from pykka_imagestore.durable.containers import read_container
from pykka_imagestore.errors import ContainerNotFoundError
from pykka_imagestore.stack_layers import StackWanted

_WRITES = {Reads.TRUSTED: WhiteoutFormat.OVERLAY_TRUSTED, Reads.USER: WhiteoutFormat.OVERLAY_USER}
_FILLED = frozenset({"copy", "link"})  # what lies in the container's directory is all there is


def find_container(paths: StorePaths, container_id: str) -> Container:
    """Return what is recorded of a container.

    Raises:
        ContainerNotFoundError: It is not there.
        ContainerRecordError: Its record cannot be read.
    """
    container = read_container(paths, container_id)
    if container is None:
        raise ContainerNotFoundError(container_id, str(paths.root))
    return container


def filled_layers(paths: StorePaths, container: Container) -> tuple[StackLayer, ...] | None:
    """Return where all of a container's files lie; None if that is in the layers of its image, and in its own."""
    if container.backend not in _FILLED:
        return None
    return (StackLayer(str(paths.container(container.container_id) / ROOTFS), WhiteoutFormat.NONE),)


def stack_of(container: Container) -> StackWanted:
    """Return which stack a container's root file system is merged of."""
    reads = next((each for each in Reads if stack_id(container.layer_ids, each) == container.stack), Reads.ANY)
    return StackWanted(container.layer_ids, reads)


def upper_layer(paths: StorePaths, container: Container, reads: Reads) -> tuple[StackLayer, ...]:
    """Return what was written to a container that is mounted; nothing if nobody can write to it."""
    if container.read_only:
        return ()
    return (StackLayer(str(paths.container(container.container_id) / UPPER), _WRITES[reads]),)
