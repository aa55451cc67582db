"""The worker processes: Pebble's ProcessPool, one of a single process for each worker.

One process a pool, because then a worker that dies, or is killed to stop a task, takes nothing else along, and
Pebble's ``join`` says for certain that it has ended. Each worker has a thread here that waits for its task to end or
to be stopped, whichever comes first. Pebble itself looks after its processes ten times a second while they live.
"""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
import pickle
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import pebble

from pykka_imagestore.runtime.errors import PoolClosedError, WorkerDiedError, WorkerTimeoutError
from pykka_imagestore.runtime.fork_server import WorkerContext
from pykka_imagestore.runtime.future import Promise
from pykka_imagestore.runtime.worker import WorkerOptions, initialize, run_pickled

logger = logging.getLogger(__name__)

MOST_STARTS = 3  # how often a task is handed out if its worker turns out dead before taking it


@dataclass(slots=True, eq=False)
class Task:
    """A function to run, and whom to tell."""

    number: int
    function: Callable[[Any], Any]
    argument: Any
    retry: bool = False
    time_limit: float | None = None
    on_report: Callable[[Any], object] | None = None
    promise: Promise[Any] = field(default_factory=Promise)
    outcomes: queue.SimpleQueue[concurrent.futures.Future[bytes] | None] = field(default_factory=queue.SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _taken: bool = False

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__qualname__", repr(self.function))

    def take(self) -> bool:
        """Claim the task for a worker; False if it was discarded while it waited."""
        with self._lock:
            self._taken = self.promise.future.is_pending()
            return self._taken

    def stop(self) -> None:
        """Have the task's worker stop it; a task that still waits is discarded at once."""
        with self._lock:
            if self._taken:
                self.outcomes.put(None)
                return
        self.promise.discard()


class ProcessEngine:
    """Runs tasks in worker processes, which start when first needed."""

    def __init__(self, workers: int, options: WorkerOptions, preload: Sequence[str]) -> None:
        self._limit = workers
        self._options = options
        self._context = WorkerContext(["pykka_imagestore.runtime.worker", *preload])
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._workers: list[_Worker] = []
        self._reports = _Reports()

    def submit(self, task: Task) -> None:
        """Queue a task, and start another worker if none is idle."""
        task.promise.future.on_discard(task.stop)
        with self._lock:
            if not self._closed:
                self._waiting.put(task)
                if not self._idle.acquire(blocking=False) and len(self._workers) < self._limit:
                    self._workers.append(_Worker(self))
                return
        task.promise.fail(PoolClosedError())

    def close(self) -> None:
        """Kill what runs, refuse what waits; on return no worker process is left."""
        with self._lock:
            self._closed = True
        while not self._waiting.empty():
            task = self._waiting.get()
            if task is not None:
                task.promise.fail(PoolClosedError())
        for worker in self._workers:
            self._waiting.put(None)
            worker.interrupt()
        for worker in self._workers:
            worker.join()
        self._reports.close()
        self._context.close()

    # -- for the worker threads

    def next_task(self) -> Task | None:
        """Wait for a task; None when the engine is closed."""
        return self._waiting.get()

    def stand_idle(self) -> None:
        """Tell that a worker is about to wait for a task."""
        self._idle.release()

    def new_pool(self) -> pebble.ProcessPool:
        """Return a pool of one process, which starts with its first task."""
        return pebble.ProcessPool(
            1, initializer=initialize, initargs=(self._options, self._reports.writer), context=self._context
        )

    def listen(self, task: Task) -> None:
        """Pass on what ``task`` reports, until ``unlisten``."""
        if task.on_report is not None:
            self._reports.callbacks[task.number] = task.on_report

    def unlisten(self, task: Task) -> None:
        """Stop passing on what ``task`` reports."""
        self._reports.callbacks.pop(task.number, None)


class _Worker:
    """One worker process, and the thread that hands it tasks."""

    def __init__(self, engine: ProcessEngine) -> None:
        self._engine = engine
        self._pool: pebble.ProcessPool | None = None
        self._task: Task | None = None
        self._thread = threading.Thread(target=self._serve, name="worker-pool", daemon=True)
        self._thread.start()

    def interrupt(self) -> None:
        task = self._task
        if task is not None:
            task.stop()

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self) -> None:
        while (task := self._engine.next_task()) is not None:
            self._task = task
            if task.take():
                self._engine.listen(task)
                self._run(task)
                self._engine.unlisten(task)
            self._task = task = None
            self._engine.stand_idle()
        self._end_process()

    def _run(self, task: Task) -> None:
        try:
            payload = pickle.dumps((task.number, task.function, task.argument))
            for start in range(MOST_STARTS):
                if self._try(task, payload, last=start == MOST_STARTS - 1):
                    return
        except Exception as error:  # noqa: BLE001 - it travels: not picklable, or no process could be started
            task.promise.fail(error)

    def _try(self, task: Task, payload: bytes, *, last: bool) -> bool:
        """Hand the task to the process once; False if it never got there and may be tried again."""
        outcome = self._hand_over(task, payload)
        if outcome is None:
            self._end_process()
            if task.promise.future.has_discard():
                return task.promise.discard()
            return task.promise.fail(PoolClosedError())
        error = outcome.exception()
        if isinstance(error, pebble.ProcessExpired):
            self._end_process()
            if task.retry and not last:
                task.retry = False
                return False
            task.promise.fail(WorkerDiedError(task.name, error.exitcode))
        elif isinstance(error, BrokenProcessPool):
            self._end_process()
            if not last:
                return False
            task.promise.fail(error)
        elif isinstance(error, TimeoutError) and error.__cause__ is None and task.time_limit is not None:
            task.promise.fail(WorkerTimeoutError(task.name, task.time_limit))
        elif error is not None:
            task.promise.fail(error)
        else:
            task.promise.compute(pickle.loads, outcome.result())
        return True

    def _hand_over(self, task: Task, payload: bytes) -> concurrent.futures.Future[bytes] | None:
        if self._pool is None or not self._pool.active:
            self._end_process()
            self._pool = self._engine.new_pool()
        running = self._pool.schedule(run_pickled, args=(payload,), timeout=task.time_limit)
        running.add_done_callback(task.outcomes.put)
        return task.outcomes.get()

    def _end_process(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()


class _Reports:
    """The pipe through which the workers' reports come, and the thread that reads it."""

    def __init__(self) -> None:
        self.callbacks: dict[int, Callable[[Any], object]] = {}
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)
        self._thread: threading.Thread | None = None

    @property
    def writer(self) -> Connection:
        """The end for the workers; whoever asks starts the reading."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="worker-reports", daemon=True)
            self._thread.start()
        return self._writer

    def close(self) -> None:
        """Close our end: with the workers gone, that ends the reading."""
        self._writer.close()

    def _read(self) -> None:
        with self._reader:
            while True:
                try:
                    number, message = pickle.loads(self._reader.recv_bytes())  # noqa: S301 - our own worker's
                except EOFError:
                    return
                callback = self.callbacks.get(number)
                if callback is not None:
                    try:
                        callback(message)
                    except Exception:
                        logger.exception("A task's on_report failed")
