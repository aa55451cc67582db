"""Ctrl-C and its like while work is under way: the work is stopped and cleaned up before the program ends.

A handler that raises could do so anywhere, also while a lock is held. So the main thread waits at one place, for the
work or a signal, whichever comes first.
"""

from __future__ import annotations

import os
import queue
import signal
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from pykka_imagestore.runtime import Future

T = TypeVar("T")

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
    """Holds back the signals that end a program, so that ``wait`` can undo the work first; the second one ends it.

    For the main thread; the work is started inside the ``with`` block. Signals that are ignored, as ``nohup`` has it,
    stay so.
    """

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._before: dict[signal.Signals, Any] = {}
        self._received: signal.Signals | None = None

    def __enter__(self) -> Self:
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, future: Future[T]) -> T:
        """Return what the future becomes.

        Raises:
            StoppedError: A signal came first, before this call or during it. The work has been stopped, and nothing
                of it is left.
            BaseException: Whatever the future failed with.
        """
        future.on_any(self._events.put)
        event = self._events.get()
        if event is not future:
            future.discard()
            self._events.get()
        if self._received is not None:  # a signal to all our processes may have killed the worker before
            raise StoppedError(self._received)
        return future.get(timeout=0)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._received is not None:
            # Who asks twice does not want to wait; a later put sweeps up what is left.
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
            os._exit(128 + number)
        self._received = signal.Signals(number)
        self._events.put(self._received)
