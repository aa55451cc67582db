"""The engine that runs tasks in threads of this process, for tasks that wait for a disk or the network."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import cast

from pykka_imagestore.runtime.auto_reset_event import AutoResetEvent
from pykka_imagestore.runtime.errors import DiscardedError, PoolClosedError, WorkerStartError, WorkerTimeoutError
from pykka_imagestore.runtime.future import without_frames
from pykka_imagestore.runtime.tasks import Reporter, Task, TaskQueue
from pykka_imagestore.runtime.thread_pool import ThreadPool
from pykka_imagestore.runtime.timers import timers
from pykka_imagestore.runtime.worker import run_hosted


class ThreadEngine:
    """Runs tasks in threads, which cannot be killed: a task has to look for a discard or a time limit itself."""

    def __init__(self, workers: int, name: str) -> None:
        self._threads = ThreadPool(workers, name)
        # Reentrant, because an abandoned future may complete, and so submit a task, during any allocation.
        self._condition = threading.Condition(threading.RLock())
        self._closed = False
        self._waiting = TaskQueue()
        self._running: dict[_Run, int] = {}  # and the threads' identifiers
        self._reporter = Reporter()

    def check(self, task: Task) -> None:
        """Accept any task: threads have the program's script."""

    def submit(self, task: Task) -> None:
        """Queue a task, and start another thread if none is idle."""
        task.promise.future.on_discard(partial(self._discard, task))
        with self._condition:
            is_closed = self._closed
            if not is_closed:
                self._waiting.put(task)
        if is_closed:
            task.promise.fail(PoolClosedError())
        else:
            self._call_for(task)

    def close(self) -> None:
        """Refuse what waits, stop what runs and wait for it; not for the task that calls this."""
        with self._condition:
            self._closed = True
            waiting, running = self._waiting.take_all(), list(self._running)
        for task in waiting:
            task.promise.fail(PoolClosedError())
        for run in running:
            run.stopped.set()
        me = threading.get_ident()
        with self._condition:
            self._condition.wait_for(lambda: set(self._running.values()) <= {me})
        self._threads.close(wait=False)

    def _call_for(self, task: Task) -> None:
        try:
            self._threads.call(self._run_next)
        except RuntimeError as error:  # no thread can be started, so none will take a waiting task
            with self._condition:
                # A thread that was started for an idle task may have taken this one instead.
                left = task if self._waiting.remove(task) or not len(self._waiting) else self._waiting.get()
            if left.take():
                left.promise.fail(WorkerStartError(left.name, str(error)))

    def _discard(self, task: Task) -> None:
        if not task.discard_waiting():
            with self._condition:
                running = [run for run in self._running if run.task is task]
            for run in running:
                run.stopped.set()

    def _run_next(self) -> None:
        with self._condition:
            try:
                task = self._waiting.get()
            except IndexError:  # the engine was closed
                return
            if not task.take():
                return
            run = _Run(task, self._reporter)
            self._running[run] = threading.get_ident()
        try:
            settle, *outcome = run.outcome()
        finally:
            with self._condition:
                del self._running[run]
                self._condition.notify_all()
        settle(*outcome)


class _Run:
    """One task in a thread, and what it is offered."""

    def __init__(self, task: Task, reporter: Reporter) -> None:
        self.task = task
        self.stopped = threading.Event()
        self._reporter = reporter
        self._is_late = False
        self._told = 0
        self._arrived = AutoResetEvent()

    def outcome(self) -> tuple[Callable[..., object], *tuple[object, ...]]:
        """Run the task; return the function that settles it, and its arguments."""
        promise, messages = self.task.promise, self.task.messages
        try:
            with ExitStack() as undo:
                if self.task.time_limit is not None:
                    undo.callback(timers.call_later(self.task.time_limit, self._expire).cancel)
                if messages is not None:
                    messages.listen(self._arrived.set)
                    undo.callback(messages.listen, None)
                return promise.set, run_hosted(self, self.task.function, self.task.argument)
        except DiscardedError as error:
            if promise.future.has_discard():
                return (promise.discard,)
            if self._is_late:
                return promise.fail, WorkerTimeoutError(self.task.name, cast(float, self.task.time_limit))
            return promise.fail, PoolClosedError() if self.stopped.is_set() else error
        except BaseException as error:  # noqa: BLE001 - the future fails with it
            return promise.fail, without_frames(error, 1)

    # -- what a task is offered

    def report(self, message: object) -> None:
        self._reporter.pass_on(self.task, message)

    def is_discarded(self) -> bool:
        return self.stopped.is_set()

    def receive(self, timeout: float | None) -> object:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            waiting = [] if self.task.messages is None else self.task.messages.after(self._told)
            for self._told, data in waiting[:1]:
                return pickle.loads(data)  # noqa: S301 - from this very process
            if not self._arrived.wait(None if deadline is None else deadline - time.monotonic()):
                raise TimeoutError

    def _expire(self) -> None:
        self._is_late = True
        self.stopped.set()
