"""Takes out of a store what nobody needs: at once by a rename, and deletes it behind.

Handle: Collector. Actor: CollectorActor.

Layers are taken out while nobody can take a lease; see ``durable/leases.py``. So what a put, a lease or a mounted root
file system needs, in whichever process, stays.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/store.cpp, ``prune``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pykka

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.prune import Needs, Pruned, PruneOptions, Usage, find_unneeded, measure, plan_prune
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.layout import find_orphaned_work
from pykka_imagestore.durable.leases import exclude_leases, find_needs
from pykka_imagestore.durable.owned import take_out
from pykka_imagestore.durable.stock import StockTaker
from pykka_imagestore.jobs.helpers import MAX_HELPERS
from pykka_imagestore.jobs.tree import remove_tree
from pykka_imagestore.reference_store import ReferenceStore
from pykka_imagestore.runtime import Actor, Future, Lane, Mutex, Pending, WorkerPool, dispatch, undiscardable

logger = logging.getLogger(__name__)


class Collector:
    """What a store has too much of. Methods return at once. Thread-safe."""

    def __init__(self, actor: pykka.ActorRef[CollectorActor]) -> None:
        self._actor = actor

    @classmethod
    def start(cls, paths: StorePaths, references: ReferenceStore, pool: WorkerPool, *, durable: bool) -> Collector:
        """Start a collector whose deletions ``pool`` runs. Nothing is looked at yet."""
        return cls(CollectorActor.start(paths, references, pool, durable=durable))

    def sweep(self) -> Future[int]:
        """Delete, behind, what dead processes left in staging/ and gc/; return how many such things there are."""
        return dispatch(self._actor, CollectorActor.sweep)

    def remove(self, name: str) -> Future[DockerImage]:
        """Forget an image, and take out what only it needed.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: It is not there.
        """
        return dispatch(self._actor, CollectorActor.remove, name)

    def prune(self, options: PruneOptions) -> Future[Pruned]:
        """Forget the images that ``options`` say, and take out all that nobody needs; return what that was."""
        return dispatch(self._actor, CollectorActor.prune, options)

    def take_out(self, layers: Iterable[DiffID], configs: Iterable[Digest]) -> Future[Pruned]:
        """Take out layers and configs, needed by images or not, but for leased ones; return which."""
        return dispatch(self._actor, CollectorActor.take_out, tuple(layers), tuple(configs))

    def usage(self) -> Future[Usage]:
        """Return what each image and layer costs."""
        return dispatch(self._actor, CollectorActor.usage)

    def delete(self, path: Path) -> Future[None]:
        """Delete a tree; return when it is gone."""
        return dispatch(self._actor, CollectorActor.delete, path)

    def swept(self) -> Future[None]:
        """Return when all that was taken out is deleted."""
        return dispatch(self._actor, CollectorActor.swept)

    def close(self) -> None:
        """Stop deleting; what is left, the next store deletes. Idempotent."""
        dispatch(self._actor, CollectorActor.close).recover(lambda _: None).get(timeout=120)
        self._actor.stop(timeout=60)


class CollectorActor(Actor):
    """Knows what is being deleted."""

    def __init__(self, paths: StorePaths, references: ReferenceStore, pool: WorkerPool, *, durable: bool) -> None:
        super().__init__()
        self._paths = paths
        self._references = references
        self._pool = pool
        self._disk = disk(durable=durable)
        self._stock = StockTaker(paths)
        self._removals, self._deletions = Pending(), Pending()
        self._closed = False
        self._mutex = Mutex()
        self._lane = Lane("collector")

    async def sweep(self) -> int:
        orphans = await self._lane.run(find_orphaned_work, self._paths)
        for orphan in orphans:
            self._delete_behind(orphan)
        return len(orphans)

    def remove(self, name: str) -> Future[DockerImage]:
        return undiscardable(self._removals.add(self.spawn(self._remove(name))))

    def prune(self, options: PruneOptions) -> Future[Pruned]:
        return undiscardable(self._removals.add(self.spawn(self._prune(options))))

    async def take_out(self, layers: tuple[DiffID, ...], configs: tuple[Digest, ...]) -> Pruned:
        await self._references.recover()
        async with self._excluding_leases() as needs:
            removal = Pruned((), *find_unneeded((), needs, layers, configs))
            await self._carry_out(removal)
        return removal

    async def usage(self) -> Usage:
        images = await self._references.list()
        return measure(await self._lane.run(self._stock.take, images))

    def delete(self, path: Path) -> Future[None]:
        return undiscardable(self._delete_behind(path))

    def swept(self) -> Future[None]:
        return self._deletions.ended()

    async def close(self) -> None:
        self._closed = True
        await self._removals.ended()
        self._deletions.discard()
        await self._deletions.ended()

    def on_stop(self) -> None:
        self._lane.close()

    # -- inside

    async def _remove(self, name: str) -> DockerImage:
        image = await self._references.remove(name)
        async with self._excluding_leases() as needs:
            images = await self._references.settle()  # or a power cut brings one back, and not its layers
            configs = [] if image.config_digest is None else [image.config_digest]
            unneeded = find_unneeded(images, needs, dict.fromkeys(image.layer_ids), configs)
            await self._carry_out(Pruned((), *unneeded))
        return image

    async def _prune(self, options: PruneOptions) -> Pruned:
        await self.sweep()
        await self._references.recover()
        async with self._excluding_leases() as needs:
            images = await self._references.settle()
            stock = await self._lane.run(self._stock.take, images)
            removal = plan_prune(stock, needs, options, time.time())
            # A put that goes on now took its lease before, so it is seen here: what it puts is needed.
            await self._references.forget(removal.images)
            await self._carry_out(removal)
        return removal

    @asynccontextmanager
    async def _excluding_leases(self) -> AsyncIterator[Needs]:
        """Keep every process from taking a lease meanwhile; lend what is needed now."""
        async with self._mutex.held():  # or a second one would wait for the first in the lane, which that one needs
            lock = await self._lane.run(exclude_leases, self._paths)
            try:
                yield await self._lane.run(find_needs, self._paths)
            finally:
                lock.release()

    async def _carry_out(self, removal: Pruned) -> None:
        if removal.layers or removal.configs:
            take = partial(take_out, self._paths, self._disk, removal.layers)
            waiting = await self._lane.run(take, removal.configs)
            self._delete_behind(waiting.path).on_any(lambda _: waiting.release())

    def _delete_behind(self, path: Path) -> Future[None]:
        deletion = self._deletions.add(self._pool.run(remove_tree, str(path), retry=True))
        for _ in range(min(self._pool.workers - 1, MAX_HELPERS)):
            self._pool.run(remove_tree, str(path), idle=True)  # nobody waits for these: they only make it faster
        if self._closed:
            deletion.discard()
        deletion.on_failed(lambda error: logger.warning("%s could not be deleted: %s", path, error))
        return deletion
