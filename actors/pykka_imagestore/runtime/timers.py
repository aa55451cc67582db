"""One thread that calls functions after a delay. It sleeps until the next one is due.

The garbage collector may run at any point here, and with it a callback that sets a timer. So the lock is reentrant, and
a timer that is set in the middle of another call is neither lost nor noticed too late.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

from pykka_imagestore.runtime.auto_reset_event import AutoResetEvent
from pykka_imagestore.runtime.callbacks import serving

logger = logging.getLogger(__name__)


class Timer:
    """A call that is due at ``deadline``, unless cancelled before."""

    def __init__(self, deadline: float, function: Callable[[], object]) -> None:
        self.deadline = deadline
        self._function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Drop the call, and what it refers to; does nothing if it was made already."""
        self._function = None

    def is_cancelled(self) -> bool:
        """Tell whether the call was cancelled, or made already."""
        return self._function is None

    def fire(self) -> None:
        """Make the call; what it raises is logged."""
        function, self._function = self._function, None
        if function is None:
            return
        try:
            function()
        except BaseException:
            logger.exception("A timer's function failed")


class Timers:
    """Calls functions after a while, in a thread of its own that starts with the first."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew in a forked child; all timers, and their thread, belong to the parent."""
        self._lock = threading.RLock()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Timer]] = []
        self._max_heap = 100  # timers in the heap before the cancelled ones are removed
        self._first_changed = AutoResetEvent()
        self._has_thread = False

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call ``function`` in ``seconds``, in the timer thread; it must not block."""
        timer = Timer(time.monotonic() + seconds, function)
        entry = (timer.deadline, next(self._order), timer)
        with self._lock:
            if len(self._heap) > self._max_heap:
                self._drop_cancelled()
            heapq.heappush(self._heap, entry)
            is_first = self._heap[0] is entry
            needs_thread, self._has_thread = not self._has_thread, True
        if needs_thread:
            try:
                threading.Thread(target=self._run, name="imagestore-timers", daemon=True).start()
            except RuntimeError:  # no more threads
                self._has_thread = False
                timer.cancel()
                raise
        elif is_first:
            self._first_changed.set()
        return timer

    def _run(self) -> None:
        with serving(self._serve, self._first_changed.set):  # a function may wait for another timer
            while True:
                self._serve(None)

    def _serve(self, seconds: float | None) -> None:
        """Make the call that is due; else wait until one is, or another timer is the first, at most for so long."""
        due = None
        with self._lock:
            if self._heap:
                remaining = self._heap[0][0] - time.monotonic()
                if remaining <= 0:
                    due = heapq.heappop(self._heap)[2]
                elif seconds is None or remaining < seconds:
                    seconds = remaining
        if due is not None:
            due.fire()
            return
        self._first_changed.wait(seconds)

    def _drop_cancelled(self) -> None:
        entries, self._heap = self._heap, []
        for entry in entries:
            if not entry[2].is_cancelled():
                heapq.heappush(self._heap, entry)
        self._max_heap = max(100, 2 * len(self._heap))


timers = Timers()
os.register_at_fork(after_in_child=timers.forget)
