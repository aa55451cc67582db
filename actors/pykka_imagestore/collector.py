"""Removes from a store what nobody needs: renames it into gc/ at once, and deletes it in the background.

Handle: Collector. Actor: CollectorActor.

What a put or a lease of any process needs stays; see ``durable/remover.py``.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/store.cpp, ``prune``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pykka

from pykka_imagestore import events, tasks
from pykka_imagestore.container_meter import ContainerMeter
from pykka_imagestore.core.budget import NO_BUDGET, Budget, Size
from pykka_imagestore.core.check_report import Evicted
from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.plan_prune import Pruned, PruneOptions
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.identity import Identity
from pykka_imagestore.durable.layout import find_orphaned_work
from pykka_imagestore.durable.locked_directory import LockedDirectory
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.remover import Remover
from pykka_imagestore.durable.reserve import make_reserve
from pykka_imagestore.errors import StoreError
from pykka_imagestore.handle import StoreActor, end
from pykka_imagestore.monitor import Monitor
from pykka_imagestore.reference_store import ReferenceStore
from pykka_imagestore.runtime import (
    Future,
    InFlight,
    SerialExecutor,
    WorkerPool,
    defer,
    discard_all,
    dispatch,
    undiscardable,
)

if TYPE_CHECKING:
    from pykka_imagestore.core.usage import Usage
    from pykka_imagestore.durable.lease_watch import LeaseWatch

logger = logger_of(__name__)


class Collector:
    """Removals from a store, and its budget. Methods return at once. Thread-safe."""

    def __init__(self, actor: pykka.ActorRef[CollectorActor]) -> None:
        self._actor = actor

    @classmethod
    def start(
        cls,
        paths: StorePaths,
        references: ReferenceStore,
        pool: WorkerPool,
        *,
        durable: bool,
        budget: Budget = NO_BUDGET,
        monitor: Monitor | None = None,
    ) -> Collector:
        """Start a collector whose deletions ``pool`` runs. No disk is read until the first call."""
        monitor = monitor or Monitor()
        return cls(CollectorActor.start(paths, references, pool, durable=durable, budget=budget, monitor=monitor))

    def sweep(self) -> Future[int]:
        """Delete in the background what dead processes left in staging/ and gc/; return how many directories."""
        return dispatch(self._actor, CollectorActor.sweep)

    def remove(self, name: str) -> Future[DockerImage]:
        """Forget an image, and move what only it needed to gc/.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: It is not there.
        """
        return dispatch(self._actor, CollectorActor.remove, name)

    def prune(self, options: PruneOptions) -> Future[Pruned]:
        """Forget the images that ``options`` select, and move all that nobody needs to gc/; return what that was."""
        return dispatch(self._actor, CollectorActor.prune, options)

    def keep_to_budget(self, more_bytes: int = 0) -> Future[None]:
        """Forget images until ``more_bytes`` more fit into the budget, if there is one. Never fails.

        Where leases alone exceed the budget, no image is forgotten for it, unless what is not leased exceeds the budget
        by itself. The budget is then enforced again whenever leases end, of any process, until ``close``.
        """
        return dispatch(self._actor, CollectorActor.keep_to_budget, more_bytes)

    def make_room(self, more_bytes: int) -> Future[None]:
        """Keep to the budget as ``keep_to_budget`` does, sweep, and return once all of that is deleted.

        The caller checks whether that freed enough.
        """
        return dispatch(self._actor, CollectorActor.make_room, more_bytes)

    def evict(self, layers: Mapping[DiffID, Identity], configs: Iterable[Digest]) -> Future[Evicted]:
        """Move layers, if they are still the same directories, and damaged configs to gc/, but no leased ones."""
        return dispatch(self._actor, CollectorActor.evict, dict(layers), tuple(configs))

    def delete(self, waiting: LockedDirectory) -> None:
        """Delete in the background what was moved to a directory below gc/, and then let go of its lock."""
        dispatch(self._actor, CollectorActor.delete, waiting)

    def weigh(self, layers: Iterable[DiffID]) -> Future[Size]:
        """Return what some layers take on disk together."""
        return dispatch(self._actor, CollectorActor.weigh, tuple(layers))

    def usage(self) -> Future[Usage]:
        """Return what each image, layer and container costs; containers are measured now."""
        return dispatch(self._actor, CollectorActor.usage)

    def swept(self) -> Future[None]:
        """Return once all that was moved to gc/ is deleted."""
        return dispatch(self._actor, CollectorActor.swept)

    def close(self) -> None:
        """Stop deleting; the next store on this directory deletes what is left. Idempotent."""
        end(self._actor, CollectorActor.close)


class CollectorActor(StoreActor):
    """Owns the deletions under way, and the watch for leases that keep the store above its budget."""

    def __init__(
        self,
        paths: StorePaths,
        references: ReferenceStore,
        pool: WorkerPool,
        *,
        durable: bool,
        budget: Budget,
        monitor: Monitor,
    ) -> None:
        super().__init__()
        self._monitor = monitor
        self._budget = budget
        self._watch: LeaseWatch | None = None  # while the store is over its budget
        self._have_leases_ended = self._is_pruning_again = False
        self._paths = paths
        self._references = references
        self._pool = pool
        self._disk = disk(durable=durable)
        self._remover = Remover(paths, self._disk)
        self._removals, self._deletions = InFlight(), InFlight()
        self._deleting: set[Path] = set()
        self._closed = False
        self._executor = SerialExecutor("imagestore-collector")
        self._syncing = SerialExecutor("imagestore-collector-sync")
        self._meter = ContainerMeter(self, self._remover.view.containers, pool, self._executor)

    async def sweep(self) -> int:
        orphans = await self._executor.run(find_orphaned_work, self._paths)
        # Of one that this process deletes, the lock may be gone already, and so look like a dead process'.
        orphans = [orphan for orphan in orphans if orphan not in self._deleting]
        for orphan in orphans:
            self._delete_behind(orphan)
        return len(orphans)

    # Once a name is gone, its layers must go too, even if the caller discards the future.

    def remove(self, name: str) -> Future[DockerImage]:
        return undiscardable(self._removals.add(self.spawn(self._remove(ImageName.parse_stored(name)))))

    def prune(self, options: PruneOptions) -> Future[Pruned]:
        return undiscardable(self._removals.add(self.spawn(self._prune(options, "prune"))))

    def evict(self, layers: Mapping[DiffID, Identity], configs: tuple[Digest, ...]) -> Future[Evicted]:
        return undiscardable(self._removals.add(self.spawn(self._evict(layers, configs))))

    def keep_to_budget(self, more_bytes: int) -> Future[None]:
        return undiscardable(self._removals.add(self.spawn(self._keep_to_budget(more_bytes))))

    async def make_room(self, more_bytes: int) -> None:
        await self.keep_to_budget(more_bytes)
        await self.sweep()
        await self.swept()

    def delete(self, waiting: LockedDirectory, size_bytes: int | None = None) -> None:
        self._delete_behind(waiting.path, size_bytes).on_any(lambda _: waiting.release())

    def weigh(self, layers: tuple[DiffID, ...]) -> Future[Size]:
        return self._executor.run(self._remover.view.weigh, layers)

    async def usage(self) -> Usage:
        await self._meter.measure_all()
        return await self._executor.run(self._remover.view.usage, await self._references.list())

    def swept(self) -> Future[None]:
        return self._deletions.ended()

    async def close(self) -> None:
        self._closed = True
        self._stop_watching()
        await self._removals.ended()
        self._deletions.discard()
        await self._deletions.ended()

    def on_stop(self) -> None:
        self._stop_watching()
        self._executor.close()
        self._syncing.close()
        self._remover.close()

    # -- inside

    async def _remove(self, name: ImageName) -> DockerImage:
        await self._references.ready()
        begun = time.monotonic()
        image, waiting = await self._executor.run(self._remover.remove, name)
        self._note_moved("remove", (image.name,), waiting, begun, await self._weigh_moved(waiting))
        return image

    async def _prune(self, options: PruneOptions, cause: str) -> Pruned:
        await self._references.ready()  # it checks that the directory is a store, before anything in it is deleted
        if options.budget:
            await self._meter.refresh()
        if not options.dry_run:
            await self.sweep()
        begun = time.monotonic()
        pruned, waiting = await self._executor.run(self._remover.prune, options)
        if not options.dry_run:
            names, moved = tuple(image.name for image in pruned.images), (len(pruned.layers), pruned.freed_bytes)
            self._note_moved(cause, names, waiting, begun, moved)
        return pruned

    async def _evict(self, layers: Mapping[DiffID, Identity], configs: tuple[Digest, ...]) -> Evicted:
        await self._references.ready()
        begun = time.monotonic()
        taken, waiting = await self._executor.run(partial(self._remover.evict, layers), configs)
        self._note_moved("repair", (), waiting, begun, await self._weigh_moved(waiting))
        return taken

    async def _weigh_moved(self, waiting: LockedDirectory | None) -> tuple[int, int]:
        """Return how many layers wait below gc/ in a directory, and what it takes on disk."""
        if waiting is None:
            return 0, 0
        try:
            layers, size = await self._executor.run(self._remover.view.weigh_moved, waiting.path)
        except (StoreError, OSError):
            return 0, 0  # the removal is done all the same
        return layers, size.bytes

    def _note_moved(
        self, cause: str, names: tuple[str, ...], waiting: LockedDirectory | None, begun: float, moved: tuple[int, int]
    ) -> None:
        """Tell of what was removed, and delete in the background what waits below gc/."""
        layers, size_bytes = moved
        if waiting is not None:
            self.delete(waiting, size_bytes)
        if waiting is not None or names:
            self._monitor.note(events.ImagesRemoved(cause, names, layers, size_bytes, time.monotonic() - begun))

    async def _keep_to_budget(self, more_bytes: int) -> None:
        if not self._budget:
            return
        try:
            left = await self._prune_to_budget(more_bytes)
            if left is not None and self._start_watching():
                left = await self._prune_to_budget(more_bytes)  # leases may have ended before they were watched
                if left is not None:
                    logger.warning("%s", _over_budget(self._budget, left))
        except (StoreError, OSError) as error:
            logger.warning("the store may be larger than its budget, since nothing could be removed: %s", error)
        else:
            if left is None:
                self._stop_watching()

    async def _prune_to_budget(self, more_bytes: int) -> Pruned | None:
        """Prune if the store is over its budget; return the outcome if it still is."""
        await self._meter.refresh()
        room = self._budget + Size(-more_bytes)
        inventory = await self._executor.run(self._remover.view.inventory, await self._references.list())
        if room.holds(inventory.size()):
            return None
        pruned = await self._prune(PruneOptions(budget=room), "budget")
        if pruned.is_out_of_reach:
            # Otherwise the store would grow without bound for as long as leases keep it above its budget.
            pruned = await self._prune(PruneOptions(budget=room + pruned.least), "budget")
        return None if self._budget.holds(pruned.kept) else pruned

    def _start_watching(self) -> bool:
        """Watch for leases that end; return whether that has just begun."""
        if self._watch is not None or self._closed:
            return False
        from pykka_imagestore.durable.lease_watch import LeaseWatch  # noqa: PLC0415 - few stores need ctypes for it

        try:
            again = defer(self.actor_ref, CollectorActor._prune_again)
            self._watch = LeaseWatch(self._paths.leases, self._paths.containers, again)
        except OSError as error:
            logger.warning("the store stays over its budget until the next put, even if leases end: %s", error)
        return self._watch is not None

    def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _prune_again(self) -> None:
        """Keep to the budget now that leases have ended; one more round serves all that end during a round."""
        self._have_leases_ended = True
        if not self._is_pruning_again:
            self._is_pruning_again = True
            self._removals.add(self.spawn(self._prune_while_leases_end()))

    async def _prune_while_leases_end(self) -> None:
        while self._have_leases_ended and self._watch is not None:
            self._have_leases_ended = False
            await self._keep_to_budget(0)
        self._is_pruning_again = False

    def _delete_behind(self, path: Path, size_bytes: int | None = None) -> Future[None]:
        self._deleting.add(path)
        deletion = self._deletions.add(self.spawn(self._delete(path, size_bytes)))
        if self._closed:
            deletion.discard()
        deletion.on_failed(
            lambda error: logger.warning("%s is left, and the next store here tries again: %s", path, error)
        )
        return deletion

    async def _delete(self, path: Path, size_bytes: int | None) -> None:
        begun = time.monotonic()
        try:
            # A power cut could otherwise undo the rename but not all of the deletion: the layer would be back,
            # incomplete.
            await self._syncing.run(self._sync_names, path)
            await self._remove_tree(path)
        finally:
            self._deleting.discard(path)
        directory = str(path.relative_to(self._paths.root))
        self._monitor.note(events.Swept(directory, size_bytes, time.monotonic() - begun))
        await self._syncing.run(make_reserve, self._paths)

    async def _remove_tree(self, path: Path) -> None:
        # No time limit: a deletion that is given up half-way is begun again by the next sweep.
        deletion = self._pool.run(tasks.remove_tree, str(path), retry=True)
        # Nobody waits for these: they only make it faster.
        helpers = [
            self._pool.run(tasks.remove_tree, str(path), idle=True)
            for _ in range(min(self._pool.workers - 1, tasks.MAX_PEERS))
        ]
        try:
            await deletion
        except BaseException as error:
            ended = discard_all(helpers)
            if not isinstance(error, GeneratorExit):  # then the actor has ended, and nothing can be awaited
                await ended
            raise

    def _sync_names(self, path: Path) -> None:
        for directory in (self._paths.layers, self._paths.configs, self._paths.containers, path.parent):
            with suppress(FileNotFoundError):  # not every store has containers
                self._disk.sync_directory(directory)


def _over_budget(budget: Budget, left: Pruned) -> str:
    return (
        f"the store takes {left.kept}, and may take {budget}: {left.least} are leased, being put, or containers'. It "
        "is pruned again when leases end or containers are destroyed"
    )
