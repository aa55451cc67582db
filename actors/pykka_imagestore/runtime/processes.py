"""The engine that runs a pool's tasks in worker processes.

All of it happens in the thread of its ``EventLoop``. A thread that submits, discards or closes leaves a call there.

A worker that dies takes nothing else with it: each has a socket pair of its own. What a worker sends may come from an
attacker who has taken it over: a packet that is no answer to its task gets it killed.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from pykka_imagestore.runtime.errors import PoolClosedError, WorkerStartError
from pykka_imagestore.runtime.event_loop import EventLoop
from pykka_imagestore.runtime.future import Promise
from pykka_imagestore.runtime.interfaces import Answers, WorkerOptions
from pykka_imagestore.runtime.launch import end_if_not_taken_over, find_python, is_frozen, start_process, why_it_ended
from pykka_imagestore.runtime.tasks import Reporter, Task, TaskQueue
from pykka_imagestore.runtime.wire import (
    ERROR,
    HELLO,
    MAX_REPORT_BYTES,
    REPORT,
    RESULT,
    MalformedError,
)
from pykka_imagestore.runtime.worker import load_error, load_result
from pykka_imagestore.runtime.worker_handle import WorkerHandle, dump_setup, dump_task
from pykka_imagestore.runtime.worker_table import WorkerTable

logger = logging.getLogger(__name__)


class ProcessEngine:
    """Runs tasks in worker processes, which start when first needed and end when idle for long."""

    def __init__(self, workers: int, options: WorkerOptions) -> None:
        end_if_not_taken_over()
        self._setup = dump_setup(options)  # before any process starts: whatever the answers raise reaches the caller
        self._answers = options.answers
        self._loop = EventLoop("imagestore-workers")
        self._with_messages: set[Task] = set()  # tasks for whose messages a call waits in the loop
        # What follows belongs to the loop's thread.
        self._is_settling = False
        self._waiting = TaskQueue()
        self._workers = WorkerTable(workers)
        self._reporter = Reporter()
        _engines.add(self)

    def check(self, task: Task) -> None:
        """Raise ValueError if the task's function is defined in the program's script."""
        task.require_module()

    def submit(self, task: Task) -> None:
        """Queue a task, and start another worker if none is idle."""
        task.promise.future.on_discard(partial(self._discard, task))
        if task.messages is not None:
            task.messages.listen(partial(self._note_messages, task))
        try:
            self._loop.start(self._kill_overdue, self._hand_out, self._shut_down)
        except (OSError, RuntimeError) as error:
            task.promise.fail(WorkerStartError(task.name, str(error)))
        else:
            self._loop.call(partial(self._accept, task))

    def close(self) -> None:
        """Kill what runs, refuse what waits; on return no worker process is left. Idempotent."""
        if self._loop.is_this_thread():
            # Outside of a callback it is the garbage collector that calls this: in the middle of anything, so later.
            self._shut_down() if self._is_settling else self._loop.call(self._shut_down)
            return
        self._loop.call(self._shut_down)
        self._loop.join()

    def forget(self) -> None:
        """Release all descriptors in a forked child, which has no part in the engine."""
        for worker in self._workers:
            worker.process.forget()
        self._loop.forget()

    def _discard(self, task: Task) -> None:
        if not task.discard_waiting():
            self._loop.call(partial(self._stop, task))

    def _note_messages(self, task: Task) -> None:
        if task not in self._with_messages:  # else a call waits already, and will send all messages that there are
            self._with_messages.add(task)
            self._loop.call(partial(self._send_messages, task))

    def _accept(self, task: Task) -> None:
        if self._loop.is_stopped:
            task.promise.fail(PoolClosedError())
        elif not self._loop.has_thread():  # another thread's attempt to start it has failed meanwhile
            task.promise.fail(WorkerStartError(task.name, "can't start new thread"))
        else:
            self._waiting.put(task)

    def _stop(self, task: Task) -> None:
        worker = self._workers.running(task)
        if worker is not None:
            self._kill(worker)
        elif self._waiting.remove(task):  # its worker had died, and another was to take it
            self._settle(task.promise.discard)

    def _send_messages(self, task: Task) -> None:
        self._with_messages.discard(task)
        worker = self._workers.running(task)
        if worker is not None:
            self._send(worker)

    def _hand_out(self) -> None:
        while not self._loop.is_stopped:
            if self._waiting and self._workers.may_begin():
                task = self._waiting.get()
                if task.is_taken or task.take():
                    self._give(task)
            elif self._workers.may_start(len(self._waiting)):
                self._start_worker()
            else:
                return

    def _give(self, task: Task) -> None:
        try:
            payload = dump_task(task)
        except BaseException as error:  # noqa: BLE001 - the future fails with it
            self._settle(task.promise.fail, error)
            return
        # What pickles the argument may have waited for a future, so that this thread served others meanwhile.
        if self._loop.is_stopped or task.promise.future.has_discard():
            self._end_task(task, PoolClosedError())
        elif not self._workers.may_begin():
            self._waiting.put_back(task)
        else:
            worker = self._workers.take_idle()
            worker.begin(task, payload)
            self._send(worker)

    def _finish(self, worker: WorkerHandle, settle: Callable[..., object], *args: object) -> None:
        """Take the worker's task away, and give it the next one before ``settle`` completes the future."""
        self._workers.note_success()
        worker.rest()
        if not worker.has_ended:
            self._workers.set_idle(worker)
            self._hand_out()  # first, since callbacks may take their time
        self._settle(settle, *args)

    def _settle(self, settle: Callable[..., object], *args: object) -> None:
        """Complete a task's future; whatever its callbacks raise, the thread goes on."""
        outer, self._is_settling = self._is_settling, True
        try:
            settle(*args)
        except BaseException:
            logger.exception("A callback failed when a task had ended")
        finally:
            self._is_settling = outer

    # -- worker processes

    def _start_worker(self) -> None:
        try:
            process = start_process()
        except Exception as error:  # noqa: BLE001 - programs put anything in the place of subprocess
            self._fail_to_start(str(error) or repr(error), is_final=True)
            return
        worker = WorkerHandle(process, self._setup, self._answers.max_bytes)
        self._workers.add(worker)
        self._loop.watch(process.socket.fileno(), lambda: self._hear(worker))
        self._loop.watch(process.pidfd, lambda: self._bury(worker))
        self._send(worker)

    def _fail_to_start(self, reason: str, *, is_final: bool = False) -> None:
        """Note that a process could not be started; fail all waiting tasks if none ever will be."""
        if self._workers.note_failed_start(is_final=is_final):
            for task in self._waiting.take_all():
                self._settle(task.promise.fail, WorkerStartError(task.name, reason))

    def _send(self, worker: WorkerHandle) -> None:
        """Send as much as the worker takes now, and the rest when it takes more."""
        if not worker.has_ended:
            was_full, worker.is_full = worker.is_full, not worker.send()
            if was_full != worker.is_full:
                self._loop.await_room(worker.process.socket.fileno(), is_full=worker.is_full)

    def _kill(self, worker: WorkerHandle, fault: str = "", *, is_late: bool = False) -> None:
        worker.kill(fault, is_late=is_late)
        self._workers.set_busy(worker)

    def _kill_overdue(self) -> float:
        while (deadline := self._workers.next_deadline()) <= time.monotonic():
            for worker in self._workers.due(deadline):
                worker.rest() if self._workers.is_spare(worker) else self._kill(worker, is_late=True)
        return deadline

    def _bury(self, worker: WorkerHandle) -> None:
        """Reap a process that has ended, and settle its task."""
        if not worker.process.has_ended():  # the event was of an earlier file with the same descriptor
            return
        worker.has_ended = True
        self._hear(worker)
        if worker not in self._workers:  # a callback has closed the pool
            return
        self._dismiss(worker)
        exit_code = worker.end()
        if worker.task is not None:
            self._end_task(worker.task, worker.death(exit_code))
        elif not worker.is_ready:
            reason = worker.fault or f"it ended with exit code {exit_code} before it was ready; {why_it_ended()}"
            # A frozen program that ran its own main as a worker may do anything, so it is not started again.
            self._fail_to_start(reason, is_final=bool(worker.fault) or is_frozen())

    def _dismiss(self, worker: WorkerHandle) -> None:
        self._loop.unwatch(worker.process.socket.fileno())
        self._loop.unwatch(worker.process.pidfd)
        self._workers.remove(worker)

    def _end_task(self, task: Task, error: Exception | None) -> None:
        """Discard a task if that was requested; else fail it with the error, or run it again if there is none."""
        if task.promise.future.has_discard():
            self._settle(task.promise.discard)
        elif error is not None:
            self._settle(task.promise.fail, error)
        else:
            self._waiting.put_back(task)

    def _shut_down(self) -> None:
        """Kill what runs, wait until it has ended, and only then refuse the tasks."""
        self._loop.stop()
        workers = list(self._workers)
        for worker in workers:
            worker.has_ended = True
            worker.process.kill()
        for worker in workers:
            self._dismiss(worker)
            worker.end()
        for task in [*(worker.task for worker in workers if worker.task is not None), *self._waiting.take_all()]:
            self._end_task(task, PoolClosedError())

    # -- what workers send

    def _hear(self, worker: WorkerHandle) -> None:
        """Handle the messages that a worker has sent."""
        try:
            for kind, number, body in worker.receive():
                self._handle(worker, kind, number, body)
        except MalformedError as error:
            self._kill(worker, str(error))
        except EOFError:
            worker.has_ended = True
            self._loop.unwatch(worker.process.socket.fileno())
            self._kill(worker)  # it may live, but can take no task
        else:
            self._send(worker)

    def _handle(self, worker: WorkerHandle, kind: bytes, number: int, body: bytes) -> None:
        task = worker.task
        if worker.is_doomed:
            return
        if kind == HELLO and not worker.is_ready:
            self._welcome(worker, body)
        elif task is None or task.number != number or kind not in (RESULT, ERROR, REPORT):
            raise MalformedError("it sent a message that answers nothing")
        elif kind == REPORT:
            self._pass_report_on(task, body)
        else:
            self._finish(worker, *_outcome(kind, task.promise, self._answers, body))

    def _welcome(self, worker: WorkerHandle, body: bytes) -> None:
        """Let a process that is ready take tasks."""
        _require_same_python(body)
        self._workers.note_success()
        worker.is_ready = True
        worker.rest()
        self._workers.set_idle(worker)

    def _pass_report_on(self, task: Task, body: bytes) -> None:
        try:
            report = _load_report(self._answers, body)
        except MalformedError:
            raise
        except BaseException:  # whatever a foreign class raises when it is unpickled
            logger.exception("A report of %s cannot be read", task.name)
        else:
            self._reporter.pass_on(task, report)


def _require_same_python(tag: bytes) -> None:
    if tag != str(sys.implementation.cache_tag).encode():
        msg = f"{find_python()} is another Python than this program's; set sys.executable to the right one"
        raise MalformedError(msg)


def _load_report(answers: Answers, body: bytes) -> Any:
    if len(body) > MAX_REPORT_BYTES:
        msg = f"it sent a report of {len(body)} bytes; {MAX_REPORT_BYTES} are the most"
        raise MalformedError(msg)
    return answers.load(body)


def _outcome(kind: bytes, promise: Promise[Any], answers: Answers, body: bytes) -> tuple[Callable[[Any], object], Any]:
    """Return the function that settles a task with this answer, and its argument."""
    settle, load = (promise.set, load_result) if kind == RESULT else (promise.fail, load_error)
    try:
        return settle, load(answers, body)
    except MalformedError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a foreign class raises when it is unpickled
        return promise.fail, error


_engines: weakref.WeakSet[ProcessEngine] = weakref.WeakSet()


def _forget_in_child() -> None:
    for engine in list(_engines):
        engine.forget()
    _engines.clear()


os.register_at_fork(after_in_child=_forget_in_child)


@atexit.register
def _close_at_exit() -> None:
    for engine in list(_engines):
        engine.close()
