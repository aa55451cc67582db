"""Ctrl-C and its like while work is under way: the work is stopped and cleaned up before the program ends.

A handler that raises could do so anywhere, also while a lock is held. So the main thread waits at one place, for the
work or a signal, whichever comes first.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from pykka_imagestore.runtime import Future

T = TypeVar("T")

_SAME_STOP = 1.0  # seconds
_LEFT = b"imagestore: ended at once; what was begun is left\n"
_SHOW_CURSOR = b"\x1b[?25h\n"  # the progress bar hid it
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(Exception):
    """The user, or the system, wants the program to end.

    Attributes:
        signal_number: How that was said.
    """

    def __init__(self, signal_number: signal.Signals) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class StopSignals:
    """Holds back the signals that end a program, so that ``wait`` can undo the work first.

    One that comes a second or more after the first ends the program at once. Those that come sooner are the same stop,
    said twice: GNU timeout signals its child and then the group, uv and npm pass on what the terminal has sent already.

    For the main thread; the work is started, and what it was is printed, inside the ``with`` block. Signals that are
    ignored, as ``nohup`` has it, stay so.
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
            # Once stopped, the program is about to end, and the same stop may come once more. Python's own end puts
            # back the default for a handler, but not for one that ignores.
            signal.signal(number, handler if self._received is None else signal.SIG_IGN)

    def wait(self, future: Future[T]) -> T:
        """Return what the future becomes; what was done before a signal could stop it is done.

        Raises:
            StoppedError: A signal came first, before this call or during it. The work has been stopped, and nothing
                of it is left.
            BaseException: Whatever the future failed with.
        """
        future.on_any(self._events.put)
        if self._received is not None or self._events.get() is not future:
            future.discard()
            while self._events.get() is not future:
                pass
        # A signal to all our processes may have killed the worker before.
        if self._received is not None and not future.is_ready():
            raise StoppedError(self._received)
        return future.get(timeout=0)

    def wait_if_not_stopped(self, future: Future[Any]) -> None:
        """Wait for what is no part of the work; a signal only ends the wait, and does not count."""
        with suppress(StoppedError):
            self.wait(future)

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._received is None:
            self._received, self._received_at = signal.Signals(number), now
            self._events.put(self._received)
        elif now - self._received_at >= _SAME_STOP:
            # Who asks again does not want to wait; a later put sweeps up what is left.
            with suppress(OSError):
                os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + _LEFT)
            os._exit(128 + number)
