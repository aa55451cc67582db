"""Images on this machine: put from archives, unpacked layer by layer in worker processes, found by name.

Handle: LocalStore. Actor: LocalStoreActor.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/{store,local_puller}.hpp.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, cast, overload

import pykka

from pykka_imagestore.checker import Checker, CheckListener
from pykka_imagestore.collector import Collector
from pykka_imagestore.core.archive import ArchiveIndex
from pykka_imagestore.core.check_report import CheckReport
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.formats.docker_archive import legacy_config
from pykka_imagestore.core.image import DockerImage, ImageInfo, Recovery
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.layer_blob import LayerBlob, Place
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.plan_prune import Budget, Pruned, PruneOptions, Size, Usage
from pykka_imagestore.core.plan_put import PlannedImage, plan_put
from pykka_imagestore.core.platform import Platform
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.inventory import note_use
from pykka_imagestore.durable.layout import find_missing, remove_staging, write_config
from pykka_imagestore.durable.leases import HeldLease, PutLease, lease_image, take_over
from pykka_imagestore.durable.locked_directory import LockedDirectory
from pykka_imagestore.durable.locks import FileLock, acquire, layer_byte
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.errors import (
    ArchiveError,
    InvalidInputError,
    NoSpaceError,
    NotFoundError,
    OverBudgetError,
    StoreClosedError,
    StoreError,
)
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.answers import ANSWERS
from pykka_imagestore.jobs.find_archive import FoundArchive, find_archive
from pykka_imagestore.jobs.move_layer import MoveLayer, move_layer
from pykka_imagestore.jobs.unpack.leader import MAX_HELPERS, HelperLostError, HelpUnpack, help_unpack
from pykka_imagestore.jobs.unpack.limiter import require_space
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
from pykka_imagestore.jobs.untar_layer import LayerCounts, UntarLayer, hash_layer, untar_layer
from pykka_imagestore.leased_image import LeasedImage
from pykka_imagestore.progress import Listener, ProgressFeed
from pykka_imagestore.reference_store import ReferenceStore
from pykka_imagestore.runtime import (
    Actor,
    DiscardedError,
    Future,
    InFlight,
    Promise,
    Semaphore,
    SerialExecutor,
    SingleFlight,
    WorkerPool,
    defer,
    discard_all,
    dispatch,
    failed,
    gather,
    run_blocking,
    undiscardable,
    usable_cpus,
    usable_memory,
)
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.text import plain

logger = logger_of(__name__)

P = ParamSpec("P")
T = TypeVar("T")

WORTH_HELP = 32 << 20  # bytes of cost, see LayerBlob: below it, a layer is done before help has come
LAYERS_THAT_WAIT = 14  # for a worker, or for another process that unpacks the same
WORKER_BYTES = 128 << 20  # no layer makes a worker take more


class LocalStore(Uncopyable):
    """Images on this machine, by name.

    Any number of stores, in any number of processes, may share a directory on a local file system: each sees at once
    what the others put, and a layer is unpacked once.

    Methods return at once; results, and errors, arrive through the future. Thread-safe. Names are taken in any
    spelling: ``ubuntu`` and ``docker.io/library/ubuntu:latest`` are one image. ``close()``, or leaving the ``with``
    block, stops all work and the worker processes.
    """

    instead = "start one in each process, on the same directory"

    def __init__(
        self,
        actor: pykka.ActorRef[LocalStoreActor],
        paths: StorePaths,
        references: ReferenceStore,
        collector: Collector,
        checker: Checker,
        own_pool: WorkerPool | None,
    ) -> None:
        self._origin = Origin()
        self._actor = actor
        self._paths = paths
        self._references = references
        self._collector = collector
        self._checker = checker
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
        pool: WorkerPool | None = None,
    ) -> LocalStore:
        """Start a store. No disk is read until it is first needed; worker processes start with the first put.

        Args:
            directory: Where the store lies; made if missing, for its owner alone. All on one file system.
            archive_dir: Where ``put`` finds ``<name>.tar`` if it is given no archive: a file, or a symlink to one.
            budget_bytes: What the store may keep on disk, see ``usage``. A put that brings it above forgets the least
                recently used images once its own is verified, as ``prune`` does. Where leases keep it above, it is
                pruned again when they end, whoever has them, until the store is closed. None for as much as there is.
            budget_inodes: The same for files, directories and the like, of which many file systems have a fixed number.
            workers: Worker processes; by default as many as this process may use CPUs, and its cgroup has memory for.
            worker_memory_bytes: Private memory of a worker; a put that needs more fails with MemoryError.
            layer_time_limit: Seconds that it may take to unpack a layer, to hash or check one, or to find out what an
                archive holds, inflating or copying it where it is compressed or comes through a pipe. A put that needs
                more fails with WorkerTimeoutError; a layer that does is not checked. Removals take their time.
            durable: Whether all that a put writes is synced before its future is ready. Without, a power loss may
                leave layers in part, and nothing tells.
            limits: How much an archive may ask for.
            pool: Runs the work instead of own processes; stores may share one. It stays the caller's to close, after
                the store. What its workers send back is believed as that pool was told to.
        """
        own_pool = None
        if pool is None:
            own_pool = pool = WorkerPool(
                workers or _default_workers(),
                name="imagestore",
                memory_limit_bytes=worker_memory_bytes,
                answers=ANSWERS,
            )
        paths = StorePaths(Path(directory).absolute())
        references = ReferenceStore.start(paths.root, durable=durable)
        archives = _absolute(archive_dir)
        budget = Budget(budget_bytes, budget_inodes)
        collector = Collector.start(paths, references, pool, durable=durable, budget=budget)
        checker = Checker.start(paths, references, collector, pool, limits, layer_time_limit)
        options = PutOptions(archives, budget, layer_time_limit, durable, limits)
        actor = LocalStoreActor.start(paths, references, collector, pool, options)
        return cls(actor, paths, references, collector, checker, own_pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.close()

    def recover(self) -> Future[Recovery]:
        """Read what is on disk; done by itself before anything else, and again after it failed.

        What processes that are gone left in staging/ and gc/ is deleted, behind.

        Returns:
            What was found. Images with missing layers are logged too.

        Raises:
            CheckpointError: What images there are cannot be read. Nothing is changed, and nothing else works.
            LocksUnsupportedError: The file system has no locks that hold between processes.
        """
        return self._ask(LocalStoreActor.recover)

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
            sandbox: Directory whose files ``stdout`` and ``stderr`` get what the workers say; made if missing. It may
                be another user's; what cannot be written there, or not safely, is left out.
            select: Which image, where the archive holds several and none has this name: one of its names or tags,
                the digest of its config or manifest, or at least 12 hex digits of one.
            platform: Which of the images that share a name, ``os/architecture`` or ``os/architecture/variant``; an
                image for another is refused then. By default this machine's, or the only one that is there.
            progress: Told how far the put has come, in a thread of the store; an actor's ``defer`` serves too.
            lease: Whether to keep its layers from being removed, as for ``get``: from the put on, without a gap.

        Returns:
            The image. Every layer's DiffID was verified; all of it is durable. Calls for the same name and archive
            share the work, unless the archive was replaced or written to between them; and calls that need the same
            layer that layer. A discard gives up this future alone; the
            last one to be given up stops the work, and is discarded when nothing of it is left; or ready, if it
            came when all was stored.

        Raises:
            InvalidNameError: ``name`` is no image name.
            InvalidInputError: ``platform`` is no platform.
            AmbiguousImageError: It cannot be told which image is meant.
            ArchiveError: The archive is malformed, hostile, past a limit or not supported; see its subclasses.
            ArchiveChangedError: It was replaced or written to before all of it was read.
            NoSpaceError: The disk is full, or would be.
            OverBudgetError: The image alone is larger than the budget. Nothing was forgotten for it.
            OSError: It cannot be read, or the disk failed.
            WorkerDiedError: A worker process was killed, twice.
        """
        request = (name, _absolute(archive), _absolute(sandbox), select, platform, progress)
        if lease:
            return self._ask(LocalStoreActor.put_leased, *request)
        return self._ask(LocalStoreActor.put, *request)

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

        Artifacts beside the images, signatures and the like, are passed over. What it takes, returns and raises is
        what ``put`` does, for each name.

        Raises:
            AmbiguousImageError: An image has no name, or none that is valid. Nothing is put then.
        """
        return self._ask(LocalStoreActor.load, _absolute(archive), _absolute(sandbox), select, platform, progress)

    @overload
    def get(self, name: str, *, lease: Literal[False] = False) -> Future[ImageInfo]: ...
    @overload
    def get(self, name: str, *, lease: Literal[True]) -> Future[LeasedImage]: ...
    @overload
    def get(self, name: str, *, lease: bool) -> Future[ImageInfo] | Future[LeasedImage]: ...
    def get(self, name: str, *, lease: bool = False) -> Future[ImageInfo] | Future[LeasedImage]:
        """Return an image that is in the store; it counts as used now.

        Args:
            name: The image's name.
            lease: Whether to keep its layers from being removed, by whichever process, until the lease is released or
                this process ends. Without, they may go at any time.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: It is not there; ImageIncompleteError if some of its layers are not.
        """
        if lease:
            return self._ask(LocalStoreActor.lease, name)
        return self._references.get(name).then(self._paths.locate).repair(_say_if_closed)

    def take_over(self, token: str) -> Future[LeasedImage]:
        """Lease the image that a lease of another process, or of this one, is of, while that is held.

        Args:
            token: The ``token`` of that LeasedImage, whose store is on this directory. Whoever has it may release it
                once this future is ready, and no sooner. It can be taken over any number of times until then.

        Returns:
            A lease of this process' own. The image is what was leased, even if its name has gone meanwhile or shows
            another one.

        Raises:
            InvalidInputError: ``token`` is no token of a lease.
            LeaseEndedError: That lease is not held any more.
        """
        return self._ask(LocalStoreActor.take_over, token)

    def list(self) -> Future[tuple[ImageInfo, ...]]:
        """Return all images, by name, incomplete ones too."""
        images = self._references.list()
        return images.then(self._paths.locate_all).repair(_say_if_closed)

    def config(self, name: str) -> Future[bytes]:
        """Return an image's config, JSON, byte for byte as the archive had it; fails as ``get`` does."""
        return self._ask(LocalStoreActor.config, name)

    def remove(self, name: str) -> Future[ImageInfo]:
        """Forget an image; delete behind the layers that no other image here has and nobody needs.

        Returns:
            What was forgotten; its layers may be gone. Durable like ``put``.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: It is not there.
        """
        # Once the name is gone, its layers must go too, whoever loses interest.
        return undiscardable(self._collector.remove(name).then(self._paths.locate).repair(_say_if_closed))

    def prune(
        self,
        *,
        keep: Iterable[str] = (),
        unused_for: float | None = None,
        budget_bytes: int | None = None,
        budget_inodes: int | None = None,
        dry_run: bool = False,
    ) -> Future[Pruned]:
        """Forget images, and delete behind the layers that no image has and nobody needs. Beside puts and gets.

        Without ``unused_for`` and a budget no image is forgotten: what goes is left over from puts that failed or
        replaced an image.

        Args:
            keep: Names of images that stay.
            unused_for: Forget what nobody has put or got for so many seconds.
            budget_bytes: Forget the least recently used images until what is kept takes no more on disk than this; but
                none whose layers stay anyway, unless it takes that, too. 0 forgets all that may be forgotten.
            budget_inodes: The same for files, directories and the like.
            dry_run: Change nothing; only tell what would go.

        Returns:
            What was forgotten and taken out. Its names are gone, and its bytes go. What is leased, being put, or to be
            kept stays; where that alone is over the budget, ``is_out_of_reach``, and no image is forgotten for it.

        Raises:
            InvalidInputError: A name in ``keep`` is no image name, or a number is negative.
        """
        try:
            options = PruneOptions.of(keep, unused_for, budget_bytes, budget_inodes, dry_run=dry_run)
        except InvalidInputError as error:
            return failed(error)
        return undiscardable(self._collector.prune(options).repair(_say_if_closed))

    def usage(self) -> Future[Usage]:
        """Return what each image and layer costs on disk, shared and alone; and who has leases."""
        return self._collector.usage().repair(_say_if_closed)

    def check(self, *, deep: bool = False, progress: CheckListener | None = None) -> Future[CheckReport]:
        """Look whether what is stored is what it must be; nothing is changed.

        Args:
            deep: Whether to read every byte: each layer's tar is put together again, and its DiffID computed anew. Else
                only that the parts are there, and the configs.
            progress: Told how far it has come, in a thread of the store; it must not block.
        """
        return self._checker.check(deep=deep, listener=progress).repair(_say_if_closed)

    def repair(self, *, deep: bool = False, progress: CheckListener | None = None) -> Future[CheckReport]:
        """Check, and take out the layers and configs that are damaged; the next put of their images brings them back.

        Those that somebody needs just now stay, and the report's ``taken_out`` does not have them. It takes what
        ``check`` takes.
        """
        return self._checker.repair(deep=deep, listener=progress).repair(_say_if_closed)

    def swept(self) -> Future[None]:
        """Return when the files of all that was removed here are deleted."""
        return self._collector.swept().repair(_say_if_closed)

    def close(self) -> None:
        """Stop all work and wait for it; puts under way are discarded, and leave nothing behind. Idempotent.

        What was removed and is not deleted by now, see ``swept``, is deleted by the next store on this directory. In a
        forked child, which has no part in the work, nothing is done.
        """
        if not self._origin.is_here():
            return
        try:
            self._ask(LocalStoreActor.close).recover(lambda _: None).get(timeout=120)
            self._checker.close()
            self._collector.close()
        finally:
            if self._own_pool is not None:
                self._own_pool.close()
            self._actor.stop(timeout=60)
            self._references.close()

    def _ask(
        self,
        method: Callable[Concatenate[LocalStoreActor, P], Coroutine[Any, Any, T] | Future[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[T]:
        answer = cast("Future[T]", dispatch(self._actor, method, *args, **kwargs))
        return answer.repair(_say_if_closed)


@dataclass(frozen=True, slots=True)
class PutRequest:
    """What a put was asked for.

    Attributes:
        name: None for each image under all its own names.
        archive: Which one, as it was then: whoever asks after it was replaced asks for something else.
    """

    name: ImageName | None
    archive: FoundArchive
    sandbox: str | None
    select: str | None
    platform: Platform | None

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two puts one."""
        name = None if self.name is None else self.name.key
        return (name, self.archive, self.sandbox, self.select, self.platform)


@dataclass(frozen=True, slots=True)
class PutOptions:
    """How a store puts.

    Attributes:
        archive_dir: Where archives are found by name; None for nowhere.
        budget: What all of the store may take on disk.
        layer_time_limit: Seconds that a layer, or an archive's index, may take a worker; None for any number.
        durable: Whether all is synced.
        limits: How much an archive may ask for.
    """

    archive_dir: str | None
    budget: Budget
    layer_time_limit: float | None
    durable: bool
    limits: Limits


class _PutAtWork:
    """A put that has not ended.

    Attributes:
        key: That of its request.
        feed: Who is told how far it has come.
        wishes: Those who want a lease of the image.
    """

    def __init__(self, key: object, feed: ProgressFeed) -> None:
        self.key, self.feed = key, feed
        self.wishes: list[Promise[LeasedImage]] = []


class _HelpCall:
    """A call for idle workers to help with one layer, made once."""

    def __init__(self, pool: WorkerPool, address: str, time_limit: float | None) -> None:
        self.address = address
        self._pool = pool
        self._time_limit = time_limit
        self._helpers: list[Future[None]] = []

    def make(self) -> None:
        """Call, unless that has been done."""
        if not self._helpers:
            self._helpers = [
                self._pool.run(help_unpack, HelpUnpack(self.address), idle=True, time_limit=self._time_limit)
                for _ in range(_most_helpers(self._pool))
            ]

    async def cancel(self) -> None:
        """Stop who came; return when none is at work in the layer's directory any more."""
        await discard_all(self._helpers)


class LocalStoreActor(Actor):
    """Owns the tables of puts and layers in flight. Only its own thread touches them."""

    def __init__(
        self,
        paths: StorePaths,
        references: ReferenceStore,
        collector: Collector,
        pool: WorkerPool,
        options: PutOptions,
    ) -> None:
        super().__init__()
        self._options = options
        self._limits = options.limits
        self._paths = paths
        self._references = references
        self._collector = collector
        self._pool = pool
        self._closed = False
        self._recovery: Future[Recovery] | None = None
        self._puts: SingleFlight[object, Any] = SingleFlight()
        self._layers: SingleFlight[DiffID, None] = SingleFlight()
        self._calls: dict[DiffID, _HelpCall] = {}
        self._at_work: list[_PutAtWork] = []
        self._places = Semaphore(pool.workers + LAYERS_THAT_WAIT)
        self._work = InFlight()  # puts and layers that have not ended, discarded ones too
        self._executor = SerialExecutor(
            "local-store"
        )  # short file operations only: the worker processes may all be busy
        # Waits for the disk, which takes no CPU, while the worker processes go on with other layers.
        self._publisher = WorkerPool(1, threads=True, name="imagestore-publisher")
        self._listener_thread = SerialExecutor("progress")

    # -- what the handle offers

    def recover(self) -> Future[Recovery]:
        if self._recovery is None or self._recovery.is_failed():
            self._recovery = self.spawn(self._recover())
        return undiscardable(self._recovery)

    def put(
        self,
        name: str,
        archive: str | None,
        sandbox: str | None,
        select: str | None,
        platform: str | None,
        listener: Listener | None,
    ) -> Future[ImageInfo]:
        requested = self._request(ImageName.parse(name), archive, sandbox, select, platform)
        return self._start(requested, listener, self._put_one)

    async def put_leased(
        self,
        name: str,
        archive: str | None,
        sandbox: str | None,
        select: str | None,
        platform: str | None,
        listener: Listener | None,
    ) -> LeasedImage:
        request = await self._request(ImageName.parse(name), archive, sandbox, select, platform)
        put = self._join(request, listener, self._put_one)
        leased = self._wish_for_lease(request)
        try:
            await put
            return await leased
        except BaseException:
            leased.discard()
            leased.on_ready(LeasedImage.release)  # at once, or when it comes: nobody is left to have it
            raise

    def load(
        self,
        archive: str | None,
        sandbox: str | None,
        select: str | None,
        platform: str | None,
        listener: Listener | None,
    ) -> Future[tuple[ImageInfo, ...]]:
        return self._start(self._request(None, archive, sandbox, select, platform), listener, self._put)

    async def config(self, name: str) -> bytes:
        image = await self._references.get(name)
        if image.config_digest is None:
            raise NotFoundError(f"{image.name} with a config")
        try:
            return await self._executor.run(read_file, self._paths.config(image.config_digest))
        except FileNotFoundError:
            raise NotFoundError(f"{image.name} with a config") from None

    async def lease(self, name: str) -> LeasedImage:
        await self.recover()
        while True:
            image = await self._references.get(name)
            lease = await self._executor.run(partial(lease_image, self._paths), image)
            try:
                is_there = image == await self._references.get(name)  # and so its layers are there, and stay
            except BaseException:
                lease.release()  # the error's traceback would keep it
                raise
            if is_there:
                return self._leased(image, lease)
            lease.release()

    async def take_over(self, token: str) -> LeasedImage:
        await self.recover()
        return self._leased(*await self._executor.run(partial(take_over, self._paths), token))

    async def close(self) -> None:
        self._closed = True
        while any(self._work):
            self._work.discard()
            await self._work.ended()

    def on_stop(self) -> None:
        self._executor.close()
        self._publisher.close()
        self._listener_thread.close(wait=False)  # a listener may take its time

    # -- recover

    async def _recover(self) -> Recovery:
        images = await self._references.recover()
        incomplete = tuple(image.name for image in images if image.missing)
        return Recovery(len(images), incomplete, await self._collector.sweep())

    # -- put

    def _request(
        self,
        name: ImageName | None,
        archive: str | None,
        sandbox: str | None,
        select: str | None,
        platform: str | None,
    ) -> Future[PutRequest]:
        """Look at the archive that is to be put, now: a put joins those of the same one, and no other."""
        if self._closed:
            raise StoreClosedError
        wanted = _parse_platform(platform)
        found = self._executor.run(partial(find_archive, self._options.archive_dir, archive), name)
        return self._work.add(found.then(lambda found: PutRequest(name, found, sandbox, select, wanted)))

    def _start(
        self,
        requested: Future[PutRequest],
        listener: Listener | None,
        put: Callable[[PutRequest, _PutAtWork], Coroutine[Any, Any, T]],
    ) -> Future[T]:
        """Put what is requested, or join a put of the same."""

        def join(actor: LocalStoreActor, request: PutRequest) -> Future[T]:
            return actor._join(request, listener, put)

        return requested.then(defer(self.actor_ref, join))

    def _join(
        self,
        request: PutRequest,
        listener: Listener | None,
        put: Callable[[PutRequest, _PutAtWork], Coroutine[Any, Any, T]],
    ) -> Future[T]:
        if self._closed:
            raise StoreClosedError

        def start() -> Future[T]:
            work = _PutAtWork(request.key, ProgressFeed(self._listener_thread))
            self._at_work.append(work)
            return self._work.add(self.spawn(put(request, work)))

        handle = self._puts.join(request.key, start)
        if listener is not None:
            for work in self._joinable(request):
                work.feed.listen(listener)
        return handle

    def _wish_for_lease(self, request: PutRequest) -> Future[LeasedImage]:
        """Return a lease of the image that a put under way brings, when it is there."""
        promise: Promise[LeasedImage] = Promise()
        for work in self._joinable(request):
            work.wishes.append(promise)
        return promise.future

    def _joinable(self, request: PutRequest) -> list[_PutAtWork]:
        """Return the put that a request joins, if that has not done its work: of several, the one that came last."""
        return [work for work in self._at_work if work.key == request.key][-1:]

    async def _put_one(self, request: PutRequest, work: _PutAtWork) -> ImageInfo:
        return (await self._put(request, work))[0]

    async def _put(self, request: PutRequest, work: _PutAtWork) -> tuple[ImageInfo, ...]:
        planned: list[PlannedImage] = []
        stored: list[tuple[DockerImage, ...]] = []
        try:
            await self._put_images(request, work, planned, stored)
        except DiscardedError:
            if not planned or len(stored) < len(planned):
                raise
            # Else it came too late: all is stored.
        finally:
            self._at_work.remove(work)
        return self._paths.locate_all(image for images in stored for image in images)

    async def _put_images(
        self,
        request: PutRequest,
        work: _PutAtWork,
        planned: list[PlannedImage],
        stored: list[tuple[DockerImage, ...]],
    ) -> None:
        """Put what is planned; tell of each image, once it is in the store."""
        await self.recover()
        async with self._staged() as staging:
            index = await self.untar_image(request, staging)
            planned += plan_put(index, request.name, request.select, self._limits)
            hashed: dict[Place, DiffID] = {}
            lease = PutLease(self._paths)  # to the end: a later image is not to push out an earlier one
            try:
                for image in planned:  # one after the other, so that images with layers in common read them once
                    await self.put_image(image, request, staging, work.feed, lease, stored, hashed)
                await self._keep_to_budget()
                await self._grant(work.wishes, stored[0][0])
            except BaseException:
                lease.release()
                self._collector.keep_to_budget()  # of layers that are whole already, and nobody has
                raise
            lease.release()

    async def _grant(self, wishes: Iterable[Promise[LeasedImage]], image: DockerImage) -> None:
        """Give each who asked for one a lease of his own, while that of the put keeps the image."""
        wanted = [wish for wish in wishes if not wish.future.has_discard()]
        for wish in wanted:
            try:
                lease = await self._executor.run(partial(lease_image, self._paths), image)
            except (StoreError, OSError) as error:
                wish.fail(error)
            else:
                wish.set(self._leased(image, lease))

    async def untar_image(self, request: PutRequest, staging: LockedDirectory) -> ArchiveIndex:
        """Find out what the archive holds."""
        archive, copy = request.archive, str(staging.path / "archive.tar")
        job = UntarImage(archive.path, copy, request.sandbox, request.platform, self._limits, archive.identity)
        # What came through a pipe does not come again.
        limit, retry = self._options.layer_time_limit, not archive.is_pipe
        return await self._pool.run(untar_image, job, retry=retry, time_limit=limit, stop_file=f"{copy}.stop")

    async def put_image(
        self,
        planned: PlannedImage,
        request: PutRequest,
        staging: LockedDirectory,
        feed: ProgressFeed,
        lease: PutLease,
        stored: list[tuple[DockerImage, ...]],
        hashed: dict[Place, DiffID],
    ) -> None:
        """Put an image's layers, then its config, then its names: the last is what makes it exist."""
        image, config = planned.image, planned.image.config
        diff_ids = image.diff_ids
        if diff_ids is None:
            diff_ids = await self._hash_layers(image.layers, hashed)
            config = await self._executor.run(partial(legacy_config, image.config), diff_ids)
        layers = dict(zip(diff_ids, image.layers, strict=True))
        feed.expect(planned.names, {diff_id: layer.size for diff_id, layer in layers.items()})
        config_digest = sha256(config)
        await self._executor.run(partial(lease.need, diff_ids, config_digest), f"put of {planned.names[0]}")
        missing = await self._require_room(layers)
        await self.put_layers(layers, request.sandbox)
        if missing and self._options.budget:
            self._refuse_over_budget(await self._collector.weigh(diff_ids))
        on = disk(durable=self._options.durable)
        await self._executor.run(on.sync_directory, self._paths.layers)  # for layers whose writer died before it did
        write = partial(write_config, self._paths, disk=on, aside=staging.path / "config")
        await self._executor.run(write, config)
        # Whoever comes from now on may come after a removal that undoes this.
        self._puts.forget(request.key)
        storing = self._references.put_all(planned.names, diff_ids, config_digest)
        await undiscardable(storing.then(stored.append))

    async def _hash_layers(self, layers: Sequence[LayerBlob], hashed: dict[Place, DiffID]) -> tuple[DiffID, ...]:
        """Return the layers' DiffIDs; what lies in one place is read once, whatever it is called and however often."""
        new = {layer.place: layer for layer in layers if layer.place not in hashed}
        hash_it = partial(hash_layer, limits=self._limits)
        run = partial(self._pool.run, hash_it, retry=True, time_limit=self._options.layer_time_limit)
        found = await gather([run(layer) for layer in new.values()])
        hashed.update(zip(new, found, strict=True))
        return tuple(hashed[layer.place] for layer in layers)

    async def _require_room(self, layers: Mapping[DiffID, LayerBlob]) -> bool:
        """See that the layers that are missing fit, before any is unpacked; tell whether there are any.

        No image is forgotten for the budget yet: what an archive says of itself, nobody has verified. One is only if
        the disk has no room for both.
        """
        missing = await self._executor.run(partial(find_missing, self._paths), tuple(layers))
        needed = sum(layers[diff_id].least_bytes for diff_id in missing)
        self._refuse_over_budget(Size(needed))
        require = partial(require_space, str(self._paths.root))
        try:
            await self._executor.run(require, needed)
        except NoSpaceError:
            await self._collector.keep_to_budget(needed)
            await self._collector.sweep()
            await self._collector.swept()
            await self._executor.run(require, needed)
        return bool(missing)

    def _refuse_over_budget(self, size: Size) -> None:
        budget = self._options.budget
        if not budget.holds(size):
            raise OverBudgetError(str(self._paths.root), size.bytes, budget.bytes, size.inodes, budget.inodes)

    async def _keep_to_budget(self) -> None:
        if self._options.budget:
            await self._collector.keep_to_budget()

    async def put_layers(self, layers: Mapping[DiffID, LayerBlob], sandbox: str | None) -> None:
        """See to it that each layer is in the store; unpack those that are not, in parallel, the longest first."""
        missing = await self._executor.run(partial(find_missing, self._paths), tuple(layers))
        for diff_id in layers:
            if diff_id not in missing:
                self._tell_complete(diff_id, None)
        wanted = [diff_id for diff_id in layers if diff_id in missing or diff_id in self._layers]
        # What must fail, unless another put brings it, comes first.
        wanted.sort(key=lambda diff_id: (bool(layers[diff_id].absence), layers[diff_id].cost), reverse=True)
        await gather([self.spawn(self._put_layer(diff_id, layers[diff_id], sandbox)) for diff_id in wanted])

    async def untar_layer(self, request: UntarLayer, diff_id: DiffID) -> LayerCounts:
        """Unpack a layer into staging, verified; a big one with the help of workers that have nothing else to do."""
        if request.layer.cost < WORTH_HELP or self._pool.workers == 1:
            return await self._untar_layer(request, diff_id)
        call = _HelpCall(self._pool, f"{request.target}.helpers", self._options.layer_time_limit)
        self._calls[diff_id] = call
        try:
            return await self._untar_layer(replace(request, helpers_at=call.address), diff_id)
        except Exception as error:
            await call.cancel()
            if not isinstance(error, HelperLostError):
                raise
            logger.warning("%s; unpacking %s anew", error, diff_id)
        finally:
            del self._calls[diff_id]
        return await self._untar_layer(request, diff_id)

    def _untar_layer(self, request: UntarLayer, diff_id: DiffID) -> Future[LayerCounts]:
        tell = defer(self.actor_ref, LocalStoreActor._tell_counts)
        return self._pool.run(
            untar_layer,
            request,
            retry=True,
            time_limit=self._options.layer_time_limit,
            stop_file=f"{request.target}.stop",
            on_report=lambda counts: tell(diff_id, counts),
        )

    async def move_layer(self, staged: str, diff_id: DiffID, opened: int | None) -> None:
        """Make a staged layer durable and visible."""
        move = MoveLayer(staged, str(self._paths.layer(diff_id)), self._options.durable, opened)
        await self._publisher.run(move_layer, move)

    async def _put_layer(self, diff_id: DiffID, layer: LayerBlob, sandbox: str | None) -> None:
        """Join whatever is done with the layer now, until it is in the store; or put it there."""
        mine: list[Future[None]] = []

        def start() -> Future[None]:
            mine.append(self._work.add(self.spawn(self._unpack_layer(diff_id, layer, sandbox))))
            return mine[0]

        while not mine:
            try:
                await self._layers.join(diff_id, start)
            except DiscardedError:
                raise
            except Exception:
                if mine:
                    raise
                logger.info("%s failed from another archive; trying this one", diff_id)
            if not mine and not await self._executor.run(partial(find_missing, self._paths), (diff_id,)):
                return

    async def _unpack_layer(self, diff_id: DiffID, layer: LayerBlob, sandbox: str | None) -> None:
        if layer.absence:
            reason = f"its blob {plain(layer.name)} {layer.absence}, and the store does not have it"
            raise ArchiveError(layer.origin, reason)
        async with self._places.held():  # each takes open files, and other processes may unpack those that wait
            lock = await self._lock_layer(diff_id)
            try:
                if not await self._executor.run(partial(find_missing, self._paths), (diff_id,)):
                    return self._tell_complete(diff_id, None)  # another process put it meanwhile
                async with self._staged() as staging:
                    staged = str(staging.path / "layer")
                    counts = await self.untar_layer(UntarLayer(layer, staged, diff_id, sandbox, self._limits), diff_id)
                    await self.move_layer(staged, diff_id, staging.opened)
            finally:
                lock.release()
        self._tell_complete(diff_id, counts.entries)
        return None

    async def _lock_layer(self, diff_id: DiffID) -> FileLock:
        """Be the only one, of all processes, to unpack a layer."""
        take = partial(acquire, self._paths.layers_lock, layer_byte(diff_id))
        try:
            return await self._executor.run(lambda wait: take(wait=wait), False)
        except BlockingIOError:
            return await run_blocking(take, undo=FileLock.release)

    def _leased(self, image: DockerImage, lease: HeldLease) -> LeasedImage:
        return LeasedImage(self._paths.locate(image), lease, partial(note_use, self._paths, image))

    @asynccontextmanager
    async def _staged(self) -> AsyncIterator[LockedDirectory]:
        """Lend a staging directory, and remove it afterwards: by then the workers that wrote to it have ended."""
        staging = LockedDirectory.below(self._paths.staging, self._paths.guard(self._paths.staging))
        abandoned = False
        try:
            await self._executor.run(LockedDirectory.make, staging)
            yield staging
        except GeneratorExit:
            abandoned = True  # the actor has ended, and nothing can be awaited: the next store sweeps
            raise
        finally:
            try:
                if not abandoned:
                    await undiscardable(self.spawn(self._remove_staging(staging.path)))
            finally:
                staging.release()

    async def _remove_staging(self, path: Path) -> None:
        try:
            if not await self._executor.run(remove_staging, path):
                await self._pool.run(remove_tree, str(path), retry=True)
        except Exception as error:  # noqa: BLE001 - it must not hide how the put ended; the next store sweeps
            logger.warning("%s could not be removed: %s", path, error)

    def _tell_counts(self, diff_id: DiffID, counts: LayerCounts) -> None:
        # Not before it is under way: a helper stays to the end, and other layers of the put want a worker each.
        if counts.entries and diff_id in self._calls:
            self._calls[diff_id].make()
        for work in self._at_work:
            work.feed.advance(diff_id, counts.bytes_read, counts.entries)

    def _tell_complete(self, diff_id: DiffID, entries: int | None) -> None:
        for work in self._at_work:
            work.feed.complete(diff_id, entries)


def _default_workers() -> int:
    return max(1, min(usable_cpus(), usable_memory() // WORKER_BYTES))


def _most_helpers(pool: WorkerPool) -> int:
    return min(pool.workers - 1, MAX_HELPERS)


def _say_if_closed(answer: Future[T]) -> Future[T]:
    if isinstance(answer.error(), pykka.ActorDeadError):
        raise StoreClosedError from answer.error()
    return answer


def _parse_platform(text: str | None) -> Platform | None:
    return None if text is None else Platform.parse(text)


def _absolute(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())
