"""Which layers make which image, remembered across restarts.

Handle: ReferenceStore. Actor: ReferenceStoreActor.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/metadata_manager.hpp.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pykka

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.checkpoint import read_checkpoint, write_checkpoint
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.layout import find_missing, make_store
from pykka_imagestore.errors import ImageIncompleteError, NotFoundError, StoreError
from pykka_imagestore.runtime import Actor, Future, Promise, WorkerPool, dispatch, undiscardable

logger = logging.getLogger(__name__)

Images = dict[str, DockerImage]


class ReferenceStore:
    """Images by name. Knows of layers only whether they are there.

    Methods return at once; results, and errors, arrive through the future. Thread-safe. Names are taken in any
    spelling: ``ubuntu`` and ``docker.io/library/ubuntu:latest`` are one image. ``close()``, or leaving the ``with``
    block, stops the actor.
    """

    def __init__(self, actor: pykka.ActorRef[ReferenceStoreActor]) -> None:
        self._actor = actor

    @classmethod
    def start(cls, directory: str | Path, *, durable: bool = True) -> ReferenceStore:
        """Start a reference store on a store's directory. No disk is read until it is first needed.

        Args:
            directory: The store's directory; made if missing.
            durable: Whether a change is synced before its future is ready. Without, a power loss may undo it.
        """
        return cls(ReferenceStoreActor.start(StorePaths(Path(directory).absolute()), durable=durable))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.close()

    def recover(self) -> Future[tuple[DockerImage, ...]]:
        """Read the checkpoint; done by itself before anything else, and again after it failed.

        Returns:
            All images; those whose layers are missing are logged.

        Raises:
            CheckpointError: It cannot be read. It is left as it is, and nothing else works.
        """
        return dispatch(self._actor, ReferenceStoreActor.recover)

    def put(self, name: str, layers: Sequence[DiffID], config_digest: Digest | None = None) -> Future[DockerImage]:
        """Remember which layers make an image; an older image of that name is forgotten.

        Args:
            name: The image's name.
            layers: DiffIDs, root layer first; they should be in the store.
            config_digest: Digest of the image config.

        Returns:
            The image; the checkpoint that has it is durable. Puts that wait together share one.

        Raises:
            InvalidNameError: ``name`` is no image name.
            OSError: The checkpoint could not be written; the old one stands.
        """
        return dispatch(self._actor, ReferenceStoreActor.put, name, tuple(layers), config_digest)

    def get(self, name: str) -> Future[DockerImage]:
        """Return an image all of whose layers are there.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: There is no such image.
            ImageIncompleteError: Some of its layers are missing.
        """
        return dispatch(self._actor, ReferenceStoreActor.get, name)

    def list(self) -> Future[tuple[DockerImage, ...]]:
        """Return all images, by name; ``missing`` tells which layers of each are not there."""
        return dispatch(self._actor, ReferenceStoreActor.list)

    def remove(self, name: str) -> Future[DockerImage]:
        """Forget an image, and return it; its layers stay. Durable like ``put``.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: There is no such image.
        """
        return dispatch(self._actor, ReferenceStoreActor.remove, name)

    def close(self) -> None:
        """Stop; changes asked for before are made. Idempotent."""
        dispatch(self._actor, ReferenceStoreActor.close).recover(lambda _: None).get(timeout=60)
        self._actor.stop(timeout=60)


class ReferenceStoreActor(Actor):
    """Owns the table of images: what the last checkpoint that was written for certain holds."""

    def __init__(self, paths: StorePaths, *, durable: bool) -> None:
        super().__init__()
        self._paths = paths
        self._disk = disk(durable=durable)
        self._images: Images = {}
        self._recovery: Future[None] | None = None
        self._unsure = False  # whether the checkpoint is what the table is: a write that failed may have got through
        self._changes: list[tuple[Callable[[Images], DockerImage], Promise[DockerImage]]] = []
        self._saving: Future[None] | None = None
        # Short reads and writes only, in their order, in a thread of their own: the worker processes may all be busy.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reference-store")
        self._lane = WorkerPool(executor=self._thread)

    async def recover(self) -> tuple[DockerImage, ...]:
        await self._recovered()
        return await self.list()

    async def put(self, name: str, layers: tuple[DiffID, ...], config_digest: Digest | None) -> DockerImage:
        parsed = ImageName.parse(name)
        image = DockerImage(parsed.stored, layers, config_digest)

        def change(images: Images) -> DockerImage:
            images[parsed.key] = image
            return image

        return await self._change(change)

    async def get(self, name: str) -> DockerImage:
        parsed = ImageName.parse(name)
        await self._recovered()
        image = self._images.get(parsed.key)
        if image is None:
            raise NotFoundError(parsed.stored)
        missing = await self._missing(image.layer_ids)
        if missing:
            raise ImageIncompleteError(image.name, [layer for layer in image.layer_ids if layer in missing])
        return image

    async def list(self) -> tuple[DockerImage, ...]:
        await self._recovered()
        images = sorted(self._images.values(), key=lambda image: image.name)
        missing = await self._missing([layer for image in images for layer in image.layer_ids])
        return tuple(_with_missing(image, missing) for image in images)

    async def remove(self, name: str) -> DockerImage:
        parsed = ImageName.parse(name)

        def change(images: Images) -> DockerImage:
            if parsed.key not in images:
                raise NotFoundError(parsed.stored)
            return images.pop(parsed.key)

        return await self._change(change)

    async def close(self) -> None:
        # Those who asked for a change before are woken before this method is, at either await.
        with contextlib.suppress(StoreError, OSError):
            await self._recovered()
        if self._saving is not None:
            await undiscardable(self._saving)

    def on_stop(self) -> None:
        self._lane.close()
        self._thread.shutdown()

    # -- inside

    def _recovered(self) -> Future[None]:
        if self._recovery is None or self._recovery.is_failed():
            self._recovery = self.spawn(self._read())
        return undiscardable(self._recovery)

    async def _read(self) -> None:
        await self._lane.run(make_store, self._paths)
        images = await self._lane.run(read_checkpoint, self._paths.stored_images)
        missing = await self._missing([layer for image in images for layer in image.layer_ids])
        for image in images:
            incomplete = _with_missing(image, missing)
            if incomplete.missing:
                logger.warning("%s", ImageIncompleteError(image.name, incomplete.missing))
        self._images = {ImageName.parse(image.name).key: image for image in images}

    async def _change(self, change: Callable[[Images], DockerImage]) -> DockerImage:
        await self._recovered()
        promise: Promise[DockerImage] = Promise()
        self._changes.append((change, promise))
        if self._saving is None:
            self._saving = self.spawn(self._save())
        return await undiscardable(promise.future)

    async def _save(self) -> None:
        """Write checkpoints until no change waits; all that came during one go together into the next."""
        while self._changes:
            changes, self._changes = self._changes, []
            images = dict(self._images)
            answers = [(promise, _answer(change, images)) for change, promise in changes]
            try:
                if self._unsure or images != self._images:
                    self._unsure = True
                    write = partial(write_checkpoint, self._paths.stored_images, disk=self._disk)
                    await self._lane.run(write, tuple(images.values()))
                self._images, self._unsure = images, False
            except Exception as error:  # noqa: BLE001 - it travels to each who asked for a change
                for promise, _ in answers:
                    promise.fail(error)
            for promise, answer in answers:
                promise.copy(answer)
        self._saving = None

    def _missing(self, layers: Sequence[DiffID]) -> Future[frozenset[DiffID]]:
        return self._lane.run(partial(find_missing, self._paths), tuple(layers))


def _answer(change: Callable[[Images], DockerImage], images: Images) -> Future[DockerImage]:
    """Return what a change answers, or the error it raises."""
    promise: Promise[DockerImage] = Promise()
    promise.compute(change, images)
    return promise.future


def _with_missing(image: DockerImage, missing: frozenset[DiffID]) -> DockerImage:
    layers = tuple(layer for layer in image.layer_ids if layer in missing)
    return DockerImage(image.name, image.layer_ids, image.config_digest, layers)
