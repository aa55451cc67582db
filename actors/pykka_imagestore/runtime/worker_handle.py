"""One worker process as its engine sees it: the task it has, what is sent to it, and what it answers."""

from __future__ import annotations

import math
import os
import pickle
import socket
import time
from collections import deque

from pykka_imagestore.runtime import wire
from pykka_imagestore.runtime.errors import WorkerAnswerError, WorkerDiedError, WorkerError, WorkerStartError
from pykka_imagestore.runtime.interfaces import WorkerOptions
from pykka_imagestore.runtime.launch import WorkerProcess
from pykka_imagestore.runtime.tasks import Task

MAX_PACKETS_AT_ONCE = 100  # of a large message, so that the other workers have their turn
MAX_STARTS = 3  # how often a task is given to a process that ends before it has taken the task
IDLE_SECONDS = 30.0  # after which a worker without a task ends


class WorkerHandle(WorkerProcess):
    """A worker process, its task, and the packets on their way to it.

    Args:
        setup: The message to send first; see ``dump_setup``.
        max_bytes: How large one of its answers may be.

    Attributes:
        task: The task that it has.
        tasks_begun: How many tasks it was given.
        deadline: When it is killed, on the monotonic clock: its task ran for too long, or it was idle for too long.
        is_ready: Whether it has said that it can take tasks.
        is_doomed: Whether it was killed, or has closed its end; nothing that it says counts any more.
        outgoing: The packets that its socket has not taken yet.
        fault: Why it was killed: it sent what no worker sends, or its task ran for too long.
    """

    def __init__(self, setup: bytes, max_bytes: int) -> None:
        super().__init__()
        self.task: Task | None = None
        self.tasks_begun = 0
        self.deadline = math.inf
        self.is_ready = self.is_doomed = False
        self.fault: Exception | None = None
        self.outgoing = deque(wire.packets(setup))
        self._has_taken = True  # its task, as far as can be told
        self._told = 0  # the number of the last message that was sent to its task
        self._reassembler = wire.Reassembler(max_bytes)

    def begin(self, task: Task, payload: bytes) -> None:
        """Give it a task."""
        self.task, self._has_taken, self._told = task, True, 0
        task.starts += 1
        self.tasks_begun += 1
        self.deadline = math.inf if task.time_limit is None else time.monotonic() + task.time_limit
        self.outgoing.extend(wire.packets(wire.message(wire.TASK, task.number, payload)))

    def rest(self) -> None:
        """Take its task away: it is done."""
        self.task = None
        self.deadline = time.monotonic() + IDLE_SECONDS

    def send(self) -> bool:
        """Send as much as fits into the socket; return whether that is all."""
        try:
            while self.outgoing or self._add_message():
                self.socket.send(self.outgoing[0], socket.MSG_NOSIGNAL)
                self.outgoing.popleft()
        except BlockingIOError:
            return False
        except OSError:  # it has ended, or closed its end; further events of its descriptors tell which
            self._note_unread()
        return True

    def receive(self) -> tuple[bytes, int, bytes] | None:
        """Return the next message: its kind, its task's number and its body. None if it is not there yet.

        Raises:
            MalformedError: A packet is not part of any message.
            EOFError: The worker has closed its end.
        """
        for _ in range(MAX_PACKETS_AT_ONCE):
            try:
                packet = self.socket.recv(wire.PACKET_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:  # how the kernel says that it closed its end without reading everything
                self._note_unread()
                continue
            if not packet:
                raise EOFError
            message = self._reassembler.add(packet)
            if message is not None:
                return message
        return None

    def death(self, task: Task, exit_code: int | None) -> WorkerError | None:
        """Return the error that its task fails with since the process has ended; None if the task is to run again."""
        if isinstance(self.fault, wire.MalformedError):
            return WorkerAnswerError(task.name, str(self.fault))
        if isinstance(self.fault, WorkerError):
            return self.fault
        if not self._has_taken:
            return None if task.starts < MAX_STARTS else WorkerStartError(task.name)
        if task.retry:
            task.retry = False
            return None
        return WorkerDiedError(task.name, exit_code)

    def _add_message(self) -> bool:
        """Queue the next message to the task as the next packet; return whether there was one."""
        if self.task is None or self.task.messages is None:
            return False
        waiting = self.task.messages.after(self._told)
        for self._told, data in waiting[:1]:
            self.outgoing.extend(wire.packets(wire.message(wire.MESSAGE, self.task.number, data)))
        return bool(waiting)

    def _note_unread(self) -> None:
        """Note that it ended without reading everything: its task, unless messages followed that."""
        self.outgoing.clear()
        self._has_taken = self._has_taken and self._told > 0


def dump_setup(options: WorkerOptions) -> bytes:
    """Return the message that sets a worker up; PicklingError if the answers cannot be sent."""
    setup = (options.name, options.memory_limit_bytes, options.answers, os.getpid())
    what = f"the pool's answers, {type(options.answers).__name__},"
    return wire.message(wire.SETUP, 0, _dump(setup, what))


def dump_task(task: Task) -> bytes:
    """Return a task's function and argument as a worker takes them; PicklingError if they cannot be sent."""
    return _dump((task.function, task.argument), f"{task.name} or its argument")


def _dump(value: object, what: str) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:
        msg = f"{what} cannot be sent to a worker process: {error}"
        raise pickle.PicklingError(msg) from error
