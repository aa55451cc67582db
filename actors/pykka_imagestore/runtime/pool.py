"""Functions run away from the actors: in worker processes, in threads, or in any ``concurrent.futures.Executor``.

Worker functions are module-level, take one picklable argument, and are safe to run twice, also at the same time.
A task's future becomes discarded only once its work has stopped, so what it used may be removed then.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from pykka_imagestore.runtime.cpus import usable_cpus
from pykka_imagestore.runtime.errors import ForkedError, PoolClosedError
from pykka_imagestore.runtime.executors import ExecutorEngine
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.runtime.future import Future, failed
from pykka_imagestore.runtime.interfaces import Answers, WorkerOptions
from pykka_imagestore.runtime.processes import ProcessEngine
from pykka_imagestore.runtime.tasks import Messages, Task
from pykka_imagestore.runtime.threads import ThreadEngine
from pykka_imagestore.runtime.worker import PickledAnswers

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
        workers: Processes, or threads, at most; by default as many as this process may use CPUs (affinity and cgroup
            quota). They start when first needed, and end when idle for half a minute.
        threads: Whether threads of this process run the tasks, which suits what waits for a disk or a network. They
            cannot be killed: a discard and a time limit are seen by tasks that look (``raise_if_discarded``).
        executor: Runs the tasks; the caller shuts it down. A discard is seen by tasks that look; there are no reports,
            messages, retries and time limits.
        name: What ``ps`` shows of a worker, at most 15 bytes.
        memory_limit_bytes: Private memory of a worker process; beyond it the task fails with MemoryError.
        answers: What worker processes may send back: by default whatever can be pickled. Where one may be taken over
            by what it reads, ``PlainAnswers``.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        threads: bool = False,
        executor: concurrent.futures.Executor | None = None,
        name: str = "worker",
        memory_limit_bytes: int | None = None,
        answers: Answers | None = None,
    ) -> None:
        self.workers = usable_cpus() if workers is None else workers
        if self.workers < 1:
            msg = f"a pool needs at least one worker, not {workers}"
            raise ValueError(msg)
        self._origin = Origin()
        self._closed = threading.Event()
        self._numbers = itertools.count(1)
        self._engine: Engine
        if executor is not None:
            self._engine = ExecutorEngine(executor)
        elif threads:
            self._engine = ThreadEngine(self.workers, name)
        else:
            options = WorkerOptions(name, memory_limit_bytes, answers or PickledAnswers())
            self._engine = ProcessEngine(self.workers, options)

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
        messages: Messages | None = None,
        stop_file: str | Path | None = None,
    ) -> Future[R]:
        """Run ``function(argument)`` in a worker.

        Args:
            function: Module-level, in a module that can be imported; not in the program's script, unless an
                executor runs it that knows the script.
            argument: Picklable. Paths in it are absolute: workers run in ``/``.
            retry: Run it once more if its worker process dies.
            idle: Run it only when no other task waits. An executor cannot tell when: there it is discarded.
            time_limit: Seconds until it is killed, counted from its start.
            on_report: Called with what the task reports, in a thread of the pool; one that is slow misses reports.
            messages: What the task can ``receive``.
            stop_file: A path where an executor that runs the task in another process may have a file made, which
                tells it to stop. Without, it runs to its end there. Whoever names it removes it.

        Returns:
            What it returns or raises. WorkerDiedError if its process died, WorkerTimeoutError past the time limit,
            WorkerStartError if there was no process to run it, WorkerAnswerError if that sent what no worker sends,
            PoolClosedError if the pool is closed, ForkedError in a forked child. A discard kills a running task; the
            future is discarded when it has ended.

        Raises:
            ValueError: ``function`` is defined in the program's script, which worker processes do not import.
        """
        stop_file = None if stop_file is None else os.fspath(stop_file)
        task = Task(next(self._numbers), function, argument, retry, idle, time_limit, on_report, messages, stop_file)
        self._engine.check(task)
        if not self._origin.is_here():
            return failed(ForkedError("the worker pool"))
        if self._closed.is_set():
            return failed(PoolClosedError())
        self._engine.submit(task)
        return task.promise.future

    def close(self) -> None:
        """Kill what runs, refuse what waits; on return no worker process is left. Idempotent.

        In a child that was forked since the pool was made, it does nothing: the workers are the parent's.
        """
        if self._origin.is_here():
            self._closed.set()
            self._engine.close()
