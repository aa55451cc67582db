"""A root file system is made: what a thread of a provisioner does of it, and what worker processes do in between.

    image     looked up; its layers' directories, and how the image wants to be run
    record    the container exists from here on, and what it needs stays; then its layers are looked for again
    fix-ups   what the stack of layers needs on top to mean what its tars say: found, or made by a worker, once
    parts     what is to be copied or linked, by workers
    mount     the root file system is there

Whatever ends it in between undoes all of it, the record last: an error, a discard, or the end of its generator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.digest import Digest
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.formats.run_config import parse_run_config
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.core.run_config import RunConfig
from pykka_imagestore.durable.containers import Holder, RemovedContainers, boot_id
from pykka_imagestore.durable.layout import find_missing
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.stored_view import StoredView, read_config
from pykka_imagestore.errors import NotFoundError, RootfsError
from pykka_imagestore.provision_order import ProvisionOrder
from pykka_imagestore.provisioned import Rootfs
from pykka_imagestore.rootfs.backend import Backend, Mounted
from pykka_imagestore.stack_layers import StackLayers

logger = logger_of(__name__)

T = TypeVar("T")

_CONFIGS = 256  # whose wishes are remembered


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker process is to do.

    Attributes:
        function: As for ``WorkerPool.run``.
        argument: Its argument.
        key: All that want work of this key at the same time share it; None for nobody.
    """

    function: Callable[[Any], Any]
    argument: object
    key: str | None = None


Steps = Generator[Sequence[Work], None, T]
"""Each step runs in a thread; what it yields, worker processes do before the next one."""


class Site:
    """What all root file systems of a provisioner are made with. Thread-safe.

    Args:
        view: What looks images up.
        backends: All there are, by name.
        workers: How many work side by side.
        owner: The label that the records get.
    """

    def __init__(
        self,
        paths: StorePaths,
        view: StoredView,
        holder: Holder,
        removed: RemovedContainers,
        backends: Mapping[str, Backend],
        workers: int,
        owner: str,
    ) -> None:
        self.paths = paths
        self.view = view
        self.holder = holder
        self.removed = removed
        self.backends = backends
        self.workers = workers
        self.owner = owner
        self.stack_layers = StackLayers(paths)
        self._parse = lru_cache(_CONFIGS)(self._read)

    def config(self, image: DockerImage) -> RunConfig:
        """Return how an image wants to be run."""
        return RunConfig() if image.config_digest is None else self._parse(image.config_digest)

    def undo(self, container: Container) -> None:
        """Unmount what is there of a container, and take it out of the store.

        Raises:
            ContainerNotFoundError: It is not there, or not any more.
            RootfsError, OSError: It could not be unmounted, or the disk failed; the rest of it stays.
        """
        backend = self.backends.get(container.backend)
        if backend is not None:
            backend.unmount(request_of(self.paths, container))
        self.removed.take(container.container_id)

    def _read(self, config_digest: Digest) -> RunConfig:
        return parse_run_config(read_config(self.paths, DockerImage("", (), config_digest)))


def make(site: Site, order: ProvisionOrder) -> Steps[Rootfs]:
    """Make a root file system, in the best way that works, or in the one that was asked for.

    Raises:
        NotFoundError: The image is not there; ImageIncompleteError if some of its layers are not.
        ContainerExistsError: The id is taken.
        RootfsError: It cannot be made, and nothing of it is left.
    """
    while True:
        image = site.view.get(order.name)
        try:
            return (yield from _make_of(site, order, image))
        except _GoneError:
            logger.debug("%s was removed while %s was provisioned", image.name, order.container_id)


def request_of(paths: StorePaths, container: Container) -> RootfsRequest:
    """Return what was asked of a backend for a container, but for its layers."""
    return RootfsRequest(
        (),
        str(paths.container(container.container_id)),
        container.read_only,
        container.attached,
        container.target,
        container.upper_bytes,
        container.project,
    )


class _GoneError(Exception):
    """A removal took some of the image before it was needed here."""


def _make_of(site: Site, order: ProvisionOrder, image: DockerImage) -> Steps[Rootfs]:
    config = _config_of(site, order, image)
    layers = site.stack_layers.find(image.layer_ids)
    if layers is None:
        raise _GoneError
    reasons: list[tuple[str, str]] = []
    for backend in _candidates(site, order, len(layers)):
        container = _container(site, order, image, backend.name)
        request = replace(request_of(site.paths, container), layers=layers)
        refusal = backend.refusal(request)
        if refusal is None:
            try:
                mounted = yield from _make_with(site, backend, container, request)
            except RootfsError as error:
                reasons.extend(error.reasons)
                continue
            reason = _reason(order, backend.name, reasons)
            return Rootfs(
                order.container_id, mounted.fd, mounted.path, backend.name, reason, config, mounted.namespace_pid
            )
        reasons.append((backend.name, refusal))
    raise RootfsError(order.container_id, reasons)


def _make_with(site: Site, backend: Backend, container: Container, request: RootfsRequest) -> Steps[Mounted]:
    """Make it with one backend; nothing is left however that fails."""
    site.holder.begin(container)
    try:
        if find_missing(site.paths, container.layer_ids):
            raise _GoneError
        parts = backend.parts(request, site.workers)
        if parts:
            yield [Work(_fill, part) for part in parts]
        mounted = backend.mount(request)
        return mounted
    except BaseException:
        _undo_quietly(site, container)
        raise


def _fill(part: object) -> None:
    raise NotImplementedError


def _undo_quietly(site: Site, container: Container) -> None:
    """Undo it; what cannot be undone must not hide why it has to be, and can be destroyed."""
    try:
        site.undo(container)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        logger.warning("%s is left of a container that could not be made: %s", container.container_id, error)


def _container(site: Site, order: ProvisionOrder, image: DockerImage, backend: str) -> Container:
    return Container(
        order.container_id,
        image.name,
        image.layer_ids,
        image.config_digest,
        backend,
        site.owner,
        site.holder.name,
        int(time.time()),
        boot_id(),
        read_only=order.read_only,
        attached=order.attach,
        target=order.target,
        upper_bytes=order.upper_bytes,
    )


def _config_of(site: Site, order: ProvisionOrder, image: DockerImage) -> RunConfig:
    try:
        return site.config(image)
    except NotFoundError as error:
        raise _GoneError from error
    except FormatError as error:
        raise RootfsError(order.container_id, (("the image's config", str(error)),)) from error


def _candidates(site: Site, order: ProvisionOrder, layers: int) -> Sequence[Backend]:
    """Return what may make it, the best first."""
    if order.backend is not None:
        return (site.backends[order.backend],)
    names = ["overlay", "copy"]
    if order.read_only:
        names = ["bind", "overlay", "link", "copy"] if layers == 1 else ["overlay", "link", "copy"]
    return [site.backends[name] for name in names if name in site.backends]


def _reason(order: ProvisionOrder, backend: str, reasons: Sequence[tuple[str, str]]) -> str:
    if order.backend is not None:
        return "it was asked for"
    if not reasons:
        return "nothing is faster, and it works here"
    return f"what is faster does not work here. {'; '.join(f'{name}: {why}' for name, why in reasons)}"
