"""Threads that start when there is something to do, and end when idle for long."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from pykka_imagestore.runtime.auto_reset_event import AutoResetEvent
from pykka_imagestore.runtime.callbacks import serving
from pykka_imagestore.runtime.forks import Origin

logger = logging.getLogger(__name__)

IDLE_SECONDS = 10.0


class ThreadPool:
    """Calls functions in threads, in the order of the requests. Thread-safe; it need not be closed.

    The threads are daemons: they do not keep the interpreter from ending.

    Args:
        limit: How many threads at most; with one, the functions run one after the other.
        name: What the threads are called.
    """

    def __init__(self, limit: int, name: str) -> None:
        self.origin = Origin()
        self.name = name
        self._limit = limit
        # Reentrant, because an abandoned future may complete, and so call this, during any allocation.
        self._condition = threading.Condition(threading.RLock())
        self._calls: deque[Callable[[], object]] = deque()
        self._idle: list[AutoResetEvent] = []  # of threads that wait for a call
        self._threads: set[threading.Thread] = set()
        self._open = 0  # calls that wait or run
        self._is_closed = False

    def call(self, function: Callable[[], object]) -> bool:
        """Call ``function`` soon; what it raises is logged.

        Returns:
            False if the pool is closed, so that the function is not called.

        Raises:
            ForkedError: This is a forked child, and the threads are in the parent.
            RuntimeError: No thread could be started, and no other is there to call it later.
        """
        self.origin.require(f"the thread {self.name!r}")
        with self._condition:
            if self._is_closed:
                return False
            self._open += 1
            call = partial(self._run, function)
            self._calls.append(call)
            thread = self._add_thread()
        if thread is not None:
            self._start(thread, call)
        with contextlib.suppress(IndexError):  # all are busy, and look again when they are done
            self._idle.pop().set()
        return True

    def close(self, *, wait: bool) -> None:
        """Make the calls that were requested, and accept no more. Idempotent.

        Args:
            wait: Whether to return only when they are made and the threads have ended. In one of these threads, it
                returns at once.
        """
        with self._condition:
            self._is_closed = True
            threads = list(self._threads)
            for event in list(self._idle):
                event.set()
            if not wait or threading.current_thread() in threads:
                return
            self._condition.wait_for(lambda: not self._threads)
        for thread in threads:
            if thread.ident is not None:  # else starting it failed
                thread.join()

    def _add_thread(self) -> threading.Thread | None:
        if len(self._threads) >= min(self._limit, self._open):
            return None
        thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._threads.add(thread)
        if len(self._threads) > self._limit:  # the garbage collector ran in between, and called this
            self._threads.discard(thread)
            return None
        return thread

    def _start(self, thread: threading.Thread, call: Callable[[], object]) -> None:
        # Not under the lock: start() waits for the new thread to begin, which may run the collector first, and so call.
        try:
            thread.start()
        except RuntimeError:
            with self._condition:
                self._forget(thread)
                if self._threads or call not in self._calls:  # another thread makes the call, or has made it
                    return
                self._calls.remove(call)
                self._open -= 1
            raise

    def _forget(self, thread: threading.Thread) -> None:
        with self._condition:
            self._threads.discard(thread)
            self._condition.notify_all()

    def _serve(self) -> None:
        event = AutoResetEvent()
        # A function may complete a future, whose callbacks may wait for a later request to this very thread.
        with serving(partial(self._serve_once, event), event.set):
            while not self._is_over(was_idle=not self._serve_once(event, IDLE_SECONDS)):
                pass

    def _serve_once(self, event: AutoResetEvent, seconds: float | None) -> bool:
        """Make the next call, or wait for one; False if none was requested within so many seconds."""
        if not self._calls:
            self._idle.append(event)
            # Calls that are requested from here on set the event.
            was_set = bool(self._calls) or self._is_closed or event.wait(seconds)
            with contextlib.suppress(ValueError):
                self._idle.remove(event)
            if not was_set:
                return False
        with contextlib.suppress(IndexError):  # another thread took it
            self._calls.popleft()()
        return True

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException:
            logger.exception("A function that was called in the thread %r failed", self.name)
        finally:
            with self._condition:
                self._open -= 1

    def _is_over(self, *, was_idle: bool) -> bool:
        """Tell whether this thread is to end, and count it as ended then."""
        with self._condition:
            if self._calls or not (was_idle or self._is_closed):
                return False
            self._forget(threading.current_thread())
            return True
