"""Containers of processes that have ended: adopted by the next process of their owner, or removed."""

from __future__ import annotations

from enum import Enum, auto

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.run_config import RunConfig
from pykka_imagestore.durable.containers import (
    boot_id,
    containers_locked,
    find_container_ids,
    is_holder_alive,
    read_container,
)
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.errors import ContainerHeldError, ContainerNotFoundError, RootfsError, StoreError
from pykka_imagestore.provision.making import Site
from pykka_imagestore.provision.provisioned import ContainerRecovery, Rootfs
from pykka_imagestore.provision.removing import request_of
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.place import mounts_below, open_attached, unmount_listed
from pykka_imagestore.rootfs.refusals import OF_THE_MACHINE

logger = logger_of(__name__)


class _End(Enum):
    """What becomes of a container that is not adopted."""

    ANOTHERS = auto()  # a living process has it, or another owner
    KEPT = auto()  # it could be neither adopted nor removed now
    REMOVED = auto()


def recover_containers(site: Site, known: frozenset[str]) -> ContainerRecovery:
    """Adopt the whole containers of an owner that it knows, whose process has ended; remove its others.

    What is only half there, of whichever owner, is removed too, if no living process has it. One recovery at a time, of
    all processes. Safe to run again after an error.

    Args:
        known: Ids; this process has open none of these containers.

    Raises:
        StoreError, OSError: The containers cannot be listed, one cannot be taken over, or the machine has no more of
            something. No known container is removed for that.
    """
    with containers_locked(site.paths):
        ids = find_container_ids(site.paths)
        adopted: list[Rootfs] = []
        ended: dict[_End, list[str]] = {end: [] for end in _End}
        for container_id in ids:
            outcome = _settle(site, container_id, known)
            if isinstance(outcome, Rootfs):
                adopted.append(outcome)
            else:
                ended[outcome].append(container_id)
        _unmount_strays(site)
    removed = ended[_End.REMOVED]
    lost = (known - set(ids)) | known.intersection(removed)
    destroyed = (container_id for container_id in removed if container_id not in known)
    left = filter(known.__contains__, ended[_End.KEPT])
    return ContainerRecovery(tuple(adopted), tuple(sorted(lost)), tuple(destroyed), tuple(left))


def _settle(site: Site, container_id: str, known: frozenset[str]) -> Rootfs | _End:
    try:
        container = read_container(site.paths, container_id)
        if container is not None and (container.owner != site.owner or _is_had(site, container, known)):
            return _End.ANOTHERS
        if container is not None and container.backend not in site.backends:
            reason = "this version has no such backend; recover or destroy it with the one that made it"
            raise RootfsError(container_id, ((container.backend, reason),))
        rootfs = _adopt(site, container) if container is not None and container_id in known else None
        if rootfs is None:
            site.remover.remove_left(container_id)
    except (ContainerNotFoundError, ContainerHeldError):  # a living process destroyed it, and may have made it anew
        return _End.ANOTHERS
    except (StoreError, OSError) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE and container_id in known:
            raise
        logger.warning("container %s is left, and the next recovery tries again: %s", container_id, error)
        return _End.KEPT
    if rootfs is None:
        return _End.REMOVED
    site.holder.take_over(rootfs.container)
    return rootfs


def _is_had(site: Site, container: Container, known: frozenset[str]) -> bool:
    if container.holder == site.holder.name and container.container_id in known:
        return False  # a recovery that failed later took it over, and nobody was given it
    return is_holder_alive(site.paths, container.holder)


def _adopt(site: Site, container: Container) -> Rootfs | None:
    """Open what there is of a container, to have it from now on; None if not all of it is there."""
    try:
        mounted = _find(site, container)
    except FileNotFoundError as error:
        logger.warning("container %s is not whole: %s", container.container_id, error)
        return None
    if mounted is None:
        return None
    return Rootfs(container, mounted, "it was made by that before", _config(site, container))


def _find(site: Site, container: Container) -> Mounted | None:
    """Open what is mounted of a container; mount it again where all of its files are there."""
    if container.boot != boot_id() or not container.attached:
        return None
    request = request_of(site.paths, container)
    for backend in site.backends.for_container(container.backend):
        if backend.is_attached(request):
            return open_attached(request)
        if container.is_filled:
            return backend.mount(request)
    return None


def _config(site: Site, container: Container) -> RunConfig:
    try:
        return site.config(DockerImage(container.image, container.layer_ids, container.config_digest))
    except (StoreError, FormatError) as error:
        logger.warning("how container %s is to be run cannot be read: %s", container.container_id, error)
        return RunConfig()


def _unmount_strays(site: Site) -> None:
    """Unmount what is mounted in what waits to be deleted: who moved it there did not get to that, or could not."""
    for entry in mounts_below(str(site.paths.gc)):
        try:
            unmount_listed(entry)
        except FileNotFoundError:
            pass  # it came off with another one
        except OSError as error:
            logger.warning("%s stays mounted: %s", entry.point, error)
