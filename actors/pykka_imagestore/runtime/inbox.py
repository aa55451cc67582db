"""The inbox of an actor, which answers every message although the actor ends."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pykka
from pykka.messages import _ActorStop

from pykka_imagestore.runtime import forks
from pykka_imagestore.runtime.coroutines import CoroutineTask
from pykka_imagestore.runtime.errors import ForkedError
from pykka_imagestore.runtime.future import Future


@dataclass(slots=True, eq=False)
class Envelope:
    """A message and its reply; Pykka's own class is not public."""

    message: object
    reply_to: Future[Any] | None = None


@dataclass(slots=True)
class Exited:
    """Tells an actor that one which it linked has ended."""

    ref: pykka.ActorRef[Any]


NOTICES = (_ActorStop, Exited)  # messages of the runtime's own


class Inbox:
    """An actor's inbox that loses no reply: once closed, it refuses new messages and those that waited.

    Pykka checks that an actor lives, then puts the message; one that is put after the final drain would never be
    answered. The lock is reentrant, because an abandoned future may complete, and so send a message, during any
    allocation. For the same reason nothing that may take another lock is called under it.

    Attributes:
        owner: The actor in errors. The actor sets it, since Pykka makes the inbox without saying for which actor.
        closed: Whether it refuses messages.
    """

    def __init__(self) -> None:
        self.owner = "this actor"
        self.closed = False
        self._ended = False
        self._origin = forks.here
        self._lock = threading.RLock()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._put_back: deque[Any] = deque()
        self._watchers: dict[object, Callable[[], object]] = {}

    def is_here(self) -> bool:
        """Tell whether the actor is in this process; not in a child that was forked since."""
        return self._origin is forks.here

    def put(self, envelope: Any) -> None:
        """Add a message, or refuse it if the actor is ending or in another process.

        Raises:
            ForkedError: The actor is in another process, and the sender does not wait for an answer with this error.
        """
        if self._origin is not forks.here:
            if envelope.reply_to is None:
                raise ForkedError(self.owner)
            envelope.reply_to.set_exception(exc_info(ForkedError(self.owner)))
            return
        with self._lock:
            if not self.closed:
                self._queue.put(envelope)
                return
        _refuse(envelope)

    def put_step(self, task: CoroutineTask) -> None:
        """Add the next step of an async method, also when the inbox is closed: the actor runs it or closes the task."""
        self._queue.put(task)

    def put_back(self, envelopes: list[Any]) -> None:
        """Put messages that were taken but not served in front; if closed, refuse all but those that stop the actor."""
        with self._lock:
            refused = [each for each in envelopes if self.closed and not isinstance(each.message, _ActorStop)]
            self._put_back.extendleft(each for each in reversed(envelopes) if each not in refused)
        for each in refused:
            _refuse(each)

    def get(self) -> Any:
        """Take the next message, waiting for one."""
        while self._put_back:
            with contextlib.suppress(IndexError):  # ``terminate`` has taken all of them meanwhile
                return self._put_back.popleft()
        return self._queue.get()

    take = get  # for messages that are put back, and so keep their places where these are limited

    def is_full(self) -> bool:
        """Tell whether a message would wait for a place, or fail."""
        return False

    def empty(self) -> bool:
        """Tell whether no message waits."""
        return not self._put_back and self._queue.empty()

    def close(self) -> None:
        """Refuse all messages from now on; those that wait stay, for Pykka to drain."""
        with self._lock:
            self.closed = True

    def terminate(self) -> None:
        """Refuse all messages, the waiting ones too, and stop the actor after its current one."""
        refused, steps = [], []
        with self._lock:
            if self.closed:
                return
            self.closed = True
            waiting = self._take_all()
            self._queue.put(Envelope(_ActorStop()))
            for each in waiting:
                if type(each) is CoroutineTask:
                    steps.append(each)
                elif isinstance(each.message, _ActorStop):
                    self._queue.put(each)
                else:
                    refused.append(each)
            for step in steps:  # behind the stop: they run if an async on_stop waits for them
                self._queue.put(step)
        for each in refused:
            _refuse(each)

    def on_ended(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call ``callback`` when the actor has ended; at once if it has.

        Returns:
            Withdraws the callback.

        Raises:
            ForkedError: It is in another process.
        """
        self._origin.require(self.owner)
        key = object()
        with self._lock:
            if not self._ended:
                self._watchers[key] = callback
                return lambda: self._watchers.pop(key, None)
        callback()
        return lambda: None

    def end(self) -> None:
        """Tell that the actor has ended."""
        with self._lock:
            self._ended = True
            watchers, self._watchers = self._watchers, {}
        for watcher in watchers.values():
            watcher()

    def _take_all(self) -> list[Any]:
        """Take all waiting messages but those that the actor takes at the same time."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._put_back.popleft())
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._queue.get_nowait())
        return taken


def inbox_of(ref: pykka.ActorRef[Any]) -> Inbox:
    """Return the inbox of a runtime Actor; TypeError for any other actor."""
    if not isinstance(ref.actor_inbox, Inbox):
        msg = f"{ref} is no runtime Actor: derive {ref.actor_class.__name__} from pykka_imagestore.runtime.Actor"
        raise TypeError(msg)
    return ref.actor_inbox


def _refuse(envelope: Any) -> None:
    if envelope.reply_to is not None:
        envelope.reply_to.set_exception(exc_info(pykka.ActorDeadError("the actor has ended")))


def exc_info(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return an error as ``sys.exc_info()`` would in its handler."""
    return type(error), error, error.__traceback__
