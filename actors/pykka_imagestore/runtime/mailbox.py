"""Bounded mailboxes: inboxes in which only so many messages wait. A message beyond that waits outside, or fails."""

from __future__ import annotations

import contextlib
import contextvars
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pykka

from pykka_imagestore.runtime.auto_reset_event import AutoResetEvent
from pykka_imagestore.runtime.callbacks import this_thread
from pykka_imagestore.runtime.coroutines import CoroutineTask
from pykka_imagestore.runtime.errors import MailboxFullError
from pykka_imagestore.runtime.inbox import NOTICES, Inbox, exc_info

WhenFull = Literal["wait", "fail"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many messages may wait in a mailbox, and what becomes of those beyond."""

    limit: int
    when_full: WhenFull = "wait"

    def __post_init__(self) -> None:
        if type(self.limit) is not int or self.limit < 1:
            msg = f"mailbox is a number of messages, 1 or more, or None for no limit: {self.limit!r} is neither"
            raise ValueError(msg)
        if self.when_full not in ("wait", "fail"):
            msg = f'when_full is "wait" or "fail", not {self.when_full!r}'
            raise ValueError(msg)


_next_bounds: contextvars.ContextVar[Bounds | None] = contextvars.ContextVar("bounds", default=None)


@contextlib.contextmanager
def bounded(bounds: Bounds | None) -> Iterator[None]:
    """Have the actor that is made in the block get such an inbox: Pykka passes nothing to where it makes the inbox."""
    token = _next_bounds.set(bounds)
    try:
        yield
    finally:
        _next_bounds.reset(token)


def new_inbox() -> Inbox:
    """Return an inbox for the actor that is being made."""
    bounds = _next_bounds.get()
    return Inbox() if bounds is None else BoundedInbox(bounds)


class BoundedInbox(Inbox):
    """An inbox with a limit to the messages that wait in it.

    What the runtime sends itself does not count: steps of async methods, the stop, the ends of linked actors.

    A message goes in beyond the limit where its sender must not be held up, for it might wait for ever: the actor
    itself; a callback of a future, which runs in whatever thread completes that, and maybe in the garbage collector;
    a thread that serves many, such as that of the timers; an actor for which this one waits in turn.
    """

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self._limit = bounds.limit
        self._fails = bounds.when_full == "fail"
        self._places_taken = 0
        self._line: deque[_Sender] = deque()
        self._waits_for: BoundedInbox | None = None  # where this actor's thread waits for a place

    def is_full(self) -> bool:
        return self._places_taken >= self._limit

    def put(self, envelope: Any, timeout: float | None = None) -> None:
        """Add a message, once there is a place for it, or refuse it; see ``Inbox.put``.

        Args:
            timeout: Seconds to wait for a place; None waits for ever.

        Raises:
            MailboxFullError: There is no place, messages beyond the limit fail, and the sender does not wait for an
                answer with this error.
            pykka.Timeout: There was no place in time.
            pykka.ActorDeadError: The actor ended before there was a place, and the sender does not wait for an answer.
        """
        if not self.is_here() or isinstance(envelope.message, NOTICES):
            super().put(envelope)
            return
        sender = self._enter(envelope)
        try:
            if not sender.is_in and not self.closed and not self._fails:
                self._wait(sender, timeout)
        finally:
            self._leave_line(sender)
        if not sender.is_in:
            self._refuse(envelope, timeout)

    def get(self) -> Any:
        envelope = self.take()
        if type(envelope) is not CoroutineTask and not isinstance(envelope.message, NOTICES):
            self._give_place_back()
        return envelope

    def close(self) -> None:
        super().close()
        self._send_line_away()

    def terminate(self) -> None:
        super().terminate()
        self._send_line_away()

    def _enter(self, envelope: Any) -> _Sender:
        """Add a message if there is a place for it; else have its sender stand in line, unless it is to fail."""
        thread = this_thread()
        never_waits = thread.inbox is self or thread.depth > 0 or thread.pump is not None
        sender = _Sender(envelope)
        with self._lock:
            if not self.closed:
                if self._places_taken < self._limit or (never_waits and not self._fails):
                    self._let_in(sender)
                elif not self._fails:
                    self._line.append(sender)
        return sender

    def _let_in(self, sender: _Sender) -> None:
        self._places_taken += 1
        self._queue.put(sender.envelope)
        sender.is_in = True

    def _wait(self, sender: _Sender, timeout: float | None) -> None:
        mine = this_thread().inbox
        if not isinstance(mine, BoundedInbox):
            sender.woken.wait(timeout)
            return
        mine._waits_for = self  # before the look at the others: of several that close a circle, the last one sees it
        try:
            if self._waits_in_turn_for(mine):
                self._pass_line(sender)
            else:
                sender.woken.wait(timeout)
        finally:
            mine._waits_for = None

    def _waits_in_turn_for(self, other: BoundedInbox) -> bool:
        inbox: BoundedInbox | None = self
        while inbox is not None and inbox is not other:
            inbox = inbox._waits_for
        return inbox is other

    def _pass_line(self, sender: _Sender) -> None:
        with self._lock:
            if sender in self._line and not self.closed:
                self._line.remove(sender)
                self._let_in(sender)

    def _leave_line(self, sender: _Sender) -> None:
        with self._lock:
            if sender in self._line:
                self._line.remove(sender)

    def _give_place_back(self) -> None:
        woken = []
        with self._lock:
            self._places_taken -= 1
            while self._line and self._places_taken < self._limit and not self.closed:
                sender = self._line.popleft()
                self._let_in(sender)
                woken.append(sender)
        for sender in woken:
            sender.woken.set()

    def _send_line_away(self) -> None:
        """Have all that wait in line find the inbox closed."""
        with self._lock:
            line, self._line = self._line, deque()
        for sender in line:
            sender.woken.set()

    def _refuse(self, envelope: Any, timeout: float | None) -> None:
        error: Exception
        if self.closed:
            error = pykka.ActorDeadError(f"{self.owner} ended before there was a place in its mailbox")
        elif self._fails:
            error = MailboxFullError(self.owner, self._limit)
        else:
            error = pykka.Timeout(f"{timeout} seconds")
        if envelope.reply_to is None:
            raise error
        envelope.reply_to.set_exception(exc_info(error))


class _Sender:
    """One that waits for a place for its message."""

    __slots__ = ("envelope", "is_in", "woken")

    def __init__(self, envelope: Any) -> None:
        self.envelope = envelope
        self.is_in = False
        self.woken = AutoResetEvent()
