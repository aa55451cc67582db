"""One thread that runs short functions in their order, for an actor that must not block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pykka_imagestore.runtime.callbacks import undisturbed
from pykka_imagestore.runtime.crew import Crew
from pykka_imagestore.runtime.errors import ForkedError, PoolClosedError
from pykka_imagestore.runtime.future import Future, Promise, failed

A = TypeVar("A")
R = TypeVar("R")


class SerialExecutor:
    """A thread, which comes and goes as it is needed and does not keep the interpreter from ending. Thread-safe.

    Args:
        name: What the thread is called.
    """

    def __init__(self, name: str) -> None:
        self._crew = Crew(1, name)

    def run(self, function: Callable[[A], R], argument: A) -> Future[R]:
        """Run ``function(argument)`` after all that was asked for before.

        Returns:
            What it returns or raises; PoolClosedError if the serial executor is closed, ForkedError in a forked child,
            RuntimeError if no thread could be started. A discard comes too late for what runs.
        """
        call = _Call(function, argument)
        try:
            return call.promise.future if self._crew.call(call.run) else failed(PoolClosedError())
        except (ForkedError, RuntimeError) as error:
            return failed(error)

    def close(self, *, wait: bool = True) -> None:
        """Run what was asked for, and nothing more; wait for that, unless called by it. Idempotent.

        In a forked child, which has no part in it, nothing is done.
        """
        if self._crew.origin.is_here():
            self._crew.close(wait=wait)


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
