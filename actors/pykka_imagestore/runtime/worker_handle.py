"""One worker process as its engine sees it: the task it has, what is sent to it, and what it answers."""

from __future__ import annotations

import math
import os
import pickle
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import cast

from pykka_imagestore.runtime.errors import (
    WorkerAnswerError,
    WorkerDiedError,
    WorkerError,
    WorkerStartError,
    WorkerTimeoutError,
)
from pykka_imagestore.runtime.interfaces import WorkerOptions
from pykka_imagestore.runtime.launch import WorkerProcess
from pykka_imagestore.runtime.tasks import Task
from pykka_imagestore.runtime.wire import (
    MESSAGE,
    PACKET_BYTES,
    SETUP,
    TASK,
    Reassembler,
    message,
    packets,
    parse_message,
)

MAX_PACKETS_AT_ONCE = 1000  # more than a socket holds
MAX_STARTS = 3  # how often a task is given to a process that ends before it has taken the task
IDLE_SECONDS = 30.0  # after which a worker without a task ends


class WorkerHandle:
    """A worker process, its task, and the packets on their way to it.

    Args:
        setup: The message to send first; see ``dump_setup``.
        max_bytes: How large one of its answers may be.

    Attributes:
        task: The task that it has.
        tasks_begun: How many tasks it was given.
        deadline: When it is killed, on the monotonic clock: its task ran for too long, or it was idle for too long.
        is_ready: Whether it has said that it can take tasks.
        is_doomed: Whether it was killed; what it says no longer counts.
        fault: What it sent that no worker sends, if it was killed for that.
        is_full: Whether its socket takes no packet at the moment.
        has_ended: Whether its process has ended, or has closed its end, so that it can be given nothing.
    """

    def __init__(self, process: WorkerProcess, setup: bytes, max_bytes: int) -> None:
        self.process = process
        self.task: Task | None = None
        self.tasks_begun = 0
        self.deadline = math.inf
        self._outgoing = deque([*process.greeting, *packets(setup)])
        self.is_ready = self.is_doomed = self.is_full = self.has_ended = False
        self.fault = ""
        self._is_late = False
        self._has_taken = True  # its task, as far as can be told
        self._told = 0  # the number of the last message that was sent to its task
        self._reassembler = Reassembler(max_bytes)

    def begin(self, task: Task, payload: bytes) -> None:
        """Give it a task."""
        self.task, self._has_taken, self._told = task, True, 0
        task.starts += 1
        self.tasks_begun += 1
        self.deadline = math.inf if task.time_limit is None else time.monotonic() + task.time_limit
        self._outgoing.extend(packets(message(TASK, task.number, payload)))

    def rest(self) -> None:
        """Take its task away: it is done."""
        self.task = None
        self.deadline = time.monotonic() + IDLE_SECONDS

    def kill(self, fault: str = "", *, is_late: bool = False) -> None:
        """Have the process end.

        Args:
            fault: What it sent that no worker sends.
            is_late: Whether its deadline has passed.
        """
        self.is_doomed = True
        self.fault = self.fault or fault
        self._is_late = self._is_late or is_late
        self.deadline = math.inf
        self.process.kill()

    def send(self) -> bool:
        """Send as much as fits into the socket; return whether that is all."""
        try:
            while self._outgoing or self._add_message():
                self.process.socket.send(self._outgoing[0], socket.MSG_NOSIGNAL)
                self._outgoing.popleft()
        except BlockingIOError:
            return False
        except OSError:  # it has ended, or closed its end; further events of its descriptors tell which
            self._note_unread()
        return True

    def receive(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Yield the messages that have come: kind, number of the task, body.

        It stops after a while, so that a worker which sends without end leaves the others their turn.

        Raises:
            MalformedError: A packet is not part of any message.
            EOFError: The worker has closed its end.
        """
        for _ in range(MAX_PACKETS_AT_ONCE):
            if self.process.socket.fileno() < 0:  # a callback has closed the pool
                return
            try:
                packet = self.process.socket.recv(PACKET_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:  # how the kernel says that it closed its end without reading everything
                self._note_unread()
                continue
            if not packet:
                raise EOFError
            complete = self._reassembler.add(packet)
            if complete is not None:
                yield parse_message(complete)

    def end(self) -> int | None:
        """Wait until the process has ended, release its descriptors, and return its exit code if that is known."""
        return self.process.end()

    def death(self, exit_code: int | None) -> WorkerError | None:
        """Return the error that its task fails with since the process has ended; None if the task is to run again."""
        task = cast(Task, self.task)
        if self._is_late:
            return WorkerTimeoutError(task.name, cast(float, task.time_limit))
        if self.fault:
            return WorkerAnswerError(task.name, self.fault)
        if not self._has_taken:
            return None if task.starts < MAX_STARTS else WorkerStartError(task.name)
        if task.retry:
            task.retry = False
            return None
        return WorkerDiedError(task.name, exit_code)

    def _add_message(self) -> bool:
        """Queue the next message to the task as the next packet; return whether there was one."""
        task = self.task
        waiting = [] if task is None or task.messages is None else task.messages.after(self._told)
        for self._told, data in waiting[:1]:
            self._outgoing.append(message(MESSAGE, cast(Task, task).number, data))
        return bool(waiting)

    def _note_unread(self) -> None:
        """Note that it ended without reading everything: its task, unless messages followed that."""
        self._outgoing.clear()
        self._has_taken = self._has_taken and self._told > 0


def dump_setup(options: WorkerOptions) -> bytes:
    """Return the message that sets a worker up; PicklingError if the answers cannot be sent."""
    try:
        return message(SETUP, 0, pickle.dumps((options.name, options.memory_limit_bytes, options.answers, os.getpid())))
    except Exception as error:
        msg = f"the pool's answers, {type(options.answers).__name__}, cannot be sent to a worker process: {error}"
        raise pickle.PicklingError(msg) from error


def dump_task(task: Task) -> bytes:
    """Return a task's function and argument as a worker takes them; PicklingError if they cannot be sent."""
    try:
        return pickle.dumps((task.function, task.argument))
    except Exception as error:
        msg = f"{task.name} or its argument cannot be sent to a worker process: {error}"
        raise pickle.PicklingError(msg) from error
