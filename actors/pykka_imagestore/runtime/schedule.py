"""Messages that an actor is told later, once or again and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pykka

from pykka_imagestore.runtime.errors import MailboxFullError
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.runtime.inbox import Envelope, inbox_of
from pykka_imagestore.runtime.timers import Timer, timers

logger = logging.getLogger(__name__)


class ScheduledMessage:
    """A message that an actor is told when it is due. It ends with the actor, and goes on although nothing keeps it."""

    def __init__(self, ref: pykka.ActorRef[Any], seconds: float, message: object, *, repeats: bool) -> None:
        if not 0 <= seconds <= threading.TIMEOUT_MAX or (repeats and not seconds):
            msg = f"seconds is finite, and {'above 0' if repeats else '0 or more'}: {seconds!r} is not"
            raise ValueError(msg)
        self._inbox = inbox_of(ref)
        self._origin = Origin()
        self._message = message
        self._interval = seconds if repeats else None
        self._due = time.monotonic() + seconds
        self._is_over = False
        self._timer: Timer | None = None
        self._forget_end: Callable[[], object] = _nothing  # the actor may have ended, and cancel this at once
        self._forget_end = self._inbox.on_ended(self.cancel)
        if not self._is_over:
            self._start()

    def cancel(self) -> bool:
        """Have the message not be told any more; one that is being told at this moment may still come.

        Returns:
            False if it was cancelled, told for the last time, or its actor ended before. In a forked child, which has
            no part in it, too.
        """
        was_over, self._is_over = self._is_over, True
        if was_over or not self._origin.is_here():
            return False
        self._forget()
        return True

    def is_over(self) -> bool:
        """Tell whether the message will not be told any more, or is another process's."""
        return self._is_over or not self._origin.is_here()

    def _start(self) -> None:
        try:
            self._set_timer()
        except RuntimeError:  # no more threads
            self.cancel()
            raise

    def _set_timer(self) -> None:
        self._timer = timers.call_later(self._due - time.monotonic(), self._tell)
        if self._is_over:  # it was cancelled meanwhile
            self._timer.cancel()

    def _tell(self) -> None:
        """Tell the message, in the thread of the timers, which never waits for a place in a mailbox."""
        message = self._message
        if self._is_over:
            return
        if self._interval is None:
            self._is_over = True
            self._forget()
            self._put(message)
            return
        # From the time at which it was due, so that lateness does not add up; times that have passed are left out.
        self._due += self._interval * max(1, (time.monotonic() - self._due) // self._interval + 1)
        if not self._inbox.is_full():
            self._put(message)
        self._set_timer()

    def _put(self, message: object) -> None:
        try:
            self._inbox.put(Envelope(message))
        except MailboxFullError as error:
            logger.warning("A message that was due is dropped: %s", error)
        except pykka.ActorDeadError:
            logger.debug("%s has ended; a message that was due is dropped", self._inbox.owner)

    def _forget(self) -> None:
        """Free the message, and what refers to this."""
        self._message = None
        self._forget_end()
        if self._timer is not None:
            self._timer.cancel()


def _nothing() -> None:
    pass


def tell_later(ref: pykka.ActorRef[Any], seconds: float, message: object) -> ScheduledMessage:
    """Tell an actor a message in ``seconds``, unless it has ended by then.

    If its mailbox is full, the message goes in beyond the limit; it is dropped, and that is logged, where messages
    beyond the limit fail.

    Raises:
        TypeError: The actor is no runtime Actor, and so does not tell when it ends.
        ForkedError: The actor is the parent's, and this is a forked child.
    """
    return ScheduledMessage(ref, seconds, message, repeats=False)


def tell_every(ref: pykka.ActorRef[Any], seconds: float, message: object) -> ScheduledMessage:
    """Tell an actor a message each ``seconds``, for the first time in ``seconds``, until it is cancelled or has ended.

    The times are multiples of ``seconds`` after the call: lateness does not add up. A time that has passed already, as
    while the machine was suspended, is left out, and so is one at which the mailbox is full.

    Raises:
        TypeError: The actor is no runtime Actor, and so does not tell when it ends.
        ForkedError: The actor is the parent's, and this is a forked child.
    """
    return ScheduledMessage(ref, seconds, message, repeats=True)
