"""What runs in a worker process around a task, and what a task may call.

This module is imported by every worker, so it imports little.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from pykka_imagestore.runtime.errors import DiscardedError

A = TypeVar("A")
R = TypeVar("R")

_NICENESS = 10  # workers may use every CPU, and the agent must still answer at once
LARGEST_REPORT_BYTES = 4096  # what a pipe takes whole or not at all (PIPE_BUF on Linux)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker process is set up: its name in ``ps``, at most 15 bytes, and its limit on private memory."""

    name: str = "worker"
    memory_limit_bytes: int | None = None


class _Task(threading.local):
    """The task that runs in this thread."""

    number: int | None = None
    flag: str | None = None


_task = _Task()
_reports: Connection | None = None


def report(message: object) -> None:
    """Send ``message`` to whoever started the running task; dropped if it cannot be sent at once.

    Args:
        message: Small and picklable: 4 KiB at most. Where the engine has no way back, it goes nowhere.
    """
    if _reports is None or _task.number is None:
        return
    data = pickle.dumps((_task.number, message))
    if len(data) + 4 <= LARGEST_REPORT_BYTES:
        with contextlib.suppress(OSError):  # the pipe is full: the reader is behind, and the next report tells more
            _reports.send_bytes(data)


def raise_if_discarded() -> None:
    """Stop the running task if its future was discarded; call it between steps.

    Needed where the engine cannot kill a task. Where it can, this costs nothing.

    Raises:
        DiscardedError: Stop now, and leave nothing behind.
    """
    if _task.flag is not None and os.path.exists(_task.flag):  # noqa: PTH110 - called often
        raise DiscardedError


def run_pickled(payload: bytes) -> bytes:
    """Run a pickled task; return, pickled, its result and its error, one of them None.

    All travel as bytes, so that no object can break the channel between the processes.
    """
    try:
        _task.number, function, argument = _load_task(payload)
        return _dump_result(function, function(argument))
    except BaseException as error:  # noqa: BLE001 - it travels to whoever gets the future
        portable = _portable(error)
        portable.add_note("In the worker process:\n" + "".join(traceback.format_exception(error)).rstrip())
        return pickle.dumps((None, portable))
    finally:
        _task.number = None


def run_flagged(flag: str, function: Callable[[A], R], argument: A) -> R:
    """Run a task that a file at ``flag`` stops."""
    _task.flag = flag
    try:
        raise_if_discarded()
        return function(argument)
    finally:
        _task.flag = None


def initialize(options: WorkerOptions, reports: Connection) -> None:
    """Set up this process as a worker: named, limited, killable, and never outliving its parent."""
    global _reports  # noqa: PLW0603 - a worker process has one way back
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # ignored by now; programs that a task runs may want it
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:  # noqa: PTH123
        comm.write(options.name[:15])
    if options.memory_limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (options.memory_limit_bytes, options.memory_limit_bytes))
    _reports = reports
    os.nice(_NICENESS)
    os.set_blocking(reports.fileno(), False)
    threading.Thread(target=_die_with_parent, name="parent-watch", daemon=True).start()


def _load_task(payload: bytes) -> tuple[int, Callable[[Any], Any], Any]:
    try:
        return pickle.loads(payload)  # type: ignore[no-any-return]  # noqa: S301 - from our own parent
    except Exception as error:
        msg = (
            f"a worker process cannot load the task: {error}; the function and its argument may use only what "
            "modules define, not the program's script"
        )
        raise pickle.UnpicklingError(msg) from error


def _dump_result(function: Callable[[Any], Any], result: object) -> bytes:
    try:
        return pickle.dumps((result, None))
    except Exception as error:
        msg = f"what {getattr(function, '__qualname__', function)} returned cannot be sent back: {error}"
        raise pickle.PicklingError(msg) from error


def _portable(error: BaseException) -> Exception:
    """Return ``error`` if it is an Exception that survives a journey between processes, else one that says the same."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        if isinstance(error, Exception) and type(copy) is type(error):
            return error
    except Exception:  # noqa: BLE001, S110 - whatever a foreign class does when it is pickled
        pass
    return RuntimeError(f"{type(error).__qualname__}: {error}")


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
