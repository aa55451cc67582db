"""One thread that runs short functions in their order, for an actor that must not block."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from pykka_imagestore.runtime.bell import Bell
from pykka_imagestore.runtime.callbacks import serving, undisturbed
from pykka_imagestore.runtime.errors import ForkedError, PoolClosedError
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.runtime.future import Future, Promise, failed

A = TypeVar("A")
R = TypeVar("R")


class Lane:
    """A thread, which begins with the first function and does not keep the interpreter from ending. Thread-safe.

    Args:
        name: What the thread is called.
    """

    def __init__(self, name: str) -> None:
        self._origin = Origin()
        self._lock = threading.RLock()
        self._closed = self._has_begun = self._has_ended = False
        self._started = threading.Event()
        self._calls: deque[_Call | None] = deque()  # None is the end
        self._bell = Bell()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def run(self, function: Callable[[A], R], argument: A) -> Future[R]:
        """Run ``function(argument)`` after all that was asked for before.

        Returns:
            What it returns or raises; PoolClosedError if the lane is closed, ForkedError in a forked child. A discard
            comes too late for what runs.
        """
        if not self._origin.is_here():
            return failed(ForkedError(f"the thread {self._thread.name!r}"))
        call = _Call(function, argument)
        with self._lock:
            is_open = not self._closed
            if is_open:
                self._calls.append(call)
                is_first, self._has_begun = not self._has_begun, True
        if not is_open:
            return failed(PoolClosedError())
        if is_first:
            self._start()
        self._bell.ring()
        return call.promise.future

    def close(self, *, wait: bool = True) -> None:
        """Run what was asked for, and nothing more; wait for that, unless called by it. Idempotent.

        In a forked child, which has no part in it, nothing is done.
        """
        if not self._origin.is_here():
            return
        with self._lock:
            is_first, self._closed = not self._closed, True
            if is_first:
                self._calls.append(None)
        self._bell.ring()
        if wait and self._has_begun and self._thread is not threading.current_thread():
            self._started.wait()  # whoever asked first may be about to start it
            if self._thread.ident is not None:
                self._thread.join()

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            self._has_begun = False
            raise
        finally:
            self._started.set()

    def _serve(self) -> None:
        # A callback of what a function returned runs here, and may wait for what is asked for next.
        with serving(self._run_next, self._bell.ring):
            while not self._has_ended:
                self._run_next(None)

    def _run_next(self, seconds: float | None) -> None:
        try:
            call = self._calls.popleft()
        except IndexError:
            self._bell.wait(seconds)
            return
        if call is None:
            self._has_ended = True
        else:
            call.run()


class _Call:
    def __init__(self, function: Callable[[Any], Any], argument: object) -> None:
        self.promise: Promise[Any] = Promise()
        self._function = function
        self._argument = argument

    def run(self) -> None:
        if self.promise.future.has_discard():
            self.promise.discard()
        else:
            self.promise.compute(undisturbed, self._function, self._argument)
