"""A root file system is made: what a thread of a provisioner does of it, and what worker processes do in between.

    image     looked up; its layers' directories, and how the image wants to be run
    record    the container exists from here on, and what it needs stays; then its layers are looked for again
    fix-ups   what the stack of layers needs on top to mean what its tars say: found, or made by a worker, once
    parts     what is to be copied or linked, by workers
    mount     the root file system is there

Whatever ends it in between undoes all of it, the record last: an error, a discard, or the end of its generator.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.formats.run_config import parse_run_config
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import FillPart, Reads, StackLayer, stack_id
from pykka_imagestore.core.run_config import RunConfig
from pykka_imagestore.durable.containers import Holder, boot_id
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.layout import find_missing
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.stored_view import StoredView, read_config
from pykka_imagestore.errors import NotFoundError, RootfsError
from pykka_imagestore.provision.backends import Backends
from pykka_imagestore.provision.order import ProvisionOrder
from pykka_imagestore.provision.provisioned import Rootfs
from pykka_imagestore.provision.removing import ContainerRemover, request_of
from pykka_imagestore.provision.stack_layers import StackLayers, StackWanted
from pykka_imagestore.rootfs.backend import Backend, Mounted
from pykka_imagestore.rootfs.quota import choose_project, quota_refusal
from pykka_imagestore.rootfs.refusals import require_served
from pykka_imagestore.runtime import DiscardedError

if TYPE_CHECKING:
    from pykka_imagestore.runtime import Future

logger = logger_of(__name__)

T = TypeVar("T")

_CONFIGS = 256  # whose wishes are remembered


@dataclass(frozen=True, slots=True)
class PartsWanted:
    """What is to be copied or linked, side by side."""

    parts: tuple[FillPart, ...]


Wanted = StackWanted | PartsWanted
Steps = Generator[Wanted, None, T]
"""Each step runs in a thread; what it yields, worker processes do before the next one."""


class Site:
    """What all root file systems of a provisioner are made with. Thread-safe.

    Args:
        backends: What makes them; closed with this.
        workers: How many work side by side.
        owner: The label that the records get.
    """

    def __init__(self, paths: StorePaths, on: Disk, backends: Backends, workers: int, owner: str) -> None:
        self.paths = paths
        self.holder = Holder(paths, on)
        self.remover = ContainerRemover(paths, on, backends, self.holder.name)
        self.backends = backends
        self.workers = workers
        self.owner = owner
        self.stack_layers = StackLayers(paths)
        self._parse = lru_cache(_CONFIGS)(self._read)

    def config(self, image: DockerImage) -> RunConfig:
        """Return how an image wants to be run."""
        return RunConfig() if image.config_digest is None else self._parse(image)

    def close(self) -> None:
        """End what backends mount in, and have no containers any more: they stay. Idempotent."""
        self.backends.close()
        self.holder.release()

    def _read(self, image: DockerImage) -> RunConfig:
        return parse_run_config(read_config(self.paths, image))


def make(site: Site, view: StoredView, order: ProvisionOrder) -> Steps[Rootfs]:
    """Make a root file system, in the best way that works, or in the one that was asked for.

    Args:
        view: What looks the image up.

    Raises:
        NotFoundError: The image is not there; ImageIncompleteError if some of its layers are not.
        ContainerExistsError: The id is taken.
        RootfsError: It cannot be made, and nothing of it is left.
    """
    image = view.recall(order.name)
    while True:
        try:
            return (yield from _make_of(site, order, image))
        except (_GoneError, NotFoundError) as error:
            logger.debug("%s lacks something, or was removed: %s", image.name, error)
            found = view.get(order.name)
            if found == image and isinstance(error, NotFoundError):  # its config is not there, and it is needed
                raise
            image = found


def advance(steps: Steps[T], error: Exception | None) -> Wanted | T:
    """Take the next step, or have the steps learn that what they wanted failed; return what they want, or the end."""
    try:
        return next(steps) if error is None else steps.throw(error)
    except StopIteration as end:
        return cast("T", end.value)


def give_up(site: Site, steps: Steps[T], last: Future[Wanted | T], error: DiscardedError) -> None:
    """Undo what the steps did, of which the last one that was taken has ended."""
    outcome = last.get(timeout=0) if last.is_ready() else None
    if isinstance(outcome, Rootfs):
        site.remover.remove(outcome.container_id, outcome)
    else:
        with suppress(DiscardedError):
            steps.throw(error)


class _GoneError(Exception):
    """A removal took some of the image before it was needed here."""


def _make_of(site: Site, order: ProvisionOrder, image: DockerImage) -> Steps[Rootfs]:
    config, project = _config_of(site, order, image), _choose_project(site, order)
    reasons: list[tuple[str, str]] = []
    for backend in site.backends.for_order(order, len(set(image.layer_ids))):
        container = _container(site, order, image, backend, project)
        try:
            mounted = yield from _make_with(site, backend, container)
        except RootfsError as error:
            reasons.extend(error.reasons)
        else:
            return Rootfs(container, mounted, _reason(order, reasons), config)
    raise RootfsError(order.container_id, reasons)


def _make_with(site: Site, backend: Backend, container: Container) -> Steps[Mounted]:
    """Make it with one backend; nothing is left however that fails."""
    layers = site.stack_layers.find(container.layer_ids, backend.reads)
    if layers is not None:
        require_served(backend, request_of(site.paths, container, layers))
    site.holder.begin(container)
    mounted: Mounted | None = None
    try:
        layers = yield from _need_layers(site, container, backend.reads)
        request = request_of(site.paths, container, layers)
        require_served(backend, request)
        parts = backend.parts(request, site.workers)
        if parts:
            yield PartsWanted(parts)
        mounted = backend.mount(request)
        if parts:
            site.holder.rewrite(replace(container, is_filled=True))
    except BaseException:
        if mounted is not None:
            os.close(mounted.fd)
        _undo_quietly(site, container)
        raise
    return mounted


def _need_layers(site: Site, container: Container, reads: Reads) -> Steps[tuple[StackLayer, ...]]:
    """Return what the root file system is merged of: all of it is there, and stays."""
    if find_missing(site.paths, container.layer_ids):
        raise _GoneError
    layers = yield from site.stack_layers.need(container.layer_ids, reads)
    if layers is None:
        reason = "what its layers need on top was made, and is gone or damaged; provision it again"
        raise RootfsError(container.container_id, ((container.backend, reason),))
    return layers


def _undo_quietly(site: Site, container: Container) -> None:
    """Undo it; what cannot be undone must not hide why it has to be, and can be destroyed."""
    try:
        site.remover.take_out(container.container_id, container)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        logger.warning("%s is left of a container that could not be made: %s", container.container_id, error)


def _container(
    site: Site, order: ProvisionOrder, image: DockerImage, backend: Backend, project: int | None
) -> Container:
    return Container(
        container_id=order.container_id,
        image=image.name,
        layer_ids=image.layer_ids,
        config_digest=image.config_digest,
        backend=backend.name,
        owner=site.owner,
        holder=site.holder.name,
        created=int(time.time()),
        boot=boot_id(),
        stack=stack_id(image.layer_ids, backend.reads),
        read_only=order.read_only,
        attached=order.attach,
        target=order.target,
        upper_bytes=order.upper_bytes,
        project=project,
        for_runtime=order.for_runtime,
    )


def _config_of(site: Site, order: ProvisionOrder, image: DockerImage) -> RunConfig:
    try:
        return site.config(image)
    except FormatError as error:
        raise RootfsError(order.container_id, (("the image's config", str(error)),)) from error


def _choose_project(site: Site, order: ProvisionOrder) -> int | None:
    """Return the project whose quota is to bound what is written; None if nothing is to."""
    if order.upper_bytes is None:
        return None
    refusal = quota_refusal(str(site.paths.root))
    if refusal is not None:
        raise RootfsError(order.container_id, (("upper_bytes", refusal),))
    return choose_project(str(site.paths.root))


def _reason(order: ProvisionOrder, reasons: Sequence[tuple[str, str]]) -> str:
    if order.backend is not None:
        return "it was asked for"
    if not reasons:
        return "nothing is faster, and it works here"
    return f"what is faster does not work here. {'; '.join(f'{name}: {why}' for name, why in reasons)}"
