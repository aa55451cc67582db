"""Which layers make which image, remembered across restarts.

Handle: ReferenceStore. Actor: ReferenceStoreActor.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/metadata_manager.hpp.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pykka

from pykka_imagestore.core.digest import DiffID, Digest, is_sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.parameters import parse_path, require_flag
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.layout import make_store
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.references import Change, Put, References, Remove
from pykka_imagestore.durable.stored_view import StoredView
from pykka_imagestore.errors import ImageIncompleteError, InvalidInputError, NotFoundError, StoreError
from pykka_imagestore.handle import Handle, StoreActor, end
from pykka_imagestore.runtime import Future, Promise, SerialExecutor, dispatch, undiscardable
from pykka_imagestore.text import shown

logger = logger_of(__name__)

T = TypeVar("T")

_MAX_LOGGED = 20  # incomplete images, one by one


class ReferenceStore(Handle):
    """Images by name. Of layers it knows only whether they are there.

    Any number of processes may share the directory: each sees at once what the others put. Methods return at once;
    results, and errors, arrive through the future. Thread-safe. Names are taken in any spelling: ``ubuntu`` and
    ``docker.io/library/ubuntu:latest`` are one image. ``close()``, or leaving the ``with`` block, stops the actor.
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
        root = parse_path("directory", directory).absolute()
        require_flag("durable", durable)
        return cls(ReferenceStoreActor.start(StorePaths(root), durable=durable))

    def recover(self) -> Future[tuple[DockerImage, ...]]:
        """Read the images. Every other method does so first, and again if it failed.

        Returns:
            All images; those whose layers are missing are logged.

        Raises:
            CheckpointError: They cannot be read. The files are left as they are, and nothing else works.
            LocksUnsupportedError: The directory's file system has no locks, and nothing else works.
        """
        return dispatch(self._actor, ReferenceStoreActor.recover)

    def ready(self) -> Future[None]:
        """Do what ``recover`` does, but list no images if that has been done."""
        return dispatch(self._actor, ReferenceStoreActor.ready)

    def put(self, name: str, layers: Sequence[DiffID], config_digest: Digest | None = None) -> Future[DockerImage]:
        """Remember which layers make an image; an older image of that name is forgotten.

        Args:
            name: The image's name.
            layers: DiffIDs, root layer first; the layers should be in the store.
            config_digest: Digest of the image config.

        Returns:
            The image, durable. Puts that wait together share one write and one sync.

        Raises:
            InvalidNameError: ``name`` is no image name.
            InvalidInputError: A layer or the config is no sha256 digest.
            OSError: The change could not be written, and is not made; or it could not be synced, and may be made.
        """
        return dispatch(self._actor, ReferenceStoreActor.put, name, tuple(layers), config_digest)

    def put_all(
        self, names: Sequence[str], layers: Sequence[DiffID], config_digest: Digest | None = None
    ) -> Future[tuple[DockerImage, ...]]:
        """Remember one image under several names, in one write, as ``put`` does for each."""
        return dispatch(self._actor, ReferenceStoreActor.put_all, tuple(names), tuple(layers), config_digest)

    def get(self, name: str) -> Future[DockerImage]:
        """Return an image all of whose layers are there; it counts as used now.

        Args:
            name: Its name, or the digest of its config.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: There is no such image.
            ImageIncompleteError: Some of its layers are missing.
        """
        return dispatch(self._actor, ReferenceStoreActor.get, name)

    def list(self) -> Future[tuple[DockerImage, ...]]:
        """Return all images, by name; ``missing`` tells which layers of each are not there."""
        return dispatch(self._actor, ReferenceStoreActor.list)

    def view(self) -> Future[StoredView]:
        """Return what looks images up at once, for several threads, until this is closed."""
        return dispatch(self._actor, ReferenceStoreActor.view)

    def torn_bytes(self) -> Future[int]:
        """Return how many bytes at the end of the journal are no complete change: a crash or damage left them."""
        return dispatch(self._actor, ReferenceStoreActor.torn_bytes)

    def remove(self, name: str) -> Future[DockerImage]:
        """Forget an image, and return it; its layers stay. Durable like ``put``.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: There is no such image.
        """
        return dispatch(self._actor, ReferenceStoreActor.remove, name)

    def close(self) -> None:
        """Make the changes that were asked for, and stop. Idempotent."""
        end(self._actor, ReferenceStoreActor.close)


class ReferenceStoreActor(StoreActor):
    """Reads and writes in threads of its own. It keeps no table of images: the files are the truth."""

    def __init__(self, paths: StorePaths, *, durable: bool) -> None:
        super().__init__()
        self._paths = paths
        self._disk = disk(durable=durable)
        self._references = References(paths, self._disk)
        self._view = StoredView(paths, self._references)
        self._recovery: Future[None] | None = None
        # In threads of their own, since the worker processes may all be busy. Two, so that a read waits for no sync.
        self._reader = SerialExecutor("imagestore-reference-reader")
        self._writer = SerialExecutor("imagestore-reference-writer")
        self._commits = _Commits(self._references, self._writer)

    async def recover(self) -> tuple[DockerImage, ...]:
        await self.ready()
        return await self.list()

    def ready(self) -> Future[None]:
        if self._recovery is None or self._recovery.is_failed():
            self._recovery = self.spawn(self._recover())
        return undiscardable(self._recovery)

    def put(self, name: str, layers: tuple[DiffID, ...], config_digest: Digest | None) -> Future[DockerImage]:
        return undiscardable(self.put_all((name,), layers, config_digest).then(lambda images: images[0]))

    def put_all(
        self, names: tuple[str, ...], layers: tuple[DiffID, ...], config_digest: Digest | None
    ) -> Future[tuple[DockerImage, ...]]:
        images = tuple(DockerImage(ImageName.parse_stored(name).labelled, layers, config_digest) for name in names)
        for digest in (*layers, *([] if config_digest is None else [config_digest])):
            if not is_sha256(digest):
                raise InvalidInputError(f"{shown(str(digest))} is no sha256 digest, and so no layer or config")
        return undiscardable(self._change(*map(Put, images)).then(lambda _: images))

    # The reader's future is returned as it is, without another message to this actor: a get should answer at once.

    def get(self, name: str) -> Future[DockerImage]:
        parsed = ImageName.parse_stored(name)
        return self._when_ready(partial(self._reader.run, self._view.get, parsed))

    def list(self) -> Future[tuple[DockerImage, ...]]:
        return self._when_ready(partial(self._reader.run, StoredView.list, self._view))

    async def view(self) -> StoredView:
        await self.ready()
        return self._view

    def torn_bytes(self) -> Future[int]:
        return self._when_ready(partial(self._writer.run, References.torn_bytes, self._references))

    async def remove(self, name: str) -> DockerImage:
        parsed = ImageName.parse_stored(name)
        (removed,) = await self._change(Remove(parsed))
        if removed is None:
            raise NotFoundError(parsed.stored)
        return removed

    async def close(self) -> None:
        # Callers that asked for a change earlier are woken before this method is.
        if self._recovery is None:
            return
        with contextlib.suppress(StoreError, OSError):
            await self.ready()
        if self._commits.have_begun:
            with contextlib.suppress(StoreError, OSError):
                await self._writer.run(self._references.compact, True)  # after all changes that were asked for earlier

    def on_stop(self) -> None:
        self._reader.close()
        self._writer.close()
        self._references.close()

    # -- inside

    async def _recover(self) -> None:
        await self._writer.run(partial(make_store, self._paths), self._disk)
        images = await self._reader.run(StoredView.list, self._view)
        incomplete = [image for image in images if image.missing]
        for image in incomplete[:_MAX_LOGGED]:
            logger.warning("%s", ImageIncompleteError(image.name, image.missing))
        if len(incomplete) > _MAX_LOGGED:
            logger.warning("%d more images are incomplete", len(incomplete) - _MAX_LOGGED)

    def _change(self, *changes: Change) -> Future[tuple[DockerImage | None, ...]]:
        return undiscardable(self._when_ready(partial(self._commits.change, changes)))

    def _when_ready(self, run: Callable[[], Future[T]]) -> Future[T]:
        if self._recovery is not None and self._recovery.is_ready():
            return run()
        return self.ready().then(lambda _: run())


_Waiting = tuple[tuple[Change, ...], Promise[tuple[DockerImage | None, ...]]]


class _Commits:
    """Groups changes: all that arrive during one commit go together into the next.

    Args:
        executor: Writes them.

    Attributes:
        have_begun: Whether any change was asked for.
    """

    def __init__(self, references: References, executor: SerialExecutor) -> None:
        self._references = references
        self._executor = executor
        self.have_begun = False
        self._waiting: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()

    def change(self, changes: tuple[Change, ...]) -> Future[tuple[DockerImage | None, ...]]:
        """Make changes; they are durable once the future is ready."""
        self.have_begun = True
        promise: Promise[tuple[DockerImage | None, ...]] = Promise()
        self._waiting.put((changes, promise))
        self._executor.run(_Commits._commit, self)
        return undiscardable(promise.future)

    def _commit(self) -> None:
        waiting = []
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self._waiting.get_nowait())
        if not waiting:
            return
        try:
            answers = iter(self._references.commit([change for changes, _ in waiting for change in changes]))
        except Exception as error:  # noqa: BLE001 - it travels to every caller that asked for a change
            for _, promise in waiting:
                promise.fail(error)
            return
        for changes, promise in waiting:
            promise.set(tuple(islice(answers, len(changes))))
        self._compact()

    def _compact(self) -> None:
        try:
            self._references.compact(False)
        except (StoreError, OSError) as error:
            logger.warning("the journal grows, since no checkpoint could be written: %s", error)
