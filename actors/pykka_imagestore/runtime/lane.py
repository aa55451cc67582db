"""One thread that runs short functions in their order, for an actor that must not block."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from pykka_imagestore.runtime.errors import PoolClosedError
from pykka_imagestore.runtime.future import Future, Promise

A = TypeVar("A")
R = TypeVar("R")


class Lane:
    """A thread, which begins with the first function and does not keep the interpreter from ending. Thread-safe.

    Args:
        name: What the thread is called.
    """

    def __init__(self, name: str) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def run(self, function: Callable[[A], R], argument: A) -> Future[R]:
        """Run ``function(argument)`` after all that was asked for before.

        Returns:
            What it returns or raises; PoolClosedError if the lane is closed. A discard comes too late for what runs.
        """
        call = _Call(function, argument)
        with self._lock:
            if self._closed:
                call.promise.fail(PoolClosedError())
            else:
                self._queue.put(call)
                if not self._thread.ident:
                    self._thread.start()
        return call.promise.future

    def close(self) -> None:
        """Run what was asked for, and nothing more; wait for that. Idempotent."""
        with self._lock:
            is_first, self._closed = not self._closed, True
        if is_first:
            self._queue.put(None)
        if self._thread.ident:
            self._thread.join()

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
