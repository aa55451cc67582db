"""The engine that runs a pool's tasks in worker processes.

All of it happens in the thread of its ``EventLoop``. A thread that submits, discards or closes leaves a call there.

A worker that dies takes nothing else with it: each has a socket pair of its own. What a worker sends may come from an
attacker who has taken it over: a packet that is no answer to its task gets it killed.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import socket
import sys
import time
import weakref
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import cast

from pykka_imagestore.runtime import wire
from pykka_imagestore.runtime.errors import PoolClosedError, WorkerStartError, WorkerTimeoutError
from pykka_imagestore.runtime.event_loop import EventLoop
from pykka_imagestore.runtime.interfaces import WorkerOptions
from pykka_imagestore.runtime.launch import end_if_not_taken_over, find_python, is_frozen, why_it_ended
from pykka_imagestore.runtime.tasks import Reporter, Task, TaskQueue
from pykka_imagestore.runtime.worker import load_error
from pykka_imagestore.runtime.worker_handle import WorkerHandle, dump_setup, dump_task

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3  # in a row, after which none is started while others live


class ProcessEngine:
    """Runs tasks in worker processes, which start when first needed and end when idle for long.

    While any has a task, one more is kept than have, so that the next task after a kill waits for no start.
    """

    def __init__(self, workers: int, options: WorkerOptions) -> None:
        end_if_not_taken_over()
        self._setup = dump_setup(options)  # before any process starts: whatever the answers raise reaches the caller
        self._answers = options.answers
        self._limit = workers
        self._loop = EventLoop("imagestore-workers")
        # What follows belongs to the loop's thread.
        self._is_settling = False
        self._waiting = TaskQueue()
        self._workers: list[WorkerHandle] = []  # all that were not reaped
        self._failed_starts = 0
        self._reporter = Reporter()
        _engines.add(self)

    def check(self, task: Task) -> None:
        """Raise ValueError if the task's function is defined in the program's script."""
        task.require_module()

    def submit(self, task: Task) -> None:
        """Queue a task, and start another worker if none is idle."""
        task.promise.future.on_discard(partial(self._discard, task))
        if task.messages is not None:
            task.messages.listen(self._loop.wake)
        try:
            self._loop.start(self._turn, self._shut_down)
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
            worker.forget()
        self._loop.close_wake_up()

    # -- tasks

    def _discard(self, task: Task) -> None:
        if not task.discard_waiting():
            self._loop.call(partial(self._stop, task))

    def _accept(self, task: Task) -> None:
        if self._loop.is_stopped:
            task.promise.fail(PoolClosedError())
        elif not self._loop.has_thread():  # another thread's attempt to start it has failed meanwhile
            task.promise.fail(WorkerStartError(task.name, "can't start new thread"))
        else:
            self._waiting.put(task)

    def _stop(self, task: Task) -> None:
        for worker in self._workers:
            if worker.task is task:
                self._kill(worker)
        if self._waiting.remove(task):  # its worker had died, and another was to take it
            self._settle(task.promise.discard)

    def _turn(self) -> float:
        """Do what is due, and what the last events made possible; return when there is more to do."""
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.deadline <= now:
                self._expire(worker)
            elif worker.task is not None and worker.task.messages is not None:
                self._send(worker)
        self._hand_out()
        return min([worker.deadline for worker in self._workers], default=math.inf)

    def _hand_out(self) -> None:
        """Give tasks to idle workers, and start as many workers as are missing."""
        while not self._loop.is_stopped:
            if self._waiting and self._find_idle() is not None:
                task = self._waiting.get()
                if task.is_taken or task.take():
                    self._give(task)
            elif self._count_missing() > 0 and not (self._workers and self._failed_starts >= MAX_FAILED_STARTS):
                self._start_worker()
            else:
                return

    def _find_idle(self) -> WorkerHandle | None:
        """Return the idle worker that has run most tasks; None if there is none, or as many are busy as may be.

        It has imported most. And since it is the same one each time, those that are not needed stay idle, and end.
        """
        if self._count_busy() >= self._limit:
            return None
        idle = [worker for worker in self._workers if worker.is_ready and worker.task is None and not worker.is_doomed]
        return max(idle, key=attrgetter("tasks_begun"), default=None)

    def _count_missing(self) -> int:
        """Return how many workers more there should be, or minus how many fewer."""
        busy = self._count_busy()
        # One that was never ready counts until it is known whether any will be.
        alive = [worker for worker in self._workers if not (worker.is_doomed and worker.is_ready)]
        return min(busy + len(self._waiting), self._limit) + (busy > 0) - len(alive)

    def _count_busy(self) -> int:
        return len([worker for worker in self._workers if worker.task is not None and not worker.is_doomed])

    def _give(self, task: Task) -> None:
        try:
            payload = dump_task(task)
        except BaseException as error:  # noqa: BLE001 - the future fails with it
            self._settle(task.promise.fail, error)
            return
        # What pickles the argument may have waited for a future, so that this thread served others meanwhile.
        worker = self._find_idle()
        if self._loop.is_stopped or task.promise.future.has_discard():
            self._end_task(task, PoolClosedError())
        elif worker is None:
            self._waiting.put_back(task)
        else:
            worker.begin(task, payload)
            self._send(worker)

    def _finish(self, worker: WorkerHandle, settle: Callable[..., object], value: object) -> None:
        """Take the worker's task away, and give it the next one before ``settle`` completes the future."""
        self._failed_starts = 0
        worker.rest()
        if self._waiting:
            self._hand_out()  # first, since callbacks may take their time
        self._settle(settle, value)

    def _end_task(self, task: Task, error: Exception | None) -> None:
        """Discard a task if that was requested; else fail it with the error, or run it again if there is none."""
        if task.promise.future.has_discard():
            self._settle(task.promise.discard)
        elif error is not None:
            self._settle(task.promise.fail, error)
        else:
            self._waiting.put_back(task)

    def _settle(self, settle: Callable[..., object], *args: object) -> None:
        """Complete a task's future; its callbacks may close the pool."""
        outer, self._is_settling = self._is_settling, True
        try:
            settle(*args)
        finally:
            self._is_settling = outer

    # -- worker processes

    def _start_worker(self) -> None:
        try:
            worker = WorkerHandle(self._setup, self._answers.max_bytes)
        except Exception as error:  # noqa: BLE001 - programs put anything in the place of subprocess
            self._fail_to_start(str(error) or repr(error), is_final=True)
            return
        self._workers.append(worker)
        self._loop.watch(worker.socket.fileno(), partial(self._hear, worker))
        self._loop.watch(worker.pidfd, partial(self._bury, worker))
        self._send(worker)

    def _fail_to_start(self, reason: str, *, is_final: bool) -> None:
        """Note that a process could not be started; fail all waiting tasks if none ever will be."""
        self._failed_starts += 1
        if not self._workers and (is_final or self._failed_starts >= MAX_FAILED_STARTS):
            self._failed_starts = 0
            for task in self._waiting.take_all():
                self._settle(task.promise.fail, WorkerStartError(task.name, reason))

    def _expire(self, worker: WorkerHandle) -> None:
        """Kill a worker whose task ran for too long, or one that was idle for long and is not needed."""
        if worker.task is not None:
            self._kill(worker, WorkerTimeoutError(worker.task.name, cast(float, worker.task.time_limit)))
        elif self._count_missing() < 0:
            self._kill(worker)
        else:
            worker.rest()

    def _send(self, worker: WorkerHandle) -> None:
        """Send as much as the worker takes now, and the rest when it takes more."""
        if not worker.is_doomed:
            self._loop.await_room(worker.socket.fileno(), is_full=not worker.send())

    def _kill(self, worker: WorkerHandle, fault: Exception | None = None) -> None:
        """Have a process end, and listen to it no more; ``_bury`` settles its task once it has ended."""
        worker.is_doomed = True
        worker.fault = worker.fault or fault
        worker.deadline = math.inf
        worker.kill()
        self._loop.unwatch(worker.socket.fileno())

    def _bury(self, worker: WorkerHandle) -> None:
        """Reap a process that has ended, hear what it had sent before, and settle its task."""
        exit_code = self._reap(worker)
        worker.socket.shutdown(socket.SHUT_RD)  # children that it has forked might go on sending
        while not worker.is_doomed:  # until the end of file
            self._hear(worker)
        worker.close()
        if worker.task is not None:
            self._end_task(worker.task, worker.death(worker.task, exit_code))
        elif not worker.is_ready:
            reason = f"it ended with exit code {exit_code} before it was ready; {why_it_ended()}"
            # A frozen program that ran its own main as a worker may do anything, so it is not started again.
            self._fail_to_start(str(worker.fault or reason), is_final=is_frozen() or worker.fault is not None)

    def _reap(self, worker: WorkerHandle) -> int | None:
        self._workers.remove(worker)
        self._loop.unwatch(worker.socket.fileno())
        self._loop.unwatch(worker.pidfd)
        return worker.reap()

    def _shut_down(self) -> None:
        """Kill what runs, wait until it has ended, and only then refuse the tasks."""
        self._loop.stop()
        workers = list(self._workers)
        for worker in workers:
            self._kill(worker)
        for worker in workers:
            self._reap(worker)
            worker.close()
        for task in [*(worker.task for worker in workers if worker.task is not None), *self._waiting.take_all()]:
            self._end_task(task, PoolClosedError())

    # -- what workers send

    def _hear(self, worker: WorkerHandle) -> None:
        """Handle the next message of a worker: one, so that the others have their turn."""
        try:
            message = worker.receive()
            if message is not None:
                self._handle(worker, *message)
        except wire.MalformedError as error:
            self._kill(worker, error)
        except EOFError:
            self._kill(worker)  # it may live, but can take no task
        else:
            if worker.outgoing:  # there may be room now
                self._send(worker)

    def _handle(self, worker: WorkerHandle, kind: bytes, number: int, body: bytes) -> None:
        task = worker.task
        if kind == wire.HELLO and not worker.is_ready:
            self._welcome(worker, body)
        elif task is None or task.number != number or not _is_answer(kind, body):
            msg = "it sent a message that answers nothing"
            raise wire.MalformedError(msg)
        elif kind == wire.REPORT:
            self._pass_report_on(task, body)
        else:
            self._finish(worker, *self._load_answer(task, kind, body))

    def _welcome(self, worker: WorkerHandle, tag: bytes) -> None:
        """Let a process that is ready take tasks."""
        if tag != str(sys.implementation.cache_tag).encode():
            msg = f"{find_python()} is another Python than this program's; set sys.executable to the right one"
            raise wire.MalformedError(msg)
        self._failed_starts = 0
        worker.is_ready = True
        worker.rest()

    def _load_answer(self, task: Task, kind: bytes, body: bytes) -> tuple[Callable[..., object], object]:
        """Return the function that settles a task with this answer, and its argument."""
        try:
            if kind == wire.RESULT:
                return task.promise.set, self._answers.load(body)
            return task.promise.fail, load_error(self._answers, body)
        except wire.MalformedError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a foreign class raises when it is unpickled
            return task.promise.fail, error

    def _pass_report_on(self, task: Task, body: bytes) -> None:
        try:
            self._reporter.pass_on(task, self._answers.load(body))
        except wire.MalformedError:
            raise
        except BaseException:  # whatever a foreign class raises when it is unpickled
            logger.exception("A report of %s cannot be read", task.name)


def _is_answer(kind: bytes, body: bytes) -> bool:
    return kind in (wire.RESULT, wire.ERROR) or (kind == wire.REPORT and len(body) <= wire.MAX_REPORT_BYTES)


_engines: weakref.WeakSet[ProcessEngine] = weakref.WeakSet()


def _end_all(end: Callable[[ProcessEngine], object]) -> None:
    for engine in list(_engines):
        end(engine)
    _engines.clear()


os.register_at_fork(after_in_child=partial(_end_all, ProcessEngine.forget))
atexit.register(_end_all, ProcessEngine.close)
