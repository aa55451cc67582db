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
    """Calls functions in threads, in the order in which they came. Thread-safe; it need not be closed.

    The threads do not keep the interpreter from ending.

    Args:
        most: How many threads at most; with one, the functions run one after the other.
        name: What the threads are called.
    """

    def __init__(self, most: int, name: str) -> None:
        self.origin = Origin()
        self.name = name
        self._most = most
        # Reentrant, because an abandoned future may complete, and so bring a call, during any allocation.
        self._lock = threading.RLock()
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._open = 0  # calls that wait or run

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` soon; what it raises is logged.

        Raises:
            ForkedError: This is a forked child, and the threads are in the parent.
            RuntimeError: No thread could be started.
        """
        self.origin.require(f"the thread {self.name!r}")
        with self._lock:
            self._open += 1
            self._calls.put(function)
            if len(self._threads) < min(self._most, self._open):
                self._start_thread()

    def leave(self, *, wait: bool) -> None:
        """Let the threads go when all calls have returned, without idling; a later call brings one back.

        Args:
            wait: Whether to return when they are gone; at once in one of them.
        """
        with self._lock:
            threads = list(self._threads)
            for _ in threads:
                self._calls.put(None)
        if wait and threading.current_thread() not in threads:
            for thread in threads:
                thread.join()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._threads.add(thread)
        if len(self._threads) > self._most:  # the collector has come in between, and a call of its own
            self._threads.discard(thread)
            return
        try:
            thread.start()
        except RuntimeError:
            self._threads.discard(thread)
            raise

    def _serve(self) -> None:
        while (function := self._next()) is not None:
            try:
                function()
            except BaseException:
                logger.exception("A function that was called in the thread %r failed", self.name)
            del function  # or what it holds would live until the next one comes
            with self._lock:
                self._open -= 1

    def _next(self) -> Callable[[], object] | None:
        while True:
            try:
                function = self._calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                function = None
            if function is not None:
                return function
            with self._lock:
                if self._calls.empty():  # else something has come just now
                    self._threads.discard(threading.current_thread())
                    return None
