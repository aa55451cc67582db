"""One thread that runs short functions in their order, for an actor that must not block."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

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
        self._closed = self._has_begun = False
        self._started = threading.Event()
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
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
                self._queue.put(call)
                is_first, self._has_begun = not self._has_begun, True
        if not is_open:
            return failed(PoolClosedError())
        if is_first:
            self._start()
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
                self._queue.put(None)
        if wait and self._has_begun and self._thread is not threading.current_thread():
            self._started.wait()  # whoever asked first may be about to start it
            self._thread.join()

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            self._has_begun = False
            raise
        self._started.set()

    def _serve(self) -> None:
        while (call := self._queue.get()) is not None:
            call.run()
            del call  # or its result would live until the next one comes


class _Call:
    def __init__(self, function: Callable[[Any], Any], argument: object) -> None:
        self.promise: Promise[Any] = Promise()
        self._function = function
        self._argument = argument

    def run(self) -> None:
        if self.promise.future.has_discard():
            self.promise.discard()
        else:
            self.promise.compute(self._function, self._argument)
