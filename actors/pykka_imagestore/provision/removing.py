"""Containers are unmounted, and taken out of the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import RootfsRequest, StackLayer
from pykka_imagestore.durable.containers import (
    RemovedContainers,
    containers_locked,
    is_holder_alive,
    read_container,
)
from pykka_imagestore.durable.disk import Disk, disk
from pykka_imagestore.durable.layout import make_store
from pykka_imagestore.durable.locks import locked
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.errors import (
    ContainerHeldError,
    ContainerNotFoundError,
    ContainerRecordError,
    NotRemovedError,
    StateError,
)
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.provision.backends import Backends
from pykka_imagestore.rootfs.mounts import unmount_open

if TYPE_CHECKING:
    from pykka_imagestore.provision.provisioned import Rootfs

logger = logger_of(__name__)


class ContainerRemover:
    """Removes containers of a store. Thread-safe.

    Args:
        backends: What made them.
        holder: The process that removes, as records name it; None if it has no containers.

    Attributes:
        removed: What was taken out, and is to be deleted.
    """

    def __init__(self, paths: StorePaths, on: Disk, backends: Backends, holder: str | None = None) -> None:
        self.removed = RemovedContainers(paths, on)
        self._paths = paths
        self._backends = backends
        self._holder = holder

    @classmethod
    @contextmanager
    def on(cls, directory: Path) -> Iterator[ContainerRemover]:
        """Lend one for a store, where this process has no containers."""
        paths, on = StorePaths(directory), disk(durable=True)
        make_store(paths, on)
        with closing(Backends.of_this_machine()) as backends:
            yield cls(paths, on, backends)

    def remove(self, container_id: str, rootfs: Rootfs | None = None) -> None:
        """Unmount a container's root file system, and take all of it out of the store, as ``RemovedContainers`` does.

        Args:
            rootfs: What this process has open of it; None for nothing.

        Raises:
            ContainerNotFoundError: It is not there.
            ContainerHeldError: It belongs to another provisioner, whose process is alive.
            RootfsError, OSError: It could not be unmounted, or the disk failed; the rest of it stays.
        """
        if rootfs is not None:
            _unmount_moved(rootfs)
            rootfs.close()
            self.take_out(container_id, rootfs.container)
            return
        with containers_locked(self._paths):
            self.remove_left(container_id)

    def remove_left(self, container_id: str) -> None:
        """Remove a container of a process that has ended. Who calls this has the lock on containers.

        Raises:
            ContainerNotFoundError, ContainerHeldError, RootfsError, OSError: As ``remove``.
        """
        container = self._read(container_id)
        if container is None:
            if not os.path.lexists(self._paths.container(container_id)):
                raise ContainerNotFoundError(container_id, str(self._paths.root))
            with locked(self._paths.leases_lock):  # without it, a process may make one of that id until it is taken out
                container = self._read(container_id)
                if container is None:
                    self.take_out(container_id, None)
                    return
        if self._is_held(container):
            raise ContainerHeldError(container_id, str(self._paths.root))
        self.take_out(container_id, container)

    def take_out(self, container_id: str, container: Container | None) -> None:
        """Do the same with a container that no other process has.

        Args:
            container: Its record; None if it cannot be read.

        Raises:
            ContainerNotFoundError: It is not there, or not any more.
            RootfsError, OSError: It could not be unmounted, or the disk failed; the rest of it stays.
        """
        if container is None:
            request = RootfsRequest((), str(self._paths.container(container_id)))
        else:
            request = request_of(self._paths, container)
        for backend in self._backends.for_container(None if container is None else container.backend):
            backend.unmount(request)
        if request.project is not None:
            from pykka_imagestore.rootfs.quota import lift_bound  # noqa: PLC0415 - few containers have a bound

            lift_bound(str(self._paths.root), request.project)
        self.removed.take(container_id)

    def delete_removed(self) -> None:
        """Delete the files of what was taken out so far, in this thread."""
        waiting = self.removed.give()
        if waiting is not None:
            try:
                remove_tree(str(waiting.path))
            except NotRemovedError as error:
                logger.warning("%s is left, and the next store here tries again: %s", waiting.path, error)
            waiting.release()

    def _read(self, container_id: str) -> Container | None:
        try:
            return read_container(self._paths, container_id)
        except ContainerRecordError:
            return None

    def _is_held(self, container: Container) -> bool:
        return container.holder != self._holder and is_holder_alive(self._paths, container.holder)


def _unmount_moved(rootfs: Rootfs) -> None:
    """Unmount what this process has open, wherever its target was moved: a layer that is shown looks like any other."""
    if rootfs.container.target is None:
        return
    try:
        root = os.dup(rootfs.fd)
    except (StateError, OSError):  # somebody closed it
        return
    try:
        if rootfs.fd >= 0:  # else it was closed before it was duplicated, and the number may be another file's
            unmount_open(root)
    except (StateError, OSError):  # it is mounted nowhere, or in another namespace
        pass
    finally:
        os.close(root)


def request_of(paths: StorePaths, container: Container, layers: tuple[StackLayer, ...] = ()) -> RootfsRequest:
    """Return what is asked of a backend for a container; a root file system is unmounted without its layers."""
    return RootfsRequest(
        layers=layers,
        directory=str(paths.container(container.container_id)),
        read_only=container.read_only,
        attach=container.attached,
        target=container.target,
        for_runtime=container.for_runtime,
        upper_bytes=container.upper_bytes,
        project=container.project,
    )
