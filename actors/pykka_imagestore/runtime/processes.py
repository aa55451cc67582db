"""The worker processes: Pebble's ProcessPool, one of a single process for each worker.

One process a pool, because then a worker that dies, or is killed to stop a task, takes nothing else along, and
Pebble's ``join`` says for certain that it has ended. Each worker has a thread here that waits for its task to end or
to be stopped, whichever comes first. Pebble itself looks after its processes ten times a second while they live.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import multiprocessing
import pickle
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import pebble

from pykka_imagestore.runtime.errors import (
    PoolClosedError,
    WorkerDiedError,
    WorkerError,
    WorkerStartError,
    WorkerTimeoutError,
)
from pykka_imagestore.runtime.fork_server import ENDED_WITH_0, WorkerContext
from pykka_imagestore.runtime.future import Promise
from pykka_imagestore.runtime.worker import WorkerOptions, initialize, run_pickled

logger = logging.getLogger(__name__)

MOST_STARTS = 3  # how often a task is handed out if its worker turns out dead before taking it
SECONDS_TO_TAKE = 1.0  # after which a look is taken whether there is still a worker to take the task


@dataclass(slots=True, eq=False)
class Task:
    """A function to run, and whom to tell."""

    number: int
    function: Callable[[Any], Any]
    argument: Any
    retry: bool = False
    idle: bool = False
    time_limit: float | None = None
    on_report: Callable[[Any], object] | None = None
    promise: Promise[Any] = field(default_factory=Promise)
    outcomes: queue.SimpleQueue[concurrent.futures.Future[bytes] | None] = field(default_factory=queue.SimpleQueue)
    _claim: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__qualname__", repr(self.function))

    def take(self) -> bool:
        """Claim the task for a worker; False if it was discarded while it waited."""
        return self._claim.acquire(blocking=False)

    def discard(self) -> None:
        """Have the task's worker stop it; a task that still waits is discarded at once."""
        if self._claim.acquire(blocking=False):
            self.promise.discard()
        else:
            self.stop()

    def stop(self) -> None:
        """Have the task's worker stop it."""
        self.outcomes.put(None)


class ProcessEngine:
    """Runs tasks in worker processes, which start when first needed."""

    def __init__(self, workers: int, options: WorkerOptions, preload: Sequence[str]) -> None:
        self._limit = workers
        self._options = options
        self._context = WorkerContext(["pykka_imagestore.runtime.worker", *preload])
        # Reentrant, because an abandoned future may complete, and so submit a task, during any allocation.
        self._lock = threading.RLock()
        self.closed = False
        self._waiting = _TaskQueue()
        self._idle = 0
        self._workers: list[_Worker] = []
        self._reports = _Reports()

    def check(self, task: Task) -> None:
        """Raise ValueError if the task's function is in the program's script."""
        if getattr(task.function, "__module__", None) == "__main__":
            msg = (
                f"{task.name} is defined in the program's script, which worker processes do not import; "
                "move it to a module"
            )
            raise ValueError(msg)

    def submit(self, task: Task) -> None:
        """Queue a task, and start another worker if none is idle."""
        task.promise.future.on_discard(task.discard)
        with self._lock:
            if not self.closed:
                self._waiting.put(task)
                if self._idle:
                    self._idle -= 1
                elif len(self._workers) < self._limit:
                    self._reports.start()
                    self._workers.append(_Worker(self))
                return
        task.promise.fail(PoolClosedError())

    def close(self) -> None:
        """Kill what runs, refuse what waits; on return no worker process is left. Idempotent."""
        with self._lock:
            self.closed = True
        for worker in self._workers:
            self._waiting.put_end()
            worker.interrupt()
        for worker in self._workers:
            worker.join()
        with self._lock:
            self._reports.close()
            self._context.close()

    # -- for the worker threads

    def next_task(self) -> Task | None:
        """Wait for a task; None when the engine is closed."""
        return self._waiting.get()

    def stand_idle(self) -> None:
        """Tell that a worker is about to wait for a task."""
        with self._lock:
            self._idle += 1

    def new_pool(self) -> pebble.ProcessPool:
        """Return a pool of one process, which starts with its first task."""
        self._context.start()
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


class _TaskQueue:
    """Tasks in their order, those for idle workers last. Reentrant: what is called here runs no Python code."""

    def __init__(self) -> None:
        self._ready: queue.SimpleQueue[bool] = queue.SimpleQueue()  # one for each task; False is the end
        self._tasks: deque[Task] = deque()
        self._idle_tasks: deque[Task] = deque()

    def put(self, task: Task) -> None:
        (self._idle_tasks if task.idle else self._tasks).append(task)
        self._ready.put(True)

    def put_end(self) -> None:
        """Have one ``get`` return None, when all tasks that came before have been taken."""
        self._ready.put(False)

    def get(self) -> Task | None:
        if not self._ready.get():
            return None
        try:
            return self._tasks.popleft()
        except IndexError:
            return self._idle_tasks.popleft()


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
            self._task = task  # before the look at ``closed``, so that either this sees it or ``interrupt`` the task
            if self._engine.closed:
                task.promise.fail(PoolClosedError())
            elif task.take():
                self._engine.listen(task)
                self._run(task)
                self._engine.unlisten(task)
            self._task = task = None
            self._engine.stand_idle()
        self._end_process()

    def _run(self, task: Task) -> None:
        try:
            payload = _dump_task(task)
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
        if error is None:
            _load_result(task.promise, outcome.result())
        elif isinstance(error, TimeoutError) and task.time_limit is not None:
            task.promise.fail(WorkerTimeoutError(task.name, task.time_limit))
        else:
            self._end_process()
            died = isinstance(error, pebble.ProcessExpired)
            if not last and (task.retry or not died):
                task.retry = task.retry and not died
                return False
            task.promise.fail(_death(task, error))
        return True

    def _hand_over(self, task: Task, payload: bytes) -> concurrent.futures.Future[bytes] | None:
        """Have the process run the task; return what came of it, or None if it is to be stopped."""
        try:
            if self._pool is None or not self._pool.active:
                self._end_process()
                self._pool = self._engine.new_pool()
            running = self._pool.schedule(run_pickled, args=(payload,), timeout=task.time_limit)
        except (OSError, RuntimeError) as error:  # it died just now, or could not be started
            return _failed(error)
        running.add_done_callback(task.outcomes.put)
        while True:
            try:
                return task.outcomes.get(timeout=None if running.running() else SECONDS_TO_TAKE)
            except queue.Empty:
                # Pebble forgets a task that it is given while it finds out that its worker is dead.
                if not running.running() and not self._pool.active:
                    return _failed(BrokenProcessPool("the worker died before it took the task"))

    def _end_process(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()


def _dump_task(task: Task) -> bytes:
    try:
        return pickle.dumps((task.number, task.function, task.argument))
    except Exception as error:
        msg = f"{task.name} or its argument cannot be sent to a worker process: {error}"
        raise pickle.PicklingError(msg) from error


def _load_result(promise: Promise[Any], payload: bytes) -> None:
    result, error = pickle.loads(payload)  # noqa: S301 - our own worker's
    if error is None:
        promise.set(result)
    else:
        promise.fail(error)


def _death(task: Task, error: BaseException) -> WorkerError:
    if not isinstance(error, pebble.ProcessExpired):
        return WorkerStartError(task.name)
    return WorkerDiedError(task.name, 0 if error.exitcode == ENDED_WITH_0 else error.exitcode)


def _failed(error: BaseException) -> concurrent.futures.Future[bytes]:
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()
    future.set_exception(error)
    return future


class _Reports:
    """The pipe through which the workers' reports come, and the thread that reads it."""

    def __init__(self) -> None:
        self.callbacks: dict[int, Callable[[Any], object]] = {}
        self._reader, self.writer = multiprocessing.Pipe(duplex=False)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the reading, if nobody has."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="worker-reports", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Close our end: with the workers gone, that ends the reading. Idempotent."""
        self.writer.close()
        if self._thread is None:
            self._reader.close()

    def _read(self) -> None:
        with self._reader, contextlib.suppress(EOFError):
            while True:
                self._pass_on(self._reader.recv_bytes())

    def _pass_on(self, data: bytes) -> None:
        try:
            number, message = pickle.loads(data)  # noqa: S301 - our own worker's
            callback = self.callbacks.get(number)
            if callback is not None:
                callback(message)
        except Exception:
            logger.exception("A task's report could not be passed on, or its on_report failed")
