"""Pools that run functions in worker processes, in threads, or in any ``concurrent.futures.Executor``.

Worker functions are module-level, take one picklable argument, and are safe to run twice, also at the same time.
A task's future becomes discarded only once its work has stopped, so that the files it used may be removed then.
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
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.runtime.future import Future, failed
from pykka_imagestore.runtime.interfaces import Answers, WorkerOptions
from pykka_imagestore.runtime.tasks import Messages, Task
from pykka_imagestore.runtime.threads import ThreadEngine
from pykka_imagestore.runtime.worker import PickledAnswers

A = TypeVar("A")
R = TypeVar("R")


class Engine(Protocol):
    """Runs a pool's tasks: in processes, in threads, or in an executor."""

    def check(self, task: Task) -> None:
        """Raise ValueError for a task that this engine cannot run."""

    def submit(self, task: Task) -> None:
        """Run a task and complete its promise; after a discard, only once the work has stopped."""

    def close(self) -> None:
        """Stop all tasks; on return none runs, and no process is left."""


class WorkerPool:
    """Runs worker functions. Thread-safe; ``close()``, or leaving the ``with`` block, stops what runs.

    Args:
        workers: Processes, or threads, at most; by default as many as this process may use CPUs (affinity and cgroup
            quota). They start when first needed, and end when idle for half a minute. While tasks run, one process more
            is kept, which takes the next task when a worker is killed.
        threads: Whether threads of this process run the tasks, which suits those that wait for a disk or a network.
            Threads cannot be killed: a task notices a discard or a time limit when it calls ``raise_if_discarded``.
        executor: Runs the tasks; the caller shuts it down. A task notices a discard when it calls
            ``raise_if_discarded``; there are no reports, messages, retries and time limits.
        name: What ``ps`` shows of a worker, at most 15 bytes.
        memory_limit_bytes: Private memory of a worker process; beyond it the task fails with MemoryError.
        answers: What worker processes may send back; by default anything that can be pickled. For tasks that read
            untrusted input, which may take a worker over, ``PlainAnswers``.

    Raises:
        pickle.PicklingError: ``answers`` cannot be sent to a worker process.
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
            self._engine = _engine_on(executor)
        elif threads:
            self._engine = ThreadEngine(self.workers, name)
        else:
            options = WorkerOptions(name, memory_limit_bytes, answers or PickledAnswers())
            self._engine = _engine_of_processes(self.workers, options)

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
            function: Module-level, in a module that can be imported; in the program's script only for threads, or for
                an executor that has the script.
            argument: Picklable. Paths in it should be absolute: worker processes run in ``/``.
            retry: Run it once more if its worker process dies.
            idle: Run it only when no other task waits. An executor does not tell when: there it is discarded.
            time_limit: Seconds until it is killed, counted from its start.
            on_report: Called with the task's reports, in a thread of the pool; a slow listener misses some.
            messages: What the task can ``receive``.
            stop_file: The path of a file that a discard may create, which tells a task in an executor's other process
                to stop. Without it, such a task runs to its end. The caller removes what is left of it.

        Returns:
            What it returns or raises. Fails with WorkerDiedError if its process died, WorkerTimeoutError past the time
            limit, WorkerStartError if no process could be started, WorkerAnswerError if the process sent what no worker
            sends, PoolClosedError if the pool is closed, ForkedError in a forked child. A discard kills a running task;
            the future becomes discarded when its process has ended.

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

        Does nothing in a child that was forked since the pool was made: the workers are the parent's.
        """
        if self._origin.is_here():
            self._closed.set()
            self._engine.close()


# Each is imported by the first pool that has one: a program that only imports this package waits for neither.


def _engine_on(executor: concurrent.futures.Executor) -> Engine:
    from pykka_imagestore.runtime.executors import ExecutorEngine  # noqa: PLC0415

    return ExecutorEngine(executor)


def _engine_of_processes(workers: int, options: WorkerOptions) -> Engine:
    from pykka_imagestore.runtime.processes import ProcessEngine  # noqa: PLC0415

    return ProcessEngine(workers, options)
