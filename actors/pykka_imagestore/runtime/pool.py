"""Functions run away from the actors: in worker processes, or in any ``concurrent.futures.Executor``.

Worker functions are module-level, take one picklable argument, and are safe to run twice, also at the same time.
A task's future becomes discarded only once its work has stopped, so what it used may be removed then.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import itertools
import os
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from pykka_imagestore.runtime.cpus import usable_cpus
from pykka_imagestore.runtime.errors import PoolClosedError
from pykka_imagestore.runtime.future import Future, failed
from pykka_imagestore.runtime.processes import ProcessEngine, Task
from pykka_imagestore.runtime.worker import WorkerOptions, run_flagged

A = TypeVar("A")
R = TypeVar("R")


class Engine(Protocol):
    """What runs the tasks."""

    def check(self, task: Task) -> None:
        """Raise ValueError for a task that cannot be run."""

    def submit(self, task: Task) -> None:
        """Take a task; its promise is kept, or discarded once a discard has stopped the work."""

    def close(self) -> None:
        """Stop what runs; on return nothing does, and no process is left."""


class WorkerPool:
    """Runs worker functions. Thread-safe; ``close()``, or leaving the ``with`` block, stops what runs.

    Args:
        workers: Processes at most; by default as many as this process may use CPUs (affinity and cgroup quota). They
            start when first needed.
        executor: Runs the tasks instead of own processes; the caller shuts it down. A discard then sets a flag that
            tasks look at (``raise_if_discarded``); there are no reports, retries and time limits.
        name: What ``ps`` shows of a worker, at most 15 bytes.
        memory_limit_bytes: Private memory of a worker; beyond it the task fails with MemoryError.
        preload: Modules that worker processes have imported from the start.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        executor: concurrent.futures.Executor | None = None,
        name: str = "worker",
        memory_limit_bytes: int | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        self.workers = usable_cpus() if workers is None else workers
        if self.workers < 1:
            msg = f"a pool needs at least one worker, not {workers}"
            raise ValueError(msg)
        self._closed = threading.Event()
        self._numbers = itertools.count(1)
        self._engine: Engine = (
            ProcessEngine(self.workers, WorkerOptions(name, memory_limit_bytes), preload)
            if executor is None
            else ExecutorEngine(executor)
        )
        _open_engines.add(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        function: Callable[[A], R],
        argument: A,
        *,
        retry: bool = False,
        idle: bool = False,
        time_limit: float | None = None,
        on_report: Callable[[Any], object] | None = None,
    ) -> Future[R]:
        """Run ``function(argument)`` in a worker.

        Args:
            function: Module-level, in a module that can be imported; not in the program's script, unless an
                executor runs it that knows the script.
            argument: Picklable. Paths in it are absolute: workers run in ``/``.
            retry: Run it once more if its worker process dies.
            idle: Run it only when no other task waits. An executor cannot tell when: there it is discarded.
            time_limit: Seconds until it is killed, counted from its start.
            on_report: Called with what the task reports, in a thread of the pool; it must not block.

        Returns:
            What it returns or raises. WorkerDiedError if its process died, WorkerTimeoutError past the time limit,
            WorkerStartError if there was no process to run it, PoolClosedError if the pool is closed. A discard kills
            a running task; the future is discarded when it has ended.

        Raises:
            ValueError: ``function`` is defined in the program's script, which worker processes do not import.
        """
        task = Task(next(self._numbers), function, argument, retry, idle, time_limit, on_report)
        self._engine.check(task)
        if self._closed.is_set():
            return failed(PoolClosedError())
        self._engine.submit(task)
        return task.promise.future

    def close(self) -> None:
        """Kill what runs, refuse what waits; on return no worker process is left. Idempotent."""
        self._closed.set()
        self._engine.close()


class ExecutorEngine:
    """Runs tasks in an executor that may be unable to stop them: a discard makes a file that is their flag."""

    def __init__(self, executor: concurrent.futures.Executor) -> None:
        self._executor = executor
        self._flags = os.path.join(tempfile.gettempdir(), f"pykka-imagestore-{uuid.uuid4()}")  # noqa: PTH118
        self._running: dict[concurrent.futures.Future[Any], tuple[Path, threading.Event]] = {}

    def check(self, task: Task) -> None:
        pass

    def submit(self, task: Task) -> None:
        if task.idle:
            task.promise.discard()
            return
        flag = Path(f"{self._flags}-{task.number}")
        try:
            running = self._executor.submit(run_flagged, os.fspath(flag), task.function, task.argument)
        except RuntimeError as error:  # it was shut down, or is broken
            task.promise.fail(error)
            return
        ended = threading.Event()
        self._running[running] = flag, ended

        def settle(_: object) -> None:
            self._running.pop(running, None)
            _lower(flag)
            error = concurrent.futures.CancelledError() if running.cancelled() else running.exception()
            if error is None:
                task.promise.set(running.result())
            elif not isinstance(error, concurrent.futures.CancelledError):
                task.promise.fail(error)
            elif task.promise.future.has_discard():
                task.promise.discard()
            else:
                task.promise.fail(PoolClosedError())
            ended.set()

        task.promise.future.on_discard(lambda: _stop(running, flag))
        running.add_done_callback(settle)

    def close(self) -> None:
        running = dict(self._running)
        for future in running:
            future.cancel()  # all that wait, before one that runs makes room for them
        for future, (flag, _) in running.items():
            _stop(future, flag)
        for _, ended in running.values():
            ended.wait()


def _stop(running: concurrent.futures.Future[Any], flag: Path) -> None:
    if not running.cancel() and not running.done():
        with contextlib.suppress(OSError):  # no room for it: then the task runs to its end
            flag.touch()
        if running.done():  # meanwhile
            _lower(flag)


def _lower(flag: Path) -> None:
    with contextlib.suppress(OSError):
        flag.unlink(missing_ok=True)


_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


# A child that is forked has the parent's engines, and not their threads: they are not its to close.
os.register_at_fork(after_in_child=_open_engines.clear)


@atexit.register
def _close_open_engines() -> None:
    for engine in list(_open_engines):
        engine.close()
