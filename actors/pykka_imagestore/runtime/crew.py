"""Threads that come when there is something to do, and go when there has been nothing for long."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from pykka_imagestore.runtime.forks import Origin

logger = logging.getLogger(__name__)

IDLE_SECONDS = 10.0


class Crew:
    """Calls functions in threads, in the order in which they came. Thread-safe; there is nothing to close.

    The threads do not keep the interpreter from ending.

    Args:
        most: How many threads at most; with one, the functions run one after the other.
        name: What the threads are called.
    """

    def __init__(self, most: int, name: str) -> None:
        self.origin = Origin()
        self._most = most
        self._name = name
        # Reentrant, because an abandoned future may complete, and so bring a call, during any allocation.
        self._lock = threading.RLock()
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._threads = 0
        self._open = 0  # calls that wait or run

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` soon; what it raises is logged.

        Raises:
            ForkedError: This is a forked child, and the threads are in the parent.
            RuntimeError: No thread could be started.
        """
        self.origin.require(f"what calls functions in the thread {self._name!r}")
        with self._lock:
            if self._threads < min(self._most, self._open + 1):
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
                self._threads += 1
            self._open += 1
            self._calls.put(function)

    def _serve(self) -> None:
        while (function := self._next()) is not None:
            try:
                function()
            except BaseException:
                logger.exception("A function that was called in the thread %r failed", self._name)
            del function  # or what it holds would live until the next one comes
            with self._lock:
                self._open -= 1

    def _next(self) -> Callable[[], object] | None:
        while True:
            try:
                return self._calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._calls.empty():  # else something has come just now
                        self._threads -= 1
                        return None
