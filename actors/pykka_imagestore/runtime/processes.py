"""The worker processes of a pool, and the one thread that looks after them.

Whoever submits, discards or closes leaves a command and wakes the thread; it alone knows the workers. It sleeps until
there is a command, a message from a worker, the end of one, or a time limit; it never polls. So there is no lock that
a callback, or the garbage collector in the middle of anything, could meet.

A worker that dies takes nothing along: each has a pair of sockets of its own. What it sends may come from somebody who
has taken it over: a packet that is no answer to its task ends it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from pykka_imagestore.runtime.callbacks import serving
from pykka_imagestore.runtime.errors import (
    PoolClosedError,
    WorkerAnswerError,
    WorkerDiedError,
    WorkerStartError,
    WorkerTimeoutError,
)
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.runtime.future import Promise
from pykka_imagestore.runtime.interfaces import Answers, WorkerOptions
from pykka_imagestore.runtime.launch import (
    WorkerProcess,
    end_if_not_taken_over,
    find_python,
    is_frozen,
    start_process,
    why_it_ended,
)
from pykka_imagestore.runtime.tasks import Reporter, Task, TaskQueue
from pykka_imagestore.runtime.worker import (
    ERROR,
    HELLO,
    LARGEST_REPORT_BYTES,
    MESSAGE,
    NUMBER_BYTES,
    PACKET_BYTES,
    REPORT,
    RESULT,
    SETUP,
    TASK,
    Assembly,
    MalformedError,
    load_error,
    load_result,
    message,
    packets,
)

logger = logging.getLogger(__name__)

PACKETS_AT_ONCE = 1000  # more than a socket holds
MAX_STARTS = 3  # how many processes in a row may end before they are ready, or before they take a task
IDLE_SECONDS = 30.0  # after which a worker without a task ends
_NONE = -1
_LONGEST_WAIT = 86_400.0  # poll(2) refuses a month


class ProcessEngine:
    """Runs tasks in worker processes, which start when first needed and end when idle for long."""

    def __init__(self, workers: int, options: WorkerOptions) -> None:
        end_if_not_taken_over()
        self._origin = Origin()
        self._limit = workers
        self._options = options
        self._commands: deque[Callable[[], object]] = deque()
        self._with_messages: set[Task] = set()  # for whom there is a command
        self._lock = threading.RLock()  # of the thread's start, and of what wakes it
        self._thread: threading.Thread | None = None
        self._wake_up = _NONE
        self._ended = threading.Event()
        # What follows is the thread's own.
        self._closed = False
        self._is_telling = False
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._waiting = TaskQueue()
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._failed_starts = 0
        self._reporter = Reporter()
        _engines.add(self)

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
        task.promise.future.on_discard(partial(self._discard, task))
        if task.messages is not None:
            task.messages.listen(partial(self._tell_of_messages, task))
        try:
            self._start()
        except (OSError, RuntimeError) as error:
            task.promise.fail(WorkerStartError(task.name, str(error)))
        else:
            self._command(partial(self._accept, task))

    def close(self) -> None:
        """Kill what runs, refuse what waits; on return no worker process is left. Idempotent."""
        if self._thread is threading.current_thread():
            # Nobody else could do it, if this is a callback. In the middle of anything else it is the collector.
            self._shut_down() if self._is_telling else self._command(self._shut_down)
            return
        self._command(self._shut_down)
        if self._thread is not None:
            self._ended.wait()

    def forget(self) -> None:
        """Let go of all descriptors in a forked child, whose they are not."""
        for worker in self._workers:
            worker.process.forget()
        self._close_wake_up()

    # -- for other threads

    def _discard(self, task: Task) -> None:
        if not task.discard_waiting():
            self._command(partial(self._stop, task))

    def _tell_of_messages(self, task: Task) -> None:
        if task not in self._with_messages:  # else the thread has not come to it yet, and takes all that there are
            self._with_messages.add(task)
            self._command(partial(self._pass_messages_on, task))

    def _start(self) -> None:
        if self._thread is not None or self._closed:
            return
        thread = threading.Thread(target=self._serve, name="imagestore-workers", daemon=True)
        with self._lock:
            if self._wake_up != _NONE or self._closed:
                return
            self._wake_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = thread
        # Not under the lock: the new thread, whose beginning is waited for, may meet the collector first, and submit.
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._close_wake_up()
                self._thread = None
            self._run_commands()  # of others, who took it for started
            self._end_if_closed()
            raise

    def _end_if_closed(self) -> None:
        if self._closed:
            self._ended.set()

    def _command(self, command: Callable[[], object]) -> None:
        """Have the thread call ``command``; call it here if there is no thread, for then there are no workers."""
        if not self._origin.is_here():  # its descriptors may be others' by now
            return
        self._commands.append(command)
        with self._lock:
            if self._wake_up != _NONE:
                os.eventfd_write(self._wake_up, 1)
                return
        self._run_commands()

    def _close_wake_up(self) -> None:
        descriptor, self._wake_up = self._wake_up, _NONE  # in this order: a child forked in between must not close it
        if descriptor != _NONE:
            os.close(descriptor)

    # -- the thread

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers inherit this until they ignore it
        self._watch(self._wake_up, self._hear_commands)
        with serving(self._serve_once, partial(self._command, _do_nothing)):
            try:
                while not self._closed:
                    self._serve_once(None)
            except BaseException:  # nobody else would answer those who wait
                logger.exception("The thread of a worker pool failed; the pool is closed")
        self._shut_down()  # another thread may have closed what had no thread yet
        with self._lock:
            self._close_wake_up()
        self._run_commands()
        self._ended.set()

    def _serve_once(self, seconds: float | None) -> None:
        """Wait until something comes, so many seconds at most, and see to it; a callback that waits calls this too."""
        for descriptor, _ in self._poll.poll(self._milliseconds(seconds)):
            handler = self._handlers.get(descriptor)
            if handler is not None:  # it has not been ended by what came before
                handler()
        self._hand_out()

    def _hear_commands(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_up)
        self._run_commands()

    def _run_commands(self) -> None:
        for _ in range(len(self._commands)):  # what comes meanwhile waits until workers were heard
            try:
                command = self._commands.popleft()
            except IndexError:  # another thread took it, when this one has ended
                return
            command()

    def _milliseconds(self, seconds: float | None) -> float | None:
        """Return how long to wait, after the time limits that have passed were seen to."""
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.deadline <= now]:
            worker.is_late = True
            self._kill(worker)
        wait = min((worker.deadline - now for worker in self._workers), default=math.inf)
        wait = wait if seconds is None else min(wait, seconds)
        return None if wait == math.inf else math.ceil(min(_LONGEST_WAIT, wait) * 1000)

    def _watch(self, descriptor: int, handler: Callable[[], object]) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def _tell(self, settle: Callable[..., object], *args: object) -> None:
        """Tell how a task has ended; whatever its callbacks do, the thread goes on."""
        outer, self._is_telling = self._is_telling, True
        try:
            settle(*args)
        except BaseException:
            logger.exception("A callback failed when a task had ended")
        finally:
            self._is_telling = outer

    # -- tasks

    def _accept(self, task: Task) -> None:
        if self._closed:
            task.promise.fail(PoolClosedError())
        elif self._thread is None:  # it could not be started after all
            task.promise.fail(WorkerStartError(task.name, "can't start new thread"))
        else:
            self._waiting.put(task)

    def _stop(self, task: Task) -> None:
        worker = self._worker_of(task)
        if worker is not None:
            self._kill(worker)
        elif self._waiting.remove(task):  # its worker has died, and it was to be given to another
            self._tell(task.promise.discard)

    def _pass_messages_on(self, task: Task) -> None:
        self._with_messages.discard(task)
        worker = self._worker_of(task)
        if worker is not None:
            self._send(worker)

    def _worker_of(self, task: Task) -> _Worker | None:
        return next((worker for worker in self._workers if worker.task is task), None)

    def _hand_out(self) -> None:
        while self._waiting and not self._closed:
            if self._idle:
                task = self._waiting.get()
                if task.starts or task.take():
                    # The one that has done most has imported most; and those that are not needed are to end.
                    self._give(task, max(self._idle, key=_experience))
            elif self._may_start():
                self._start_worker()
            else:
                return

    def _give(self, task: Task, worker: _Worker) -> None:
        self._idle.remove(worker)
        try:
            payload = _dump_task(task)
        except BaseException as error:  # noqa: BLE001 - it travels to whoever gets the future
            self._idle.append(worker)
            self._tell(task.promise.fail, error)
        else:
            worker.begin(task, payload)
            self._send(worker)

    def _finish(self, worker: _Worker, settle: Callable[..., object], *args: object) -> None:
        """Have the worker done with its task."""
        self._failed_starts = 0  # what kept others from starting may be over
        worker.rest()
        if not worker.has_ended:
            self._idle.append(worker)
            self._hand_out()  # callbacks may take their time
        self._tell(settle, *args)

    # -- workers

    def _may_start(self) -> bool:
        starting = sum(not worker.is_ready for worker in self._workers)
        may_try = self._failed_starts < MAX_STARTS or not self._workers
        alive = sum(not worker.is_doomed for worker in self._workers)
        return may_try and starting < len(self._waiting) and alive < self._limit

    def _start_worker(self) -> None:
        try:
            process = start_process()
        except Exception as error:  # noqa: BLE001 - programs put anything in the place of subprocess
            self._fail_to_start(str(error) or repr(error), is_final=True)
            return
        worker = _Worker(process, self._options.answers.most_bytes)
        self._workers.append(worker)
        self._watch(process.socket.fileno(), lambda: self._hear(worker))
        self._watch(process.pidfd, lambda: self._bury(worker))
        options = self._options
        setup = pickle.dumps((options.name, options.memory_limit_bytes, options.answers, os.getpid()))
        worker.outgoing.extend(process.greeting)
        worker.outgoing.extend(packets(message(SETUP, 0, setup)))
        self._send(worker)

    def _fail_to_start(self, reason: str, *, is_final: bool = False) -> None:
        """Note that a process could not be started; fail what waits if none ever will be."""
        self._failed_starts += 1
        if not self._workers and (is_final or self._failed_starts >= MAX_STARTS):
            self._failed_starts = 0
            for task in self._waiting.take_all():
                self._tell(task.promise.fail, WorkerStartError(task.name, reason))

    def _send(self, worker: _Worker) -> None:
        """Send as much as the worker takes now, and look after the rest."""
        if not worker.has_ended and worker.process.socket.fileno() in self._handlers:  # it has not closed its end
            is_all = worker.send()
            self._poll.modify(worker.process.socket, select.POLLIN if is_all else select.POLLIN | select.POLLOUT)

    def _kill(self, worker: _Worker) -> None:
        worker.is_doomed = True
        worker.deadline = math.inf
        worker.process.kill()
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)

    def _hear(self, worker: _Worker) -> None:
        """Take in what a worker has sent."""
        try:
            for received in worker.receive():
                self._handle(worker, received[:1], int.from_bytes(received[1:_HEAD_BYTES]), received[_HEAD_BYTES:])
        except MalformedError as error:
            worker.fault = worker.fault or str(error)
            self._kill(worker)
        except EOFError:
            self._unwatch(worker.process.socket.fileno())
            self._kill(worker)  # one that has closed its end, and lives, can do nothing more
        else:
            self._send(worker)

    def _handle(self, worker: _Worker, kind: bytes, number: int, body: bytes) -> None:
        task, answers = worker.task, self._options.answers
        if worker.is_doomed:
            return
        if kind == HELLO and not worker.is_ready:
            self._welcome(worker, body)
        elif task is None or task.number != number or kind not in (RESULT, ERROR, REPORT):
            msg = "it sent something that nobody has asked for"
            raise MalformedError(msg)
        elif kind == RESULT:
            self._finish(worker, *_outcome(task.promise, task.promise.set, load_result, answers, body))
        elif kind == ERROR:
            self._finish(worker, *_outcome(task.promise, task.promise.fail, load_error, answers, body))
        elif len(body) > LARGEST_REPORT_BYTES:
            msg = f"it sent a report of {len(body)} bytes; {LARGEST_REPORT_BYTES} are the most"
            raise MalformedError(msg)
        else:
            self._pass_on(task, body)

    def _pass_on(self, task: Task, body: bytes) -> None:
        try:
            report = self._options.answers.load(body)
        except MalformedError:
            raise
        except BaseException:  # whatever a foreign class does when it is unpickled
            logger.exception("A report of %s cannot be read", task.name)
        else:
            self._reporter.pass_on(task, report)

    def _welcome(self, worker: _Worker, body: bytes) -> None:
        """Let a process that is ready take tasks."""
        if body != str(sys.implementation.cache_tag).encode():
            worker.fault = f"{find_python()} is another Python than this program's; set sys.executable to the right one"
            self._kill(worker)
            return
        self._failed_starts = 0
        worker.is_ready = True
        worker.rest()
        self._idle.append(worker)

    def _bury(self, worker: _Worker) -> None:
        """See to what a process that has ended leaves behind."""
        if not worker.process.has_ended():  # the descriptor was another's when this was told
            return
        worker.has_ended = True
        self._hear(worker)
        if worker not in self._workers:  # a callback has closed the pool
            return
        self._dismiss(worker)
        exit_code, task = worker.process.end(), worker.task
        if task is not None:
            self._settle_death(worker, task, exit_code)
        elif not worker.is_ready:
            reason = worker.fault or f"it ended with exit code {exit_code} before it was ready; {why_it_ended()}"
            # What a frozen program does once more as a worker is its own: that is not tried thrice.
            self._fail_to_start(reason, is_final=bool(worker.fault) or is_frozen())

    def _dismiss(self, worker: _Worker) -> None:
        self._unwatch(worker.process.socket.fileno())
        self._unwatch(worker.process.pidfd)
        self._workers.remove(worker)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)

    def _settle_death(self, worker: _Worker, task: Task, exit_code: int | None) -> None:
        if task.promise.future.has_discard():
            self._tell(task.promise.discard)
        elif worker.is_late:
            self._tell(task.promise.fail, WorkerTimeoutError(task.name, cast(float, task.time_limit)))
        elif worker.fault:
            self._tell(task.promise.fail, WorkerAnswerError(task.name, worker.fault))
        elif not worker.has_taken and task.starts < MAX_STARTS:
            self._waiting.put_back(task)
        elif worker.has_taken and task.retry:
            task.retry = False
            self._waiting.put_back(task)
        elif worker.has_taken:
            self._tell(task.promise.fail, WorkerDiedError(task.name, exit_code))
        else:
            self._tell(task.promise.fail, WorkerStartError(task.name))

    def _shut_down(self) -> None:
        """Kill what runs, wait for that, and only then refuse what waited for it."""
        self._closed = True
        workers = list(self._workers)
        for worker in workers:
            worker.has_ended = True
            worker.process.kill()
        for worker in workers:
            self._dismiss(worker)
            worker.process.end()
        for task in [*(worker.task for worker in workers if worker.task is not None), *self._waiting.take_all()]:
            if task.promise.future.has_discard():
                self._tell(task.promise.discard)
            else:
                self._tell(task.promise.fail, PoolClosedError())


class _Worker:
    """A worker process, as its engine sees it.

    Attributes:
        task: What it is at.
        tasks_begun: How many tasks it was given.
        deadline: When its task has run for too long, or it has been idle for too long; of the monotonic clock.
        outgoing: Packets that it has not taken yet.
        is_ready: Whether it has begun to take tasks.
        is_doomed: Whether it was killed; what it says no longer counts.
        is_late: ... since its task ran past the time limit.
        fault: ... since it sent something malformed, and what.
        has_taken: Whether it has read its task, as far as can be told.
        has_ended: Whether it can be given nothing any more.
    """

    def __init__(self, process: WorkerProcess, most_bytes: int) -> None:
        self.process = process
        self.task: Task | None = None
        self.tasks_begun = 0
        self.deadline = math.inf
        self.outgoing: deque[bytes | memoryview] = deque()
        self.is_ready = self.is_doomed = self.is_late = self.has_ended = False
        self.has_taken = True
        self.fault = ""
        self._told = 0  # the number of the last message to its task
        self._assembly = Assembly(most_bytes)

    def begin(self, task: Task, payload: bytes) -> None:
        """Give it a task."""
        self.task, self.has_taken, self._told = task, True, 0
        task.starts += 1
        self.tasks_begun += 1
        self.deadline = math.inf if task.time_limit is None else time.monotonic() + task.time_limit
        self.outgoing.extend(packets(message(TASK, task.number, payload)))

    def rest(self) -> None:
        """Have no task."""
        self.task = None
        self.deadline = time.monotonic() + IDLE_SECONDS

    def send(self) -> bool:
        """Send what it takes without waiting; tell whether that is all."""
        try:
            while self.outgoing or self._add_message():
                self.process.socket.send(self.outgoing[0], socket.MSG_NOSIGNAL)
                self.outgoing.popleft()
        except BlockingIOError:
            return False
        except OSError:  # it has ended, or closed its end, as the next events tell
            self._note_unread()
        return True

    def receive(self) -> Iterator[bytes]:
        """Yield the messages that have come; of one that sends without end, others have their turn meanwhile.

        Raises:
            MalformedError: What comes is none.
            EOFError: None comes any more.
        """
        for _ in range(PACKETS_AT_ONCE):
            if self.process.socket.fileno() < 0:  # a callback has closed the pool
                return
            try:
                packet = self.process.socket.recv(PACKET_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:  # the kernel's word for: it has closed its end, and left something unread
                self._note_unread()
                continue
            if not packet:
                raise EOFError
            complete = self._assembly.add(packet)
            if complete is not None:
                yield complete

    def _add_message(self) -> bool:
        """Let the next message to the task be the next packet; tell whether there was one."""
        task = self.task
        waiting = [] if task is None or task.messages is None else task.messages.after(self._told)
        for self._told, data in waiting[:1]:
            self.outgoing.append(message(MESSAGE, cast(Task, task).number, data))
        return bool(waiting)

    def _note_unread(self) -> None:
        """Note that it ended without reading all: its task, unless there were messages after that."""
        self.outgoing.clear()
        self.has_taken = self.has_taken and self._told > 0


def _experience(worker: _Worker) -> int:
    return worker.tasks_begun


def _do_nothing() -> None:
    pass


def _dump_task(task: Task) -> bytes:
    try:
        return pickle.dumps((task.function, task.argument))
    except Exception as error:
        msg = f"{task.name} or its argument cannot be sent to a worker process: {error}"
        raise pickle.PicklingError(msg) from error


def _outcome(
    promise: Promise[Any], settle: Callable[[Any], object], load: Callable[..., Any], answers: Answers, body: bytes
) -> tuple[Callable[[Any], object], Any]:
    """Return what to call with what, to settle a task with an answer."""
    try:
        return settle, load(answers, body)
    except MalformedError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a foreign class does when it is unpickled
        return promise.fail, error


_HEAD_BYTES = 1 + NUMBER_BYTES
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
