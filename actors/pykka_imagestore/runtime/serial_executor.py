"""A thread that runs short functions one after the other, for an actor that must not block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pykka_imagestore.runtime.callbacks import undisturbed
from pykka_imagestore.runtime.errors import ForkedError, PoolClosedError
from pykka_imagestore.runtime.future import Future, Promise, failed
from pykka_imagestore.runtime.thread_pool import ThreadPool

A = TypeVar("A")
R = TypeVar("R")


class SerialExecutor:
    """A thread that starts when needed and ends when idle for long. Thread-safe.

    It does not keep the interpreter from ending.

    Args:
        name: What the thread is called.
    """

    def __init__(self, name: str) -> None:
        self._threads = ThreadPool(1, name)

    def run(self, function: Callable[[A], R], argument: A) -> Future[R]:
        """Run ``function(argument)`` after all earlier requests.

        Returns:
            What it returns or raises; PoolClosedError if the serial executor is closed, ForkedError in a forked child,
            RuntimeError if no thread could be started. A discard has no effect once the function runs.
        """
        call = _Call(function, argument)
        try:
            return call.promise.future if self._threads.call(call.run) else failed(PoolClosedError())
        except (ForkedError, RuntimeError) as error:
            return failed(error)

    def close(self, *, wait: bool = True) -> None:
        """Run what was requested, and accept no more; wait for that, unless called in its thread. Idempotent.

        Does nothing in a forked child, which has no such thread.
        """
        if self._threads.origin.is_here():
            self._threads.close(wait=wait)


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
