"""Ctrl-C and other signals that end the program: work under way is stopped and cleaned up first.

A handler that raises could do so anywhere, even while a lock is held. So handlers only record the signal, and the main
thread waits in one place for the work or a signal, whichever comes first.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from pykka_imagestore.runtime import Future

T = TypeVar("T")

_SAME_STOP = 1.0  # seconds
_LEFT = b"imagestore: ended at once; unfinished work is left behind\n"
_ERASE = b"\r\x1b[K"  # the progress bar
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(Exception):
    """A signal told the program to end.

    Attributes:
        signal_number: The signal.
    """

    def __init__(self, signal_number: signal.Signals) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class StopSignals:
    """Holds back the signals that end a program, so that ``wait`` can undo the work first.

    A signal a second or more after the first ends the program at once. One that comes sooner is the same stop, sent
    twice: GNU timeout signals its child and then the group, and uv and npm pass on what the terminal has sent already.

    For the main thread. The work must be started, and its result printed, inside the ``with`` block. Signals that are
    ignored, as under ``nohup``, stay ignored.
    """

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._before: dict[signal.Signals, Any] = {}
        self._received: signal.Signals | None = None
        self._received_at = 0.0

    def __enter__(self) -> Self:
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # Once stopped, the program is about to end, and the same stop may come again. Python resets handlers to
            # the default when it exits, but leaves ignored signals ignored.
            signal.signal(number, handler if self._received is None else signal.SIG_IGN)

    def wait(self, future: Future[T]) -> T:
        """Return the future's result, also if a signal came too late to stop the work.

        Raises:
            StoppedError: A signal came first, before this call or during it. The work has been stopped and undone.
            BaseException: The future failed with it.
        """
        future.on_any(self._events.put)
        if self._received is not None or self._events.get() is not future:
            future.discard()
            while self._events.get() is not future:
                pass
        # A signal to the process group may have killed the worker first, so any failure counts as the stop.
        if self._received is not None and not future.is_ready():
            raise StoppedError(self._received)
        return future.get(timeout=0)

    def wait_if_not_stopped(self, future: Future[Any]) -> None:
        """Wait for something that is not part of the work: a signal ends only the wait."""
        with suppress(StoppedError):
            self.wait(future)

    def do_if_not_stopped(self, work: Callable[[], None]) -> None:
        """Do in a thread what is not part of the work either: a signal ends only the wait, and then the program it."""
        errors = []

        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the waiting thread raises it
                errors.append(error)
            self._events.put(work)

        threading.Thread(target=run, daemon=True).start()
        if self._received is None:
            self._events.get()
        if errors:
            raise errors[0]

    def raise_if_stopped(self) -> None:
        """Raise StoppedError if a signal has come: for work that is done here, step by step."""
        if self._received is not None:
            raise StoppedError(self._received)

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._received is None:
            self._received, self._received_at = signal.Signals(number), now
            self._events.put(self._received)
        elif now - self._received_at >= _SAME_STOP:
            # A user who asks again does not want to wait; a later put removes what is left.
            with suppress(OSError):
                os.write(2, (_ERASE if os.isatty(2) else b"") + _LEFT)
            os._exit(128 + number)
