"""Root file systems of stored images, each in a container: made, found again after a crash, and destroyed.

Handle: Provisioner. Actor: ProvisionerActor.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/provisioner.{hpp,cpp}.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

import pykka

from pykka_imagestore import tasks
from pykka_imagestore.core.container import ContainerInfo, require_container_id
from pykka_imagestore.core.events import ContainerDestroyed, ContainerProvisioned
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.parameters import parse_path, require_flag, require_type
from pykka_imagestore.core.rootfs import Reads, StackLayer, stack_id
from pykka_imagestore.durable.containers import RemovedContainers, find_containers
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.stacks import publish_stack
from pykka_imagestore.durable.stored_view import StoredView
from pykka_imagestore.errors import ContainerExistsError, InvalidInputError, StoreClosedError
from pykka_imagestore.handle import Handle, StoreActor, ask, end, in_future
from pykka_imagestore.lease_taker import LeaseTaker
from pykka_imagestore.local_store import LocalStore
from pykka_imagestore.provision.backends import Backends
from pykka_imagestore.provision.exporting import find_container_layers, find_layers
from pykka_imagestore.provision.making import PartsWanted, Site, Steps, Wanted, advance, give_up, make
from pykka_imagestore.provision.order import ProvisionOrder
from pykka_imagestore.provision.provisioned import ContainerRecovery, Rootfs
from pykka_imagestore.provision.recovering import recover_containers
from pykka_imagestore.provision.stack_layers import StackWanted
from pykka_imagestore.provision.turns import DiskBetweenTurns, Turns
from pykka_imagestore.runtime import (
    DiscardedError,
    Future,
    InFlight,
    SerialExecutor,
    SingleFlight,
    WorkerPool,
    after,
    await_all,
    defer,
    gather,
    undiscardable,
)
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.staging import Staging
from pykka_imagestore.store_parts import StoreParts
from pykka_imagestore.temporary_rootfs import TemporaryRootfs
from pykka_imagestore.text import shown

if TYPE_CHECKING:
    from pykka_imagestore.jobs.export_tar import ExportedTar

A = TypeVar("A")
T = TypeVar("T")

THREADS = 8  # they take turns, but for what waits for the disk
WRITERS = 8  # of tars to descriptors; each waits for whoever reads it
GATHER_SECONDS = 0.2  # in which removed containers are gathered, to be deleted together


class Provisioner(Handle):
    """Root file systems of the images of a store.

    A container stays until it is destroyed, with its layers, also when the provisioner is closed or its process ends:
    then the next ``recover`` of its owner adopts it. Any number of provisioners, in any number of processes, may share
    a store; each has its own containers.

    Methods return at once; results, and errors, arrive through the future. Thread-safe. Close it before its store.
    """

    instead = "start one in each process, on a store of its own"
    started_on = "store"
    named_otherwise: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("containers", "ps", "ls"), "list() returns all containers"),
        **dict.fromkeys(("remove", "rm", "delete", "unmount"), "destroy(container_id) removes a container"),
        **dict.fromkeys(("create", "make", "mount"), "provision(container_id, name) makes a container"),
        **dict.fromkeys(("run", "exec"), "nothing is run here; provision returns where something can be"),
        "get": "provision returns a root file system, recover those of an earlier process; list() tells their paths",
    }

    def __init__(self, actor: pykka.ActorRef[ProvisionerActor], root: Path, owner: str) -> None:
        self._origin = Origin()
        self._actor = actor
        self._root, self._owner = root, owner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._owner!r} at {str(self._root)!r}>"

    @classmethod
    def start(cls, store: LocalStore, *, owner: str = "default", durable: bool = True) -> Provisioner:
        """Start a provisioner. No disk is read until it is first needed.

        Args:
            store: The store; it stays the caller's to close, afterwards.
            owner: Whose containers these are: what an agent is called over its restarts. ``recover`` looks at the
                containers of its own owner only.
            durable: Whether a container's record is synced before anything of it is made. If not, a power loss may
                leave a container's directory that nothing tells of.

        Raises:
            InvalidInputError: A parameter is of another type. Nothing was started.
        """
        require_type("store", store, LocalStore, "a LocalStore")
        require_container_id("owner", owner)
        require_flag("durable", durable)
        return start_with(store.parts, Backends.of_this_machine(), owner, durable=durable)

    @in_future
    def provision(
        self,
        container_id: str,
        name: str,
        *,
        backend: str | None = None,
        read_only: bool = False,
        target: str | Path | None = None,
        attach: bool = True,
        upper_bytes: int | None = None,
        for_runtime: bool = False,
    ) -> Future[Rootfs]:
        """Make a root file system of an image.

        Args:
            container_id: What to call it, in all of the store: at most 128 letters, digits, ``_``, ``.`` and ``-``, a
                letter or digit first.
            name: The image's name, or the digest of its config, ``sha256:`` and 64 digits.
            backend: What is to make it, ``overlay``, ``copy``, ``link`` or ``bind``; by default the first that works
                here, which ``Rootfs.reason`` explains.
            read_only: Whether nobody is to write to it.
            target: An empty directory of this user's to attach it to; by default one in the store.
            attach: Whether it is to be found by a path. If not, it is mounted nowhere, and is gone with its descriptor.
            upper_bytes: How much may be written to it, where the file system can bound that; None for no bound.
            for_runtime: Whether a container runtime guards it, with a user namespace or mounts of its own. If so, its
                set-user-ID programs run with their owners' rights and its devices can be opened, whoever reaches them.
                If not, neither works: it is mounted ``nosuid,nodev``.

        Returns:
            The root file system, complete. The container is recorded, durably, with its layers, which stay until it is
            destroyed. A discard, or a failure, leaves nothing of it; the future is discarded once that is so.

        Raises:
            InvalidNameError: ``name`` is no image name.
            InvalidInputError: Another argument is not what it takes.
            NotFoundError: The image is not there; ImageIncompleteError if some of its layers are not.
            ContainerExistsError: A container of that id is there.
            StackError: The image's layers do not fit together.
            RootfsError: It cannot be made in that way here, or in none; the sentence says why.
            OSError: The disk failed.
        """
        order = ProvisionOrder.of(
            container_id,
            name,
            backend=backend,
            read_only=read_only,
            target=target,
            attach=attach,
            upper_bytes=upper_bytes,
            for_runtime=for_runtime,
        )
        return ask(self._actor, ProvisionerActor.provision, order)

    def temporary(
        self,
        container_id: str,
        name: str,
        *,
        backend: str | None = None,
        read_only: bool = False,
        target: str | Path | None = None,
        attach: bool = True,
        upper_bytes: int | None = None,
        for_runtime: bool = False,
    ) -> TemporaryRootfs:
        """Return a root file system for a ``with`` or ``async with`` block, which destroys it at its end.

        Nothing is done before the block begins, which raises what ``provision`` fails with. Its end raises what
        ``destroy`` fails with, unless the block itself destroyed it. Arguments are those of ``provision``.
        """
        provision = partial(
            self.provision,
            container_id,
            name,
            backend=backend,
            read_only=read_only,
            target=target,
            attach=attach,
            upper_bytes=upper_bytes,
            for_runtime=for_runtime,
        )
        return TemporaryRootfs(provision, partial(self.destroy, container_id))

    @in_future
    def destroy(self, container_id: str) -> Future[None]:
        """Unmount a container's root file system, and remove all of it; a provision of it under way is discarded first.

        Ready once it is gone for its caller; its files are deleted in the background. A power loss may bring back what
        was destroyed just before: the next ``recover`` then destroys it again.

        Raises:
            ContainerNotFoundError: No container of that id is there.
            ContainerHeldError: It belongs to another provisioner, whose process is alive.
            RootfsError: It could not be unmounted, and stays.
        """
        require_container_id("container_id", container_id)
        return ask(self._actor, ProvisionerActor.destroy, container_id)

    @in_future
    def recover(self, known_containers: Iterable[str] = ()) -> Future[ContainerRecovery]:
        """Adopt or remove the containers of this owner whose process has ended, however it ended.

        Those of living processes and of other owners stay. What a killed process left half made is removed.

        Args:
            known_containers: Ids of the containers that the agent goes on with.

        Returns:
            What became of them. A container does not outlive the machine's start, nor, if it is attached to no path or
            only in a namespace of its own, its process.

        Raises:
            InvalidInputError: What is given is no list of ids.
            OSError: The disk failed, or this process may open no more files. No known container is removed for that;
                another call goes on.
        """
        if isinstance(known_containers, str) or not isinstance(known_containers, Iterable):
            raise InvalidInputError(f"known_containers is {shown(str(known_containers))}; it takes a list of ids")
        known = list(known_containers)
        for container_id in known:
            require_container_id("known_containers", container_id)
        return ask(self._actor, ProvisionerActor.recover, frozenset(known))

    def list(self) -> Future[tuple[ContainerInfo, ...]]:
        """Return all containers of the store, by id, those of other processes and owners too."""
        return ask(self._actor, ProvisionerActor.list)

    def swept(self) -> Future[None]:
        """Return once the files of all containers that this provisioner removed are deleted."""
        return ask(self._actor, ProvisionerActor.swept)

    @in_future
    def export(self, container_id: str, target: str | Path | int) -> Future[ExportedTar]:
        """Write a tar of a container's tree, with what was written to it; that may go on meanwhile.

        Args:
            container_id: The container, of whichever process.
            target: A file to make; or the descriptor of an open file, pipe or socket, which is the caller's to close
                once this is ready, failed or discarded. Nothing is synced. Of exports to descriptors eight run at a
                time.

        Raises:
            ContainerNotFoundError: It is not there.
            FileExistsError: There is something at ``target``.
            OSError: It cannot be read, or not be written to. A file that was made is gone.
        """
        require_container_id("container_id", container_id)
        return ask(self._actor, ProvisionerActor.export, container_id, _parse_target(target))

    @in_future
    def export_image(self, name: str, target: str | Path | int) -> Future[ExportedTar]:
        """Write a tar of the tree that an image's layers mean.

        Args:
            name: As for ``provision``.
            target: As for ``export``.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: It is not there; ImageIncompleteError if some of its layers are not.
            StackError: The image's layers do not fit together.
            FileExistsError, OSError: As for ``export``.
        """
        require_type("name", name, str, "an image name, as a str")
        return ask(
            self._actor, ProvisionerActor.export_image, ImageName.parse_stored(name).stored, _parse_target(target)
        )

    def close(self) -> None:
        """Close all descriptors and stop; containers stay. Provisions and exports under way are discarded. Idempotent.

        In a forked child, which has no part in the work, this does nothing.
        """
        if not self._origin.is_here():
            return
        end(self._actor, ProvisionerActor.close)


def start_with(parts: StoreParts, backends: Backends, owner: str = "default", *, durable: bool = True) -> Provisioner:
    """Start a provisioner on the parts of a store, which makes root file systems with these backends."""
    return Provisioner(ProvisionerActor.start(parts, backends, owner, durable=durable), parts.paths.root, owner)


def _parse_target(target: str | Path | int) -> str | int:
    if isinstance(target, int) and not isinstance(target, bool):
        return target
    return str(parse_path("target", target).absolute())


class ProvisionerActor(StoreActor):
    """Owns the table of containers that this process has, and of those that come and go."""

    def __init__(self, parts: StoreParts, backends: Backends, owner: str, *, durable: bool) -> None:
        super().__init__()
        self._parts = parts
        self._turns = Turns()
        self._disk = DiskBetweenTurns(disk(durable=durable), self._turns)
        self._site = Site(parts.paths, self._disk, backends, parts.pool.workers, owner)
        self._view: Future[StoredView] | None = None
        self._there: dict[str, Rootfs] = {}
        self._coming: dict[str, Future[Rootfs]] = {}
        self._going: dict[str, Future[None]] = {}
        self._recovery: Future[ContainerRecovery] | None = None  # the last one
        self._stacks: SingleFlight[str, None] = SingleFlight()
        self._work = InFlight()
        self._exports = InFlight()
        self._is_gathering = self._closed = False
        self._threads = WorkerPool(THREADS, threads=True, name="imagestore-provisioner")
        self._writers = WorkerPool(WRITERS, threads=True, name="imagestore-export")
        self._executor = SerialExecutor("imagestore-provisioner-staging")
        self._staging = Staging(self, parts.paths, self._executor, parts.pool)
        self._leases = LeaseTaker(parts, self._executor)

    # -- what the handle offers

    def provision(self, order: ProvisionOrder) -> Future[Rootfs]:
        self._require_open()
        container_id = order.container_id
        if container_id in self._going:
            again = defer(self.actor_ref, ProvisionerActor.provision)
            return self._work.add(await_all([undiscardable(self._going[container_id])]).then(lambda _: again(order)))
        if container_id in self._coming or container_id in self._there:
            raise ContainerExistsError(container_id, str(self._parts.paths.root))
        self._coming[container_id] = self._work.add(self.spawn(self._provision(order)))
        return self._coming[container_id]

    def destroy(self, container_id: str) -> Future[None]:
        self._require_open()
        if container_id not in self._going:
            self._going[container_id] = self._work.add(self.spawn(self._destroy(container_id)))
        return undiscardable(self._going[container_id])

    def recover(self, known: frozenset[str]) -> Future[ContainerRecovery]:
        self._require_open()
        self._recovery = self._work.add(self.spawn(self._recover(known, self._recovery)))
        return undiscardable(self._recovery)

    async def list(self) -> tuple[ContainerInfo, ...]:
        await self._get_view()
        return await self._threads.run(find_containers, self._parts.paths)

    async def export(self, container_id: str, target: str | int) -> ExportedTar:
        await self._get_view()
        layers = await self._carry_out(find_container_layers(self._site, container_id))
        return await self._write_tar(layers, target, may_change=True)

    async def export_image(self, name: str, target: str | int) -> ExportedTar:
        with await self._leases.lease(name) as leased:
            layer_ids = [layer.diff_id for layer in leased.image.layers]
            layers = await self._carry_out(find_layers(self._site, layer_ids, Reads.ANY))
            return await self._write_tar(layers, target, may_change=False)

    async def swept(self) -> None:
        await self._threads.run(self._delete_removed, self._site.remover.removed)
        await self._parts.collector.swept()

    async def close(self) -> None:
        self._closed = True
        while any(self._work):
            for coming in self._coming.values():
                coming.discard()
            self._exports.discard()
            await self._work.ended()
        for rootfs in self._there.values():
            rootfs.close()
        self._there.clear()
        await self._threads.run(self._delete_removed, self._site.remover.removed)

    def on_stop(self) -> None:
        self._threads.close()
        self._writers.close()
        self._executor.close()
        self._site.close()

    # -- inside

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosedError

    async def _provision(self, order: ProvisionOrder) -> Rootfs:
        begun = time.monotonic()
        try:
            rootfs = await self._carry_out(make(self._site, await self._get_view(), order))
            self._there[order.container_id] = rootfs
        except BaseException:
            self._delete_soon()
            raise
        finally:
            del self._coming[order.container_id]
        seconds = time.monotonic() - begun
        self._parts.monitor.note(ContainerProvisioned(order.container_id, order.name.stored, rootfs.backend, seconds))
        return rootfs

    async def _recover(self, known: frozenset[str], before: Future[ContainerRecovery] | None) -> ContainerRecovery:
        if before is not None:
            await await_all([undiscardable(before)])
        await self._get_view()
        # Not what this process has, or is about to have: whatever a caller says, nobody else makes it.
        others = known - self._there.keys() - self._coming.keys() - self._going.keys()
        recovery = await self._threads.run(partial(recover_containers, self._site), others)
        self._there |= {rootfs.container_id: rootfs for rootfs in recovery.adopted}
        self._delete_soon()
        await self._parts.collector.sweep()
        return recovery

    async def _carry_out(self, steps: Steps[T]) -> T:
        """Run each step in a thread, and what it wants in worker processes; a discard undoes all."""
        error: Exception | None = None
        while True:
            running = self._in_turn(partial(advance, steps), error)
            error = None
            try:
                outcome = await running
                if not isinstance(outcome, StackWanted | PartsWanted):
                    return outcome
                await self._get(outcome)
            except DiscardedError as discarded:
                await self._in_turn(partial(give_up, self._site, steps, running), discarded)
                raise
            except Exception as failure:
                if running.is_failed():
                    raise
                error = failure  # of the workers: the steps undo what they did, or go another way

    async def _get(self, wanted: Wanted) -> None:
        if isinstance(wanted, PartsWanted):
            await gather([self._parts.pool.run(tasks.fill_rootfs, part, retry=True) for part in wanted.parts])
            self._parts.collector.keep_to_budget()  # in the background: a copy may be as large as its image
        else:
            key = stack_id(wanted.layer_ids, wanted.reads)
            await self._stacks.join(key, lambda: self._work.add(self.spawn(self._make_stack(wanted))))

    async def _write_tar(self, layers: tuple[StackLayer, ...], target: str | int, *, may_change: bool) -> ExportedTar:
        # A descriptor of this process means nothing to a worker process.
        pool = self._writers if isinstance(target, int) else self._parts.pool
        writing = pool.run(tasks.export_tar, tasks.ExportTar(layers, target, may_change))
        return await self._exports.add(self._work.add(writing))

    async def _make_stack(self, wanted: StackWanted) -> None:
        paths, stack = self._parts.paths, stack_id(wanted.layer_ids, wanted.reads)
        async with self._staging.lend() as staging:
            staged = staging.path / "stack"
            layers = tuple(str(paths.layer(layer)) for layer in wanted.layer_ids)
            request = tasks.MakeStack(layers, wanted.reads, str(staged))
            await self._parts.pool.run(tasks.make_stack, request, retry=True)
            publish = partial(publish_stack, paths, staged, stack, self._disk)
            await self._threads.run(publish, staging.opened)

    async def _destroy(self, container_id: str) -> None:
        begun = time.monotonic()
        try:
            coming = self._coming.get(container_id)
            if coming is not None:
                coming.discard()
                await await_all([undiscardable(coming)])
            if coming is None or not coming.is_discarded():
                await self._get_view()
                rootfs = self._there.pop(container_id, None)
                await self._in_turn(partial(self._site.remover.remove, container_id), rootfs)
        finally:
            del self._going[container_id]
            self._delete_soon()
        self._parts.monitor.note(ContainerDestroyed(container_id, time.monotonic() - begun))

    def _in_turn(self, function: Callable[[A], T], argument: A) -> Future[T]:
        """Have a function called in a thread, when it is its turn; a discard does not stop it."""
        return undiscardable(self._threads.run(partial(self._turns.take, function), argument))

    def _get_view(self) -> Future[StoredView]:
        """Return what looks images up, once the directory is a store that can be used."""
        if self._view is None or self._view.is_failed():
            self._view = self._parts.references.view()
        return undiscardable(self._view)

    def _delete_soon(self) -> None:
        """Have what was removed deleted in the background, together with what is removed within a moment."""
        if not self._is_gathering:
            self._is_gathering = True
            delete = defer(self.actor_ref, ProvisionerActor._delete_gathered)
            after(GATHER_SECONDS).on_ready(lambda _: delete())

    def _delete_gathered(self) -> None:
        self._is_gathering = False
        self._work.add(self._threads.run(self._delete_removed, self._site.remover.removed))

    def _delete_removed(self, removed: RemovedContainers) -> None:
        waiting = removed.give()
        if waiting is not None:
            self._parts.collector.delete(waiting)
