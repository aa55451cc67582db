"""Images on this machine: put from archives, leased, found by name, kept within a budget.

Handle: LocalStore. Actor: LocalStoreActor.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/{store,local_puller}.hpp.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

import pykka

from pykka_imagestore import events, tasks
from pykka_imagestore.core.budget import Budget
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage, ImageInfo, Recovery
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.parameters import parse_path, require_flag, require_function, require_type
from pykka_imagestore.core.platform import Platform
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.layout import write_config
from pykka_imagestore.durable.leases import PutLease
from pykka_imagestore.durable.locked_directory import LockedDirectory
from pykka_imagestore.durable.stored_view import read_config
from pykka_imagestore.errors import StoreClosedError
from pykka_imagestore.handle import StoreActor, ask, in_future, or_closed
from pykka_imagestore.lease_taker import LeaseTaker
from pykka_imagestore.leased_image import LeasedImage
from pykka_imagestore.locator import Locator
from pykka_imagestore.monitor import EventListener, Monitor
from pykka_imagestore.progress import Listener
from pykka_imagestore.puts import (
    LegacyDiffIDs,
    PutArguments,
    PutOptions,
    PutRequest,
    Puts,
    PutUnderWay,
    refuse_path_as_name,
)
from pykka_imagestore.room import Room
from pykka_imagestore.runtime import (
    DiscardedError,
    Future,
    InFlight,
    SerialExecutor,
    WorkerPool,
    defer,
    gather,
    undiscardable,
)
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.staging import Staging
from pykka_imagestore.store_parts import StoreParts
from pykka_imagestore.upkeep import Upkeep
from pykka_imagestore.workers import start_workers

if TYPE_CHECKING:
    from pykka_imagestore.core.archive_index import ArchiveIndex
    from pykka_imagestore.core.layer_blob import LayerBlob
    from pykka_imagestore.core.planned_image import PlannedImage

T = TypeVar("T")


class Lookup(Upkeep):
    """The part of a LocalStore that finds images."""

    named_otherwise: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("images", "ls"), "list() returns all images"),
        **dict.fromkeys(("delete", "rm", "rmi"), "remove(name) removes an image"),
        "inspect": "config(name) returns an image's config",
        "gc": "prune() deletes what no image has",
        "du": "usage() tells what is on disk",
        "pull": "nothing is pulled; put(name, archive) takes what skopeo copy wrote",
        **dict.fromkeys(("provision", "mount"), "Provisioner.start(store) has it"),
    }

    def __init__(self, actor: pykka.ActorRef[LocalStoreActor], parts: StoreParts) -> None:
        super().__init__(parts)
        self._actor = actor
        self._locator = Locator(parts.paths)

    @overload
    def get(self, name: str, *, lease: Literal[False] = False) -> Future[ImageInfo]: ...
    @overload
    def get(self, name: str, *, lease: Literal[True]) -> Future[LeasedImage]: ...
    @overload
    def get(self, name: str, *, lease: bool) -> Future[ImageInfo] | Future[LeasedImage]: ...
    @in_future
    def get(self, name: str, *, lease: bool = False) -> Future[ImageInfo] | Future[LeasedImage]:
        """Return an image that is in the store; it counts as used now.

        Args:
            name: The image's name, or the digest of its config, ``sha256:`` and 64 digits. If several names are of that
                image, it is returned under the first.
            lease: Whether to keep its layers from being removed, by any process, until the lease is released or this
                process ends. Without a lease they may go at any time.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: It is not there; ImageIncompleteError if some of its layers are not.
        """
        require_flag("lease", lease)
        if lease:
            return ask(self._actor, LocalStoreActor.lease, name)
        return or_closed(self._parts.references.get(name).then(self._parts.layer_facts.locate))

    @in_future
    def take_over(self, token: str) -> Future[LeasedImage]:
        """Take a lease of this process' own on an image that this process or another one has leased.

        Args:
            token: The ``token`` of that LeasedImage, whose store is on this directory. Its holder must not release it
                before this future is ready. Until it is released, it can be taken over any number of times.

        Returns:
            The new lease. The image is the one that was leased, even if its name has been removed meanwhile or names
            another image.

        Raises:
            InvalidInputError: ``token`` is no token of a lease.
            LeaseEndedError: That lease is not held any more.
        """
        require_type("token", token, str, "the token of a LeasedImage, a str")
        return ask(self._actor, LocalStoreActor.take_over, token)

    def list(self) -> Future[tuple[ImageInfo, ...]]:
        """Return all images, by name, incomplete ones too."""
        return or_closed(self._parts.references.list().then(self._locator.locate_all))

    def config(self, name: str) -> Future[bytes]:
        """Return an image's config, JSON, byte for byte as the archive had it; takes, and raises, what ``get`` does."""
        return ask(self._actor, LocalStoreActor.config, name)


class LocalStore(Lookup):
    """Images on this machine, by name.

    Any number of stores, in any number of processes, may share a directory on a local file system: each sees at once
    what the others put, and a layer is unpacked once.

    Methods return at once; results, and errors, arrive through the future. Thread-safe. Names are taken in any
    spelling: ``ubuntu`` and ``docker.io/library/ubuntu:latest`` are one image. ``close()``, or leaving the ``with``
    block, stops all work and the worker processes; ``async with`` does so without blocking the event loop.
    """

    def __init__(self, actor: pykka.ActorRef[LocalStoreActor], parts: StoreParts, own_pool: WorkerPool | None) -> None:
        super().__init__(actor, parts)
        self._origin = Origin()
        self._own_pool = own_pool

    @classmethod
    def start(
        cls,
        directory: str | Path,
        *,
        archive_dir: str | Path | None = None,
        budget_bytes: int | None = None,
        budget_inodes: int | None = None,
        workers: int | None = None,
        worker_memory_bytes: int | None = None,
        layer_time_limit: float | None = None,
        durable: bool = True,
        limits: Limits = DEFAULT_LIMITS,
        follow_links: bool = False,
        pool: WorkerPool | None = None,
        on_event: EventListener | None = None,
    ) -> LocalStore:
        """Start a store. No disk is read until it is first needed; worker processes start with the first put.

        Args:
            directory: Where the store lies; made if missing, for its owner alone. All on one file system.
            archive_dir: Where ``put`` finds ``<name>.tar`` if it is given no archive: a file, or a symlink to one.
            budget_bytes: What the store may keep on disk, see ``usage``. A put that exceeds it forgets the least
                recently used images once its own is verified, as ``prune`` does. Where leases, of any process, keep
                the store above it, the store is pruned again when they end, until it is closed. None for no bound.
            budget_inodes: The same for files, directories and the like, of which many file systems have a fixed number.
            workers: Worker processes; by default as many as this process may use CPUs, and its cgroup has memory for.
            worker_memory_bytes: Private memory of a worker; a put that needs more fails with MemoryError.
            layer_time_limit: Seconds that it may take to unpack, hash or check a layer, or to find out what an archive
                holds, which includes inflating or copying it where it is compressed or comes through a pipe. A put that
                takes longer fails with WorkerTimeoutError; a check leaves the layer out. Removals have no limit.
            durable: Whether all that a put writes is synced before its future is ready. If not, a power loss may leave
                incomplete layers that nothing detects.
            limits: How much an archive may ask for.
            follow_links: Whether symbolic links in archives that are directories are followed, to any regular file that
                this user may read. Of an archive from elsewhere they should not be.
            pool: Runs the work instead of processes of the store's own; stores may share one. The caller closes it,
                after the store. The pool's own ``answers`` says what its workers may send back.
            on_event: Told of each ``Event``, one after the other, in a thread of the store; those of the last moment
                perhaps after ``close``. Slow ones hold nothing up, but events beyond the 10,000 that wait are dropped.

        Raises:
            InvalidInputError: A parameter is of another type, or a number is too small. Nothing was started.
        """
        root = parse_path("directory", directory).absolute()
        budget = Budget.of(budget_bytes, budget_inodes)
        options = PutOptions.of(
            archive_dir, budget, layer_time_limit, durable=durable, limits=limits, follow_links=follow_links
        )
        monitor, own_pool = Monitor(on_event), None
        if pool is None:
            own_pool = pool = start_workers(workers, worker_memory_bytes)
        require_type("pool", pool, WorkerPool, "a WorkerPool, or None")
        parts = StoreParts.start(root, pool, options, monitor)
        return cls(LocalStoreActor.start(parts, pool, options), parts, own_pool)

    def recover(self) -> Future[Recovery]:
        """Read what is on disk. Every other method does so first, and again if it failed.

        What processes that have ended left in staging/ and gc/ is deleted in the background.

        Returns:
            What was found. Images with missing layers are logged too.

        Raises:
            CheckpointError: What images there are cannot be read. Nothing is changed, and nothing else works.
            LocksUnsupportedError: The file system has no locks that hold between processes.
        """
        return ask(self._actor, LocalStoreActor.recover)

    @overload
    def put(
        self,
        name: str,
        archive: str | Path | None = None,
        sandbox: str | Path | None = None,
        *,
        select: str | None = None,
        platform: str | None = None,
        progress: Listener | None = None,
        lease: Literal[False] = False,
    ) -> Future[ImageInfo]: ...
    @overload
    def put(
        self,
        name: str,
        archive: str | Path | None = None,
        sandbox: str | Path | None = None,
        *,
        select: str | None = None,
        platform: str | None = None,
        progress: Listener | None = None,
        lease: Literal[True],
    ) -> Future[LeasedImage]: ...
    @overload
    def put(
        self,
        name: str,
        archive: str | Path | None = None,
        sandbox: str | Path | None = None,
        *,
        select: str | None = None,
        platform: str | None = None,
        progress: Listener | None = None,
        lease: bool,
    ) -> Future[ImageInfo] | Future[LeasedImage]: ...
    @in_future
    def put(
        self,
        name: str,
        archive: str | Path | None = None,
        sandbox: str | Path | None = None,
        *,
        select: str | None = None,
        platform: str | None = None,
        progress: Listener | None = None,
        lease: bool = False,
    ) -> Future[ImageInfo] | Future[LeasedImage]:
        """Put one image of an archive into the store, under ``name``.

        However it fails, nothing of the image is left but layers that are whole.

        Args:
            name: The image's name.
            archive: What ``docker save`` wrote, or an OCI archive, either perhaps compressed as a whole or coming
                through a pipe; or a directory that is an OCI layout. By default ``<name>.tar`` in the store's
                ``archive_dir``.
            sandbox: Directory whose files ``stdout`` and ``stderr`` get the workers' messages; made if missing. It may
                be another user's; messages that cannot be written there safely are left out.
            select: Which image, where the archive holds several and none has this name: one of its names or tags,
                the digest of its config or manifest, or at least 12 hex digits of one.
            platform: Which of the images that share a name, ``os/architecture`` or ``os/architecture/variant``; an
                image for another is refused then. By default this machine's, or the only one that is there.
            progress: Told how far the put has come, in a thread of the store; an actor's ``defer`` serves too.
            lease: Whether to keep the image's layers from being removed, as for ``get``: without a gap after the put.

        Returns:
            The image. Every layer's DiffID was verified; all of it is durable. Calls for the same name and archive
            share the work, unless the archive was replaced or written to between them; calls that need the same layer
            share the work on that layer. A discard gives up this future alone. Discarding the last one stops the work;
            that future becomes discarded once nothing of the work is left, or ready if all had been stored by then.

        Raises:
            InvalidNameError: ``name`` is no image name.
            InvalidInputError: ``platform`` is no platform.
            AmbiguousImageError: It is not clear which image is meant.
            ArchiveError: The archive is malformed, hostile, past a limit or not supported; see its subclasses.
            ArchiveChangedError: It was replaced or written to before all of it was read.
            StackError: A hard link leads to no file of the layers below its own. The layers stay, the name does not.
            NoSpaceError: The disk is full, or would be.
            OverBudgetError: The image alone is larger than the budget. Nothing was forgotten for it.
            OSError: It cannot be read, or the disk failed.
            WorkerDiedError: A worker process was killed, twice.
        """
        refuse_path_as_name(name)
        how = PutArguments.of(archive, sandbox, select, platform)
        require_function("progress", progress)
        require_flag("lease", lease)
        if lease:
            return ask(self._actor, LocalStoreActor.put_leased, name, how, progress)
        return ask(self._actor, LocalStoreActor.put, name, how, progress)

    @in_future
    def load(
        self,
        archive: str | Path,
        sandbox: str | Path | None = None,
        *,
        select: str | None = None,
        platform: str | None = None,
        progress: Listener | None = None,
    ) -> Future[tuple[ImageInfo, ...]]:
        """Put every image of an archive under every name that it has there, as ``docker load`` does.

        An image without a name is put under the digest of its config, ``sha256:<hex>``, and found by that.
        Artifacts beside the images, such as signatures, are skipped. Arguments, results and errors are those of
        ``put``, for each name.

        Raises:
            AmbiguousImageError: An image has a name that is not valid. Nothing is put then.
        """
        how = PutArguments.of(parse_path("archive", archive), sandbox, select, platform)
        require_function("progress", progress)
        return ask(self._actor, LocalStoreActor.load, how, progress)

    def close(self) -> None:
        """Stop all work and wait for it; puts under way are discarded, and leave nothing behind. Idempotent.

        What was removed and is not deleted yet, see ``swept``, is deleted by the next store on this directory. In a
        forked child, which has no part in the work, this does nothing.
        """
        if not self._origin.is_here():
            return
        with ExitStack() as closing:  # the last one first, even if a step before it fails or is interrupted
            closing.callback(self._parts.monitor.close)
            closing.callback(self._parts.references.close)
            closing.callback(self._actor.stop, timeout=60)
            if self._own_pool is not None:
                closing.callback(self._own_pool.close)
            closing.callback(self._parts.close)
            ask(self._actor, LocalStoreActor.close).recover(lambda _: None).get(timeout=120)


class LocalStoreActor(StoreActor):
    """Owns the table of puts under way. Only its own thread touches it."""

    def __init__(self, parts: StoreParts, pool: WorkerPool, options: PutOptions) -> None:
        super().__init__()
        self._options = options
        self._paths = parts.paths
        self._layer_facts = parts.layer_facts
        self._references = parts.references
        self._layers = parts.layers
        self._collector = parts.collector
        self._monitor = parts.monitor
        self._pool = pool
        self._disk = disk(durable=options.durable)
        self._closed = False
        self._recovery: Future[Recovery] | None = None
        self._work = InFlight()  # puts that have not ended, discarded ones too
        # Short file operations only, in a thread: the worker processes may all be busy.
        self._executor = SerialExecutor("imagestore-local-store")
        self._listener_thread = SerialExecutor("imagestore-progress")
        self._puts = Puts(self._listener_thread)
        self._staging = Staging(self, parts.paths, self._executor, pool)
        self._room = Room(parts.paths, options.budget, parts.collector, self._executor)
        self._lease_taker = LeaseTaker(parts, self._executor)

    # -- what the handle offers

    def recover(self) -> Future[Recovery]:
        if self._recovery is None or self._recovery.is_failed():
            self._recovery = self.spawn(self._recover())
        return undiscardable(self._recovery)

    def put(self, name: str, how: PutArguments, listener: Listener | None) -> Future[ImageInfo]:
        return self._start(self._request(ImageName.parse(name), how), listener, self._put_one)

    async def put_leased(self, name: str, how: PutArguments, listener: Listener | None) -> LeasedImage:
        request = await self._request(ImageName.parse(name), how)
        put = self._join(request, listener, self._put_one)
        leased = self._puts.request_lease(request)
        try:
            await put
            return await leased
        except BaseException:
            leased.discard()
            leased.on_ready(LeasedImage.release)  # at once, or when it comes: nobody is left to have it
            raise

    def load(self, how: PutArguments, listener: Listener | None) -> Future[tuple[ImageInfo, ...]]:
        return self._start(self._request(None, how), listener, self._put)

    async def config(self, name: str) -> bytes:
        image = await self._references.get(name)
        return await self._executor.run(partial(read_config, self._paths), image)

    async def lease(self, name: str) -> LeasedImage:
        await self.recover()
        return await self._lease_taker.lease(name)

    async def take_over(self, token: str) -> LeasedImage:
        await self.recover()
        return await self._lease_taker.take_over(token)

    async def close(self) -> None:
        self._closed = True
        while any(self._work):
            self._work.discard()
            await self._work.ended()

    def on_stop(self) -> None:
        self._executor.close()
        self._listener_thread.close(wait=False)  # a listener may take its time

    # -- recover

    async def _recover(self) -> Recovery:
        images = await self._references.recover()
        incomplete = tuple(image.name for image in images if image.missing)
        return Recovery(len(images), incomplete, await self._collector.sweep())

    # -- put

    def _request(self, name: ImageName | None, how: PutArguments) -> Future[PutRequest]:
        """Find the archive, and identify it now: a put may only join puts of the same, unchanged one."""
        if self._closed:
            raise StoreClosedError
        platform = None if how.platform is None else Platform.parse(how.platform)
        begun = time.monotonic()
        found = self._executor.run(partial(tasks.find_archive, self._options.archive_dir, how.archive), name)
        found.on_failed(lambda error: self._note_failure(None if name is None else name.stored, error, begun))
        return self._work.add(found.then(lambda found: PutRequest(name, found, how.sandbox, how.select, platform)))

    def _start(
        self,
        requested: Future[PutRequest],
        listener: Listener | None,
        run: Callable[[PutUnderWay], Coroutine[Any, Any, T]],
    ) -> Future[T]:
        """Put what is requested, or join a put of the same."""

        def join(actor: LocalStoreActor, request: PutRequest) -> Future[T]:
            return actor._join(request, listener, run)

        return requested.then(defer(self.actor_ref, join))

    def _join(
        self, request: PutRequest, listener: Listener | None, run: Callable[[PutUnderWay], Coroutine[Any, Any, T]]
    ) -> Future[T]:
        if self._closed:
            raise StoreClosedError
        begun: list[PutUnderWay] = []

        def begin(put: PutUnderWay) -> Future[T]:
            begun.append(put)
            return self._work.add(self.spawn(run(put)))

        handle = self._puts.join(request, listener, begin)
        if not begun:
            self._monitor.note(events.PutJoined(request.shown_name))
        return handle

    async def _put_one(self, put: PutUnderWay) -> ImageInfo:
        return (await self._put(put))[0]

    async def _put(self, put: PutUnderWay) -> tuple[ImageInfo, ...]:
        try:
            return await self._put_planned(put)
        except Exception as error:
            self._note_failure(put.request.shown_name, error, put.begun)
            raise

    def _note_failure(self, name: str | None, error: BaseException, begun: float) -> None:
        is_discarded = isinstance(error, DiscardedError)
        self._monitor.note(events.PutFailed(name, str(error), is_discarded, time.monotonic() - begun))

    async def _put_planned(self, put: PutUnderWay) -> tuple[ImageInfo, ...]:
        """Put each planned image. A discard that comes once all of them are stored comes too late."""
        request, limits = put.request, self._options.limits
        planned: tuple[PlannedImage, ...] = ()
        stored: list[Future[tuple[DockerImage, ...]]] = []
        try:
            await self.recover()
            async with self._staging.lend() as staging:
                index = await self.untar_image(request, staging)
                planned = tasks.plan_put(index, request.name, request.select, limits)
                legacy = LegacyDiffIDs(self._layers)
                with self._hold_put_lease() as lease:
                    for each in planned:  # one after the other, so that images with layers in common read them once
                        stored.append(self.spawn(self.put_image(each, put, staging, lease, legacy)))
                        await stored[-1]
                    await self._room.keep_to_budget()
                    await self._lease_taker.grant(put.lease_requests, stored[0].get(timeout=0)[0])
        except DiscardedError:
            if not planned or len(stored) < len(planned) or not stored[-1].is_ready():
                raise
        finally:
            self._puts.end(put)
        images = [image for images in stored for image in images.get(timeout=0)]
        return await self._executor.run(self._layer_facts.locate_all, images)

    @contextmanager
    def _hold_put_lease(self) -> Iterator[PutLease]:
        """Lend the lease of a put, for all its images: a later one must not push out an earlier one."""
        lease = PutLease(self._paths)
        try:
            yield lease
        except BaseException:
            lease.release()
            self._collector.keep_to_budget()  # layers of the put that are whole already belong to no image
            raise
        lease.release()

    async def untar_image(self, request: PutRequest, staging: LockedDirectory) -> ArchiveIndex:
        """Find out what the archive holds."""
        archive, copy = request.archive, str(staging.path / "archive.tar")
        limits, follow_links = self._options.limits, self._options.follow_links
        how = request.sandbox, request.platform, limits, archive.identity, follow_links
        job = tasks.UntarImage(archive.path, copy, *how)
        # What came through a pipe cannot be read again.
        limit, retry = self._options.layer_time_limit, not archive.is_pipe
        begun = time.monotonic()
        index = await self._pool.run(tasks.untar_image, job, retry=retry, time_limit=limit, stop_file=f"{copy}.stop")
        self._monitor.note(events.ArchiveIndexed(archive.path, time.monotonic() - begun))
        return index

    async def put_image(
        self,
        planned: PlannedImage,
        put: PutUnderWay,
        staging: LockedDirectory,
        lease: PutLease,
        legacy: LegacyDiffIDs,
    ) -> tuple[DockerImage, ...]:
        """Put an image's layers, then its config, then its names: the last is what makes it exist.

        Returns:
            The image under each of its names. A discard that comes while the names are written comes too late.
        """
        config, diff_ids = planned.config, planned.diff_ids
        if diff_ids is None:
            diff_ids = await legacy.find(planned.layers)
            config = await self._executor.run(partial(tasks.legacy_config, config), diff_ids)
        layers, config_digest = dict(zip(diff_ids, planned.layers, strict=True)), sha256(config)
        put.feed.expect(planned.names, {diff_id: layer.size for diff_id, layer in layers.items()})
        await self._executor.run(partial(lease.need, diff_ids, config_digest), f"put of {planned.names[0]}")
        wanted = await self._layers.find_wanted(layers)
        await self._room.require(sum(layers[diff_id].least_bytes for diff_id in wanted))
        await self.put_layers(layers, wanted, put)
        if wanted and self._room.is_bounded:
            self._room.refuse_over_budget(await self._collector.weigh(diff_ids))
        await self._require_fit(diff_ids)
        layers_put = time.monotonic()
        await self._write_config(config, staging)
        # A put that starts from here on must not join this one: a removal may already have undone it.
        self._puts.forget(put)
        # commit point: the image exists once its names are in the journal, synced
        storing = undiscardable(self._references.put_all(planned.names, diff_ids, config_digest))
        with suppress(DiscardedError):
            await storing
        images, now = storing.get(timeout=0), time.monotonic()
        found, size_bytes = len(layers) - len(wanted), sum(layers[diff_id].size for diff_id in wanted)
        self._monitor.note(
            events.ImagePut(planned.names, len(layers), found, size_bytes, now - put.begun, now - layers_put)
        )
        return images

    async def put_layers(
        self, layers: Mapping[DiffID, LayerBlob], wanted: Collection[DiffID], put: PutUnderWay
    ) -> None:
        """Put those layers that are wanted, in parallel, the longest first; the others are in the store."""
        for diff_id in layers:
            if diff_id not in wanted:
                put.feed.complete(diff_id, None)
        # A layer that the archive does not hold comes first: it fails, unless another put brings it.
        order = [diff_id for diff_id in layers if diff_id in wanted]
        order.sort(key=lambda diff_id: (bool(layers[diff_id].absence), layers[diff_id].cost), reverse=True)
        sandbox = put.request.sandbox
        await gather([self._layers.put(diff_id, layers[diff_id], sandbox, put.feed) for diff_id in order])

    async def _require_fit(self, diff_ids: Iterable[DiffID]) -> None:
        """Refuse layers that do not fit together: hard links from one to those below it must lead to files there."""
        if await self._executor.run(self._layer_facts.have_lower_links, diff_ids):
            layers = tuple(str(self._paths.layer(diff_id)) for diff_id in diff_ids)
            limit = self._options.layer_time_limit
            await self._pool.run(tasks.check_stack, tasks.CheckStack(layers), retry=True, time_limit=limit)

    async def _write_config(self, config: bytes, staging: LockedDirectory) -> None:
        # For layers that were there: the process that put one may have died before it synced the layer's name.
        await self._executor.run(self._disk.sync_directory, self._paths.layers)
        write = partial(write_config, self._paths, disk=self._disk, aside=staging.path / "config")
        await self._executor.run(write, config)
