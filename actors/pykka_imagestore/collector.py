"""Takes out of a store what nobody needs: at once by a rename, and deletes it behind.

Handle: Collector. Actor: CollectorActor.

What a put or a lease needs, in whichever process, stays; see ``durable/remover.py``.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/store.cpp, ``prune``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import pykka

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.prune import Pruned, PruneOptions, Usage, measure
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.layout import find_orphaned_work
from pykka_imagestore.durable.leases import find_leases
from pykka_imagestore.durable.owned import OwnedFolder
from pykka_imagestore.durable.remover import Identity, Remover
from pykka_imagestore.durable.stock import StockTaker
from pykka_imagestore.jobs.helpers import MAX_HELPERS
from pykka_imagestore.jobs.tree import remove_tree
from pykka_imagestore.reference_store import ReferenceStore
from pykka_imagestore.runtime import Actor, Future, Lane, Pending, WorkerPool, dispatch, undiscardable

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

    def take_out(self, layers: Mapping[DiffID, Identity], configs: Iterable[Digest]) -> Future[Pruned]:
        """Take out layers, if they are still the same folders, and configs; but no leased ones. Return which."""
        return dispatch(self._actor, CollectorActor.take_out, dict(layers), tuple(configs))

    def usage(self) -> Future[Usage]:
        """Return what each image and layer costs."""
        return dispatch(self._actor, CollectorActor.usage)

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
        self._remover = Remover(paths, self._disk)
        self._stock = StockTaker(paths)
        self._removals, self._deletions = Pending(), Pending()
        self._closed = False
        self._lane, self._syncing = Lane("collector"), Lane("collector-sync")

    async def sweep(self) -> int:
        orphans = await self._lane.run(find_orphaned_work, self._paths)
        for orphan in orphans:
            self._delete_behind(orphan)
        return len(orphans)

    # Once a name is gone, its layers must go too, whoever loses interest.

    def remove(self, name: str) -> Future[DockerImage]:
        return undiscardable(self._removals.add(self.spawn(self._remove(ImageName.parse(name)))))

    def prune(self, options: PruneOptions) -> Future[Pruned]:
        return undiscardable(self._removals.add(self.spawn(self._prune(options))))

    def take_out(self, layers: Mapping[DiffID, Identity], configs: tuple[Digest, ...]) -> Future[Pruned]:
        return undiscardable(self._removals.add(self.spawn(self._take_out(layers, configs))))

    async def usage(self) -> Usage:
        images = await self._references.list()
        stock = await self._lane.run(self._stock.take, images)
        return measure(stock, await self._lane.run(find_leases, self._paths))

    def swept(self) -> Future[None]:
        return self._deletions.ended()

    async def close(self) -> None:
        self._closed = True
        await self._removals.ended()
        self._deletions.discard()
        await self._deletions.ended()

    def on_stop(self) -> None:
        self._lane.close()
        self._syncing.close()
        self._remover.close()

    # -- inside

    async def _remove(self, name: ImageName) -> DockerImage:
        await self._references.ready()
        image, waiting = await self._lane.run(self._remover.remove, name)
        self._delete_taken(waiting)
        return image

    async def _prune(self, options: PruneOptions) -> Pruned:
        if not options.dry_run:
            await self.sweep()
        await self._references.ready()
        pruned, waiting = await self._lane.run(self._remover.prune, options)
        self._delete_taken(waiting)
        return pruned

    async def _take_out(self, layers: Mapping[DiffID, Identity], configs: tuple[Digest, ...]) -> Pruned:
        await self._references.ready()
        taken, waiting = await self._lane.run(partial(self._remover.take_out, layers), configs)
        self._delete_taken(waiting)
        return taken

    def _delete_taken(self, waiting: OwnedFolder | None) -> None:
        if waiting is not None:
            self._delete_behind(waiting.path).on_any(lambda _: waiting.release())

    def _delete_behind(self, path: Path) -> Future[None]:
        deletion = self._deletions.add(self.spawn(self._delete(path)))
        if self._closed:
            deletion.discard()
        deletion.on_failed(
            lambda error: logger.warning("%s is left, and the next store here tries again: %s", path, error)
        )
        return deletion

    async def _delete(self, path: Path) -> None:
        # Or a power cut could undo the rename, and not all of the deletion: a layer in its place, with files missing.
        await self._syncing.run(self._sync_names, path)
        deletion = self._pool.run(remove_tree, str(path), retry=True)
        for _ in range(min(self._pool.workers - 1, MAX_HELPERS)):
            self._pool.run(remove_tree, str(path), idle=True)  # nobody waits for these: they only make it faster
        await deletion

    def _sync_names(self, path: Path) -> None:
        for folder in (self._paths.layers, self._paths.configs, path.parent):
            self._disk.sync_folder(folder)
