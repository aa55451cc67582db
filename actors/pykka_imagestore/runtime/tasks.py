"""What all engines of a worker pool share: tasks, their queue, and the messages to and from them."""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pykka_imagestore.runtime.future import Promise
from pykka_imagestore.runtime.thread_pool import ThreadPool

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 60_000  # what fits into one packet
MAX_MESSAGES = 100
MAX_REPORTS = 1000  # waiting for a slow listener


class Messages:
    """Messages to one task, which takes them with ``receive``. Thread-safe, and never blocks.

    Messages that are sent before the task runs wait for it. At most a hundred are kept, the latest. A task that is run
    again because its worker died gets all of these again.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._sent: deque[tuple[int, bytes]] = deque(maxlen=MAX_MESSAGES)
        self._listener: Callable[[], object] | None = None

    def send(self, message: object) -> None:
        """Send a message.

        Args:
            message: Picklable, 60,000 bytes at most.

        Raises:
            ValueError: It is larger.
        """
        data = pickle.dumps(message)
        if len(data) > MAX_MESSAGE_BYTES:
            msg = f"a message to a task takes {MAX_MESSAGE_BYTES} bytes at most, not {len(data)}"
            raise ValueError(msg)
        self._sent.append((next(self._numbers), data))
        listener = self._listener
        if listener is not None:
            listener()

    def listen(self, listener: Callable[[], object] | None) -> None:
        """Have ``listener`` called in the sender's thread after each message; None for none."""
        self._listener = listener

    def after(self, number: int) -> list[tuple[int, bytes]]:
        """Return the numbers and pickles of the messages after the one with this number; the first has number 1."""
        return [each for each in list(self._sent) if each[0] > number]


@dataclass(slots=True, eq=False)
class Task:
    """A function to run, and the promise of its result.

    Attributes:
        stop_file: The path of a file that tells the task to stop, for engines that have no other way.
        starts: How often it was given to a worker.
        is_taken: Whether an engine has claimed it for a worker; it may wait all the same, for another one.
    """

    number: int
    function: Callable[[Any], Any]
    argument: Any
    retry: bool = False
    idle: bool = False
    time_limit: float | None = None
    on_report: Callable[[Any], object] | None = None
    messages: Messages | None = None
    stop_file: str | None = None
    promise: Promise[Any] = field(default_factory=Promise)
    starts: int = 0
    is_taken: bool = False
    _claim: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__qualname__", repr(self.function))

    def require_module(self) -> None:
        """Raise ValueError if the function is defined in the program's script."""
        if getattr(self.function, "__module__", None) == "__main__":
            msg = (
                f"{self.name} is defined in the program's script, which worker processes do not import; "
                "move it to a module"
            )
            raise ValueError(msg)

    def take(self) -> bool:
        """Claim the task for a worker, once; return False if it was discarded while it waited."""
        if not self._claim.acquire(blocking=False):
            return False
        self.is_taken = True
        return True

    def discard_waiting(self) -> bool:
        """Discard the task at once if no worker has taken it; return whether that was so."""
        if not self._claim.acquire(blocking=False):
            return False
        self.promise.discard()
        return True


class TaskQueue:
    """Waiting tasks, first in first out; those for idle workers come last."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._idle_tasks: deque[Task] = deque()

    def __len__(self) -> int:
        return len(self._tasks) + len(self._idle_tasks)

    def put(self, task: Task) -> None:
        """Add a task at the end."""
        (self._idle_tasks if task.idle else self._tasks).append(task)

    def put_back(self, task: Task) -> None:
        """Add a task in front, which was removed before."""
        (self._idle_tasks if task.idle else self._tasks).appendleft(task)

    def get(self) -> Task:
        """Remove and return the next task; IndexError if there is none."""
        return (self._tasks or self._idle_tasks).popleft()

    def take_all(self) -> list[Task]:
        """Remove all tasks, and return those that were not discarded."""
        tasks = [*self._tasks, *self._idle_tasks]
        self._tasks.clear()
        self._idle_tasks.clear()
        return [task for task in tasks if task.is_taken or task.take()]

    def remove(self, task: Task) -> bool:
        """Remove a task; return whether it was there."""
        for tasks in (self._tasks, self._idle_tasks):
            if task in tasks:
                tasks.remove(task)
                return True
        return False


class Reporter:
    """Calls tasks' ``on_report``, in order, in a thread of its own, since a listener may be slow."""

    def __init__(self) -> None:
        self._threads = ThreadPool(1, "imagestore-reports")
        self._waiting: deque[Callable[[], object]] = deque()

    def pass_on(self, task: Task, message: object) -> None:
        """Have a task's listener called, if it has one; drop the report if too many wait."""
        if task.on_report is not None and len(self._waiting) < MAX_REPORTS:
            self._waiting.append(partial(task.on_report, message))
            try:
                self._threads.call(self._call_next)
            except RuntimeError:  # no thread could be started
                self._waiting.clear()

    def _call_next(self) -> None:
        try:
            self._waiting.popleft()()
        except Exception:
            logger.exception("A task's on_report failed")
