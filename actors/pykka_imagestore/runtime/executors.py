"""The engine that runs tasks in a ``concurrent.futures.Executor``, perhaps on another machine.

No executor can stop a task that runs: the task has to look for a flag.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pykka_imagestore.runtime.errors import PoolClosedError
from pykka_imagestore.runtime.tasks import Task
from pykka_imagestore.runtime.worker import run_hosted


class ExecutorEngine:
    """Runs tasks in an executor. A discard raises a flag: in memory, and as the task's stop file if it has one."""

    def __init__(self, executor: concurrent.futures.Executor) -> None:
        self._executor = executor
        self._running: dict[concurrent.futures.Future[Any], tuple[_Flag, threading.Event]] = {}

    def check(self, task: Task) -> None:
        """Accept any task: some executors have the program's script."""

    def submit(self, task: Task) -> None:
        """Submit a task; discard one for idle workers, since an executor does not tell when it is idle."""
        if task.idle:
            task.promise.discard()
            return
        flag = _Flag(task.stop_file)
        try:
            running = self._executor.submit(_run_flagged, flag, task.function, task.argument)
        except RuntimeError as error:  # it was shut down, or is broken
            task.promise.fail(error)
            return
        ended = threading.Event()
        self._running[running] = flag, ended

        def settle(_: object) -> None:
            self._running.pop(running, None)
            flag.lower()
            _settle(task, running)
            ended.set()

        task.promise.future.on_discard(lambda: _stop(running, flag))
        running.add_done_callback(settle)

    def close(self) -> None:
        """Refuse what waits, stop what runs and wait for it."""
        running = dict(self._running)
        for future in running:
            future.cancel()  # first all that wait, or they would start when a running one is stopped
        for future, (flag, _) in running.items():
            _stop(future, flag)
        for _, ended in running.values():
            ended.wait()


@dataclass(frozen=True, slots=True)
class _Flag:
    """Tells a task to stop: in the process that raises it, or through a file."""

    path: str | None
    process: int = field(default_factory=os.getpid)
    name: str = field(default_factory=lambda: str(uuid.uuid4()))

    def raise_(self) -> None:
        _raised.add(self.name)
        if self.path is not None:
            with contextlib.suppress(OSError):  # there is no room for the file: the task runs to its end
                Path(self.path).touch()

    def lower(self) -> None:
        _raised.discard(self.name)
        if self.path is not None:
            with contextlib.suppress(OSError):
                Path(self.path).unlink(missing_ok=True)

    # What a task is offered.

    def report(self, message: object) -> None:
        pass

    def is_discarded(self) -> bool:
        if self.process == os.getpid():
            return self.name in _raised
        return self.path is not None and os.path.exists(self.path)  # noqa: PTH110 - called often

    def receive(self, timeout: float | None) -> object:  # noqa: ARG002 - no message ever comes
        raise TimeoutError


_raised: set[str] = set()


def _run_flagged(flag: _Flag, function: Callable[[Any], Any], argument: Any) -> Any:
    return run_hosted(flag, function, argument)


def _stop(running: concurrent.futures.Future[Any], flag: _Flag) -> None:
    if not running.cancel() and not running.done():
        flag.raise_()
        if running.done():  # meanwhile
            flag.lower()


def _settle(task: Task, running: concurrent.futures.Future[Any]) -> None:
    error = concurrent.futures.CancelledError() if running.cancelled() else running.exception()
    if error is None:
        task.promise.set(running.result())
    elif not isinstance(error, concurrent.futures.CancelledError):
        task.promise.fail(error)
    elif task.promise.future.has_discard():
        task.promise.discard()
    else:
        task.promise.fail(PoolClosedError())
