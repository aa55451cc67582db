"""Threads that come when there is something to do, and go when there has been nothing for long."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from functools import partial

from pykka_imagestore.runtime.callbacks import serving
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
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._open = 0  # calls that wait or run
        self._is_leaving = False

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` soon; what it raises is logged.

        Raises:
            ForkedError: This is a forked child, and the threads are in the parent.
            RuntimeError: No thread could be started.
        """
        self.origin.require(f"the thread {self.name!r}")
        with self._lock:
            self._is_leaving = False
            self._open += 1
            self._calls.put(partial(self._run, function))
            if len(self._threads) < min(self._most, self._open):
                self._start_thread()

    def leave(self, *, wait: bool) -> None:
        """Let the threads go when all calls have returned, without idling; a later call brings one back.

        Args:
            wait: Whether to return when they are gone; at once in one of them.
        """
        with self._lock:
            self._is_leaving = True
            threads = list(self._threads)
            self._calls.put(_do_nothing)
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
        # What a function brings about, such as a future's callbacks, may wait for what is asked for next. Where there
        # is one thread, nobody else can do that.
        pump = serving(self._serve_once, partial(self._calls.put, _do_nothing))
        with pump if self._most == 1 else contextlib.nullcontext():
            while not self._is_over(was_idle=not self._serve_once(IDLE_SECONDS)):
                pass

    def _serve_once(self, seconds: float | None) -> bool:
        """Run the next function; False if none has come within so many seconds."""
        try:
            run = self._calls.get(timeout=None if seconds is None else min(seconds, threading.TIMEOUT_MAX))
        except queue.Empty:
            return False
        run()
        return True

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException:
            logger.exception("A function that was called in the thread %r failed", self.name)
        finally:
            with self._lock:
                self._open -= 1

    def _is_over(self, *, was_idle: bool) -> bool:
        """Tell whether this thread is to end, and count it as ended then."""
        with self._lock:
            if not (was_idle or self._is_leaving) or not self._calls.empty():
                return False
            self._threads.discard(threading.current_thread())
            if self._threads and self._is_leaving:
                self._calls.put(_do_nothing)  # or the next would idle
            return True


def _do_nothing() -> None:
    pass
