"""Threads that come when there is something to do, and go when there has been nothing for long."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from pykka_imagestore.runtime.bell import Bell
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
        self._condition = threading.Condition(threading.RLock())
        self._calls: deque[Callable[[], object]] = deque()
        self._idle: list[Bell] = []  # of threads that wait for a call
        self._threads: set[threading.Thread] = set()
        self._open = 0  # calls that wait or run
        self._is_closed = False

    def call(self, function: Callable[[], object]) -> bool:
        """Call ``function`` soon; what it raises is logged.

        Returns:
            False if the crew is closed, and the function will not be called.

        Raises:
            ForkedError: This is a forked child, and the threads are in the parent.
            RuntimeError: No thread could be started, and there is none that would call it later.
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
            self._idle.pop().ring()
        return True

    def close(self, *, wait: bool) -> None:
        """Call what was asked for, and nothing more. Idempotent.

        Args:
            wait: Whether to return when that is done, and the threads are gone; at once in one of them.
        """
        with self._condition:
            self._is_closed = True
            threads = list(self._threads)
            for bell in list(self._idle):
                bell.ring()
            if not wait or threading.current_thread() in threads:
                return
            self._condition.wait_for(lambda: not self._threads)
        for thread in threads:
            if thread.ident is not None:  # else it could not be started
                thread.join()

    def _add_thread(self) -> threading.Thread | None:
        if len(self._threads) >= min(self._most, self._open):
            return None
        thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._threads.add(thread)
        if len(self._threads) > self._most:  # the collector has come in between, and brought a call
            self._threads.discard(thread)
            return None
        return thread

    def _start(self, thread: threading.Thread, call: Callable[[], object]) -> None:
        # Not under the lock: the new thread, whose beginning is waited for, may meet the collector first, and call.
        try:
            thread.start()
        except RuntimeError:
            with self._condition:
                self._forget(thread)
                if self._threads or call not in self._calls:  # another sees to it, or has
                    return
                self._calls.remove(call)
                self._open -= 1
            raise

    def _forget(self, thread: threading.Thread) -> None:
        with self._condition:
            self._threads.discard(thread)
            self._condition.notify_all()

    def _serve(self) -> None:
        bell = Bell()
        # What a function brings about, such as a future's callbacks, may wait for what is asked for next.
        with serving(partial(self._serve_once, bell), bell.ring):
            while not self._is_over(was_idle=not self._serve_once(bell, IDLE_SECONDS)):
                pass

    def _serve_once(self, bell: Bell, seconds: float | None) -> bool:
        """Run the next function, or wait for one; False if none has come within so many seconds."""
        if not self._calls:
            self._idle.append(bell)
            # Whoever comes from now on rings it.
            was_rung = bool(self._calls) or self._is_closed or bell.wait(seconds)
            with contextlib.suppress(ValueError):
                self._idle.remove(bell)
            if not was_rung:
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
