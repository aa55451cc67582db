"""Containers of processes that have ended: adopted by the next process of their owner, or removed."""

from __future__ import annotations

import os
from collections.abc import Collection
from enum import Enum, auto

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import ROOTFS
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
from pykka_imagestore.making import Site, remove_left, request_of
from pykka_imagestore.provisioned import ContainerRecovery, Rootfs
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.place import mount_entries, open_attached, unmount_listed

logger = logger_of(__name__)


class _End(Enum):
    """What becomes of a container that is not adopted."""

    ANOTHERS = auto()  # a living process has it, or another owner
    KEPT = auto()  # it could be neither adopted nor removed now
    REMOVED = auto()


def recover_containers(site: Site, known: Collection[str]) -> ContainerRecovery:
    """Adopt the whole containers of an owner that it knows, whose process has ended; remove its others.

    What is only half there, of whichever owner, is removed too, if no living process has it. One recovery at a time, of
    all processes.
    """
    with containers_locked(site.paths):
        ids = find_container_ids(site.paths)
        adopted: list[Rootfs] = []
        ended: dict[_End, list[str]] = {end: [] for end in _End}
        for container_id in ids:
            outcome = _settle(site, container_id, is_known=container_id in known)
            if isinstance(outcome, Rootfs):
                adopted.append(outcome)
            else:
                ended[outcome].append(container_id)
        _unmount_strays(site)
    removed, is_known = ended[_End.REMOVED], frozenset(known).__contains__
    lost = {*known}.difference(ids).union(filter(is_known, removed))
    destroyed = tuple(container_id for container_id in removed if container_id not in known)
    return ContainerRecovery(tuple(adopted), tuple(sorted(lost)), destroyed, tuple(filter(is_known, ended[_End.KEPT])))


def _settle(site: Site, container_id: str, *, is_known: bool) -> Rootfs | _End:
    try:
        container = read_container(site.paths, container_id)
        if container is not None:
            if container.owner != site.owner or is_holder_alive(site.paths, container.holder):
                return _End.ANOTHERS
            if container.backend not in site.backends:
                reason = "this version has no such backend; recover or destroy it with the one that made it"
                raise RootfsError(container_id, ((container.backend, reason),))
        rootfs = _adopt(site, container) if container is not None and is_known else None
        if rootfs is None:
            remove_left(site, container_id)
    except (ContainerNotFoundError, ContainerHeldError):  # a living process destroyed it, and may have made it anew
        return _End.ANOTHERS
    except (StoreError, OSError) as error:
        logger.warning("container %s is left, and the next recovery tries again: %s", container_id, error)
        return _End.KEPT
    return _End.REMOVED if rootfs is None else rootfs


def _adopt(site: Site, container: Container) -> Rootfs | None:
    """Have a container from now on; None if not all of it is there."""
    try:
        mounted = _find(site, container)
    except FileNotFoundError as error:
        logger.warning("container %s is not whole: %s", container.container_id, error)
        return None
    if mounted is None:
        return None
    config, reason = _config(site, container), "it was made by that before"
    rootfs = Rootfs(container, mounted.fd, mounted.path, reason, config, mounted.namespace_pid)
    site.holder.take_over(container)
    return rootfs


def _find(site: Site, container: Container) -> Mounted | None:
    """Open what is mounted of a container; mount it again where all of its files are there."""
    if container.boot != boot_id() or not container.attached:
        return None
    request = request_of(site.paths, container)
    for backend in site.backends.for_container(container.backend):
        if backend.is_attached(request):
            path = container.target or str(site.paths.container(container.container_id) / ROOTFS)
            return Mounted(open_attached(path), path)
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
    gc = f"{os.path.realpath(site.paths.gc)}/"
    for entry in reversed(mount_entries().values()):  # what is mounted on top of something first
        if entry.point.startswith(gc):
            try:
                unmount_listed(entry)
            except FileNotFoundError:
                pass  # it came off with another one
            except OSError as error:
                logger.warning("%s stays mounted: %s", entry.point, error)
