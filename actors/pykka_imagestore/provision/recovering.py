"""Containers of processes that have ended: adopted by the next process of their owner, or removed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.run_config import RunConfig
from pykka_imagestore.durable.containers import boot_id, find_container_ids, is_holder_alive, read_container
from pykka_imagestore.durable.locks import locked
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.errors import ContainerNotFoundError, ContainerRecordError, StoreError
from pykka_imagestore.provision.making import Site
from pykka_imagestore.provision.provisioned import ContainerRecovery, Rootfs
from pykka_imagestore.provision.removing import request_of
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.mounts import unmount
from pykka_imagestore.rootfs.place import mount_entries, open_attached
from pykka_imagestore.rootfs.refusals import OF_THE_MACHINE

logger = logger_of(__name__)


def recover_containers(site: Site, known: AbstractSet[str]) -> ContainerRecovery:
    """Adopt the whole containers of an owner that it knows, whose process has ended; remove its others.

    What is only half there, of whichever owner, is removed too, if no living process has it. One recovery at a time, of
    all processes. Safe to run again after an error.

    Args:
        known: Ids; this process has open none of these containers.

    Raises:
        StoreError, OSError: The containers cannot be listed, one cannot be taken over, or the machine has no more of
            something. No known container is removed for that.
    """
    with locked(site.paths.containers_lock):
        ids = find_container_ids(site.paths)
        adopted: list[Rootfs] = []
        lost = list(known - set(ids))
        destroyed: list[str] = []
        for container_id, container in _left(site, ids, known):
            rootfs = _adopt(site, container) if container is not None and container_id in known else None
            if rootfs is not None:
                adopted.append(rootfs)
            elif _remove(site, container_id, container):
                (lost if container_id in known else destroyed).append(container_id)
        _unmount_strays(site)
        return ContainerRecovery(tuple(adopted), tuple(sorted(lost)), tuple(destroyed))


def _left(site: Site, ids: Iterable[str], known: AbstractSet[str]) -> Iterator[tuple[str, Container | None]]:
    """Yield the containers of this owner that no living process has, and those that have no record."""
    for container_id in ids:
        try:
            container = read_container(site.paths, container_id)
        except ContainerRecordError as error:
            logger.warning("%s", error)
            continue
        if container is None or (container.owner == site.owner and not _is_had(site, container, known)):
            yield container_id, container


def _is_had(site: Site, container: Container, known: AbstractSet[str]) -> bool:
    if container.holder == site.holder.name and container.container_id in known:
        return False  # a recovery that failed later took it over, and nobody was given it
    return is_holder_alive(site.paths, container.holder)


def _adopt(site: Site, container: Container) -> Rootfs | None:
    """Have a container from now on; None if not all of it is there."""
    try:
        mounted = _find(site, container)
    except (StoreError, OSError) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            raise
        logger.warning("container %s cannot be adopted: %s", container.container_id, error)
        return None
    if mounted is None:
        return None
    rootfs = Rootfs(container, mounted, "it was made by that before", _config(site, container))
    site.holder.take_over(container)
    return rootfs


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


def _remove(site: Site, container_id: str, container: Container | None) -> bool:
    try:
        site.remover.take_out(container_id, container)
    except ContainerNotFoundError:
        return False
    except (StoreError, OSError) as error:
        logger.warning("container %s is left, and the next recovery tries again: %s", container_id, error)
        return False
    return True


def _unmount_strays(site: Site) -> None:
    """Unmount what is mounted in what waits to be deleted: who moved it there did not get to that, or could not."""
    gc = f"{os.path.realpath(site.paths.gc)}/"
    for entry in mount_entries().values():
        if entry.point.startswith(gc):
            try:
                unmount(entry.point)
            except OSError as error:
                logger.warning("%s stays mounted: %s", entry.point, error)
