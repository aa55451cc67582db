"""One thread that calls functions later. It sleeps until the next is due; it never polls."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Timer:
    """A call that is due at ``deadline``, unless cancelled before."""

    def __init__(self, deadline: float, function: Callable[[], object]) -> None:
        self.deadline = deadline
        self._function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Drop the call, and what it refers to; nothing happens if it was made already."""
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
        except Exception:
            logger.exception("A timer's function failed")


class Timers:
    """Calls functions after a while, in a thread of its own that starts with the first."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Timer]] = []
        self._most = 100  # timers in the heap, before the cancelled ones are thrown out
        self._thread: threading.Thread | None = None

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call ``function`` in ``seconds``, in the timer thread; it must not block."""
        timer = Timer(time.monotonic() + seconds, function)
        with self._condition:
            if len(self._heap) > self._most:
                self._drop_cancelled()
            heapq.heappush(self._heap, (timer.deadline, next(self._order), timer))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is timer:
                self._condition.notify()
        return timer

    def _run(self) -> None:
        while True:
            self._next_due().fire()

    def _next_due(self) -> Timer:
        with self._condition:
            while True:
                if not self._heap:
                    self._condition.wait()
                    continue
                remaining = self._heap[0][0] - time.monotonic()
                if remaining <= 0:
                    return heapq.heappop(self._heap)[2]
                self._condition.wait(min(remaining, threading.TIMEOUT_MAX))

    def _drop_cancelled(self) -> None:
        self._heap = [entry for entry in self._heap if not entry[2].is_cancelled()]
        heapq.heapify(self._heap)
        self._most = max(100, 2 * len(self._heap))


timers = Timers()
