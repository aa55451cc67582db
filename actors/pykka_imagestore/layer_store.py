"""Layers on this machine, each put once: locked, staged, unpacked, verified, published.

Handle: LayerStore. Actor: LayerStoreActor.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/{local_puller,store}.cpp, ``extractLayer`` and
``moveLayer``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import pykka

from pykka_imagestore import events, tasks
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.layout import find_missing
from pykka_imagestore.durable.locks import FileLock, acquire, layer_byte
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.errors import ArchiveError, StoreClosedError
from pykka_imagestore.handle import Handle, StoreActor, ask, end
from pykka_imagestore.monitor import Monitor
from pykka_imagestore.runtime import (
    DiscardedError,
    Future,
    InFlight,
    Semaphore,
    SerialExecutor,
    SingleFlight,
    WorkerPool,
    defer,
    discard_all,
    run_blocking,
)
from pykka_imagestore.staging import Staging
from pykka_imagestore.text import plain

if TYPE_CHECKING:
    from pykka_imagestore.core.layer_blob import LayerBlob
    from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts


logger = logger_of(__name__)

MIN_HELPED_COST = 32 << 20  # bytes, see LayerBlob.cost: a cheaper layer is done before peers have come
MAX_WAITING_LAYERS = 14  # for a worker, or for another process that unpacks the same layer


class LayerListener(Protocol):
    """Learns how far layers have come. The thread of the layer store's actor calls it; it must not block or raise."""

    def advance(self, diff_id: DiffID, bytes_done: int, entries_done: int) -> None:
        """Note how much of a layer has been unpacked."""

    def complete(self, diff_id: DiffID, entries: int | None) -> None:
        """Note that a layer is in the store; ``entries`` is None if another process put it there."""


class LayerStore(Handle):
    """The layers of a store, by DiffID. The store's directory must have been made.

    Methods return at once; results, and errors, arrive through the future. Thread-safe.
    """

    def __init__(self, actor: pykka.ActorRef[LayerStoreActor]) -> None:
        self._actor = actor

    @classmethod
    def start(
        cls,
        paths: StorePaths,
        pool: WorkerPool,
        *,
        durable: bool = True,
        limits: Limits = DEFAULT_LIMITS,
        layer_time_limit: float | None = None,
        monitor: Monitor | None = None,
    ) -> LayerStore:
        """Start a layer store. No disk is read until the first call.

        Args:
            paths: The store.
            pool: Runs ``untar_layer``, ``hash_layer`` and ``help_unpack``. It stays the caller's to close.
            durable: Whether a layer is synced before its future is ready.
            limits: How much a layer may ask for.
            layer_time_limit: Seconds that it may take to unpack or hash a layer; None for any number.
            monitor: Told of each layer that was unpacked.
        """
        monitor = monitor or Monitor()
        return cls(
            LayerStoreActor.start(
                paths, pool, durable=durable, limits=limits, layer_time_limit=layer_time_limit, monitor=monitor
            )
        )

    def find_wanted(self, diff_ids: Iterable[DiffID]) -> Future[frozenset[DiffID]]:
        """Return those layers that ``put`` must be asked for: all others are in the store, whole.

        That stays true only while the caller holds a lease that needs these layers; otherwise a removal may take them
        at any time. A layer that is being put is returned even if it is visible already: it may not be durable yet.
        """
        return ask(self._actor, LayerStoreActor.find_wanted, tuple(diff_ids))

    def put(
        self, diff_id: DiffID, layer: LayerBlob, sandbox: str | None = None, listener: LayerListener | None = None
    ) -> Future[None]:
        """Put a layer into the store, unless it is there.

        However it fails, nothing of the layer is left.

        Args:
            diff_id: What the layer must turn out to be.
            layer: Where its bytes lie.
            sandbox: Directory for what the worker has to say; None for nowhere.
            listener: Learns how far the layer has come, whichever call unpacks it.

        Returns:
            Ready once the layer is in the store, verified and durable. Calls for one layer share the work, also with
            other processes. If it fails for the call that began it, the others try their own copy. A discard gives up
            this future alone; discarding the last one stops the work, and that future is discarded once nothing of the
            work is left.

        Raises:
            ArchiveError: The archive does not hold the layer, or the layer is malformed, hostile, past a limit or not
                the one expected; see its subclasses.
            NoSpaceError: The disk is full, or would be.
            OSError: The disk failed.
            WorkerDiedError: A worker process was killed, twice.
            StoreClosedError: The layer store was closed before the layer was in it.
        """
        return ask(self._actor, LayerStoreActor.put, diff_id, layer, sandbox, listener)

    def hash_layer(self, layer: LayerBlob) -> Future[DiffID]:
        """Compute a layer's DiffID without unpacking it, where nothing claims one.

        Raises:
            LayerError: It cannot be inflated, or to more than the limits allow.
            ArchiveChangedError: Its file was replaced or written to since it was indexed.
        """
        return ask(self._actor, LayerStoreActor.hash_layer, layer)

    def close(self) -> None:
        """Stop all work and wait for it; nothing unfinished is left. Idempotent."""
        end(self._actor, LayerStoreActor.close)


class LayerStoreActor(StoreActor):
    """Owns the table of layers under way. Only its own thread touches it."""

    def __init__(
        self,
        paths: StorePaths,
        pool: WorkerPool,
        *,
        durable: bool,
        limits: Limits,
        layer_time_limit: float | None,
        monitor: Monitor,
    ) -> None:
        super().__init__()
        self._monitor = monitor
        self._paths = paths
        self._pool = pool
        self._durable = durable
        self._limits = limits
        self._layer_time_limit = layer_time_limit
        self._closed = False
        self._flights: SingleFlight[DiffID, None] = SingleFlight()
        self._listeners: dict[DiffID, list[LayerListener]] = {}
        self._slots = Semaphore(pool.workers + MAX_WAITING_LAYERS)
        self._work = InFlight()  # layers that are unpacked or hashed; discarded ones until their work has ended
        # Short file operations only, in a thread: the worker processes may all be busy.
        self._executor = SerialExecutor("imagestore-layer-store")
        # Waits for the disk, which takes no CPU, while the worker processes go on with other layers.
        self._publisher = WorkerPool(1, threads=True, name="imagestore-publisher")
        self._staging = Staging(self, paths, self._executor, pool)

    # -- what the handle offers

    async def find_wanted(self, diff_ids: tuple[DiffID, ...]) -> frozenset[DiffID]:
        missing = await self._find_missing(diff_ids)
        return missing.union(diff_id for diff_id in diff_ids if diff_id in self._flights)

    async def put(self, diff_id: DiffID, layer: LayerBlob, sandbox: str | None, listener: LayerListener | None) -> None:
        with self._listening(diff_id, listener):
            await self._join_or_unpack(diff_id, layer, sandbox)

    def hash_layer(self, layer: LayerBlob) -> Future[DiffID]:
        if self._closed:
            raise StoreClosedError
        hash_it = partial(tasks.hash_layer, limits=self._limits)
        return self._work.add(self._pool.run(hash_it, layer, retry=True, time_limit=self._layer_time_limit))

    async def close(self) -> None:
        self._closed = True
        while any(self._work):
            self._work.discard()
            await self._work.ended()

    def on_stop(self) -> None:
        self._executor.close()
        self._publisher.close()

    # -- a layer, step by step

    async def _join_or_unpack(self, diff_id: DiffID, layer: LayerBlob, sandbox: str | None) -> None:
        """Join the work on a layer until the layer is in the store; begin the work if there is none."""
        mine: list[Future[None]] = []

        def start() -> Future[None]:
            if self._closed:
                raise StoreClosedError
            mine.append(self._work.add(self.spawn(self._unpack(diff_id, layer, sandbox))))
            return mine[0]

        while True:
            try:
                await self._join(diff_id, start)
            except DiscardedError:
                raise
            except Exception:
                if mine or self._closed:
                    raise
                logger.info("%s failed from another archive; trying this one", diff_id)
                if not await self._find_missing((diff_id,)):  # another process has put it
                    return self._tell_complete(diff_id, None)
            else:
                if mine or not await self._find_missing((diff_id,)):
                    return None

    async def _join(self, diff_id: DiffID, start: Callable[[], Future[None]]) -> None:
        """Join the work on a layer; StoreClosedError where ``close`` stops it."""
        joined = self._flights.join(diff_id, start)
        try:
            await joined
        except DiscardedError as error:
            if self._closed and not joined.has_discard():
                raise StoreClosedError from error
            raise

    async def _unpack(self, diff_id: DiffID, layer: LayerBlob, sandbox: str | None) -> None:
        if layer.absence:
            if not await self._find_missing((diff_id,)):  # another process may have put it since it was wanted
                return self._tell_complete(diff_id, None)
            reason = f"its blob {plain(layer.name)} {layer.absence}, and the store does not have it"
            raise ArchiveError(layer.origin, reason)
        async with self._slots.held():  # each takes open files, and other processes may unpack those that wait
            lock = await self._lock_layer(diff_id)
            try:
                entries = await self._unpack_locked(diff_id, layer, sandbox)
            finally:
                lock.release()
        return self._tell_complete(diff_id, entries)

    async def _lock_layer(self, diff_id: DiffID) -> FileLock:
        """Be the only one, of all processes, to unpack a layer."""
        take = partial(acquire, self._paths.layers_lock, layer_byte(diff_id))
        try:
            return await self._executor.run(lambda wait: take(wait=wait), False)
        except BlockingIOError:
            return await run_blocking(take, undo=FileLock.release)

    async def _unpack_locked(self, diff_id: DiffID, layer: LayerBlob, sandbox: str | None) -> int | None:
        """Unpack and publish; return how many entries the layer has, or None if another process has put it."""
        if not await self._find_missing((diff_id,)):
            return None
        async with self._staging.lend() as staging:
            staged = str(staging.path / "layer")
            begun = time.monotonic()
            counts = await self.untar_layer(diff_id, layer, staged, sandbox)
            unpacked = time.monotonic()
            await self.move_layer(staged, diff_id, staging.opened)
        seconds = unpacked - begun, time.monotonic() - unpacked
        self._monitor.note(events.LayerUnpacked(diff_id, counts.bytes_read, counts.size_bytes, *seconds))
        return counts.entries

    async def untar_layer(self, diff_id: DiffID, layer: LayerBlob, staged: str, sandbox: str | None) -> LayerCounts:
        """Unpack a layer into staging, verified; an expensive one with the help of idle workers."""
        if layer.cost < MIN_HELPED_COST or self._pool.workers == 1:
            return await self._untar_layer(tasks.UntarLayer(layer, staged, diff_id, sandbox, self._limits), diff_id)
        call = _HelpCall(self._pool, f"{staged}.helpers", self._layer_time_limit)
        try:
            request = tasks.UntarLayer(layer, staged, diff_id, sandbox, self._limits, peers_at=call.address)
            return await self._untar_layer(request, diff_id, call)
        except Exception as error:
            await call.cancel()
            if not isinstance(error, tasks.PeerLostError):
                raise
            logger.warning("%s; unpacking %s anew", error, diff_id)
        finally:
            call.close()
        return await self._untar_layer(tasks.UntarLayer(layer, staged, diff_id, sandbox, self._limits), diff_id)

    def _untar_layer(
        self, request: tasks.UntarLayer, diff_id: DiffID, call: _HelpCall | None = None
    ) -> Future[LayerCounts]:
        tell = defer(self.actor_ref, LayerStoreActor._tell_counts)
        return self._pool.run(
            tasks.untar_layer,
            request,
            retry=True,
            time_limit=self._layer_time_limit,
            stop_file=f"{request.target}.stop",
            on_report=lambda counts: tell(diff_id, counts, call),
        )

    async def move_layer(self, staged: str, diff_id: DiffID, opened: int | None) -> None:
        """Make a staged layer durable and visible."""
        move = tasks.MoveLayer(staged, str(self._paths.layer(diff_id)), self._durable, opened)
        await self._publisher.run(tasks.move_layer, move)

    def _find_missing(self, diff_ids: Collection[DiffID]) -> Future[frozenset[DiffID]]:
        return self._executor.run(partial(find_missing, self._paths), diff_ids)

    # -- progress

    @contextmanager
    def _listening(self, diff_id: DiffID, listener: LayerListener | None) -> Iterator[None]:
        if listener is None:
            yield
            return
        listeners = self._listeners.setdefault(diff_id, [])
        listeners.append(listener)
        try:
            yield
        finally:
            listeners.remove(listener)
            if not listeners:
                del self._listeners[diff_id]

    def _tell_counts(self, diff_id: DiffID, counts: LayerCounts, call: _HelpCall | None) -> None:
        # Not before it is under way: a peer stays to the end, and other layers of the put want a worker each.
        if counts.entries and call is not None:
            call.make()
        for listener in self._listeners.get(diff_id, ()):
            listener.advance(diff_id, counts.bytes_read, counts.entries)

    def _tell_complete(self, diff_id: DiffID, entries: int | None) -> None:
        for listener in self._listeners.get(diff_id, ()):
            listener.complete(diff_id, entries)


class _HelpCall:
    """A call for idle workers to help with one layer, made once at most.

    Attributes:
        address: Where the worker that unpacks the layer waits for them.
    """

    def __init__(self, pool: WorkerPool, address: str, time_limit: float | None) -> None:
        self.address = address
        self._pool = pool
        self._time_limit = time_limit
        self._is_open = True
        self._peers: list[Future[None]] = []

    def make(self) -> None:
        """Call, unless that has been done, or the layer is done."""
        if self._is_open and not self._peers:
            self._peers = [
                self._pool.run(
                    tasks.help_unpack, tasks.HelpUnpack(self.address), idle=True, time_limit=self._time_limit
                )
                for _ in range(min(self._pool.workers - 1, tasks.MAX_PEERS))
            ]

    def close(self) -> None:
        """Call nobody from now on."""
        self._is_open = False

    async def cancel(self) -> None:
        """Stop the peers; return when none is at work in the layer's directory any more."""
        self.close()
        await discard_all(self._peers)
