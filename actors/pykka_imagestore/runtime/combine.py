"""Futures of several futures."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from pykka_imagestore.runtime.errors import AbandonedError, DiscardedError
from pykka_imagestore.runtime.future import Future, Promise, State, ready
from pykka_imagestore.runtime.timers import timers

R = TypeVar("R")
T = TypeVar("T")


def collect(futures: Iterable[Future[T]]) -> Future[list[T]]:
    """Return all values, in the order of the futures; at once ready for none.

    The first failure or discard fails the result at once with its error, and leaves the others alone. A discard of
    the result discards every input, then the result, without waiting for them; ``gather`` waits.
    """
    inputs = list(futures)
    values = itertools.count(1)

    def settle(relay: _Relay[list[T]], future: Future[T]) -> None:
        error = future.error()
        if error is not None:
            relay.fail(error)
        elif next(values) == len(inputs):
            relay.set([each.get(timeout=0) for each in inputs])

    return _combine(inputs, settle) if inputs else ready([])


def await_all(futures: Iterable[Future[T]]) -> Future[list[Future[T]]]:
    """Return the futures once all of them are final, whatever their outcomes.

    A discard of the result discards every input, then the result, without waiting for them.
    """
    inputs = list(futures)
    final = itertools.count(1)

    def settle(relay: _Relay[list[Future[T]]], _: Future[T]) -> None:
        if next(final) == len(inputs):
            relay.set(inputs)

    return _combine(inputs, settle) if inputs else ready([])


def select(futures: Iterable[Future[T]]) -> Future[T]:
    """Return the value of the first future that becomes ready; failed and discarded ones are ignored.

    If none is left that could become ready, the result is abandoned. A discard of the result discards the inputs.
    """

    def settle(relay: _Relay[T], future: Future[T]) -> None:
        if future.is_ready():
            relay.copy(future)

    return _combine(list(futures), settle)


async def gather(futures: Iterable[Future[T]]) -> list[T]:
    """Await all values; on a failure or discard stop the others, and return only when all have ended.

    What ``collect`` leaves running, this joins: no work outlives it, so what it used may be removed afterwards.
    """
    inputs = list(futures)
    try:
        return await collect(inputs)
    except BaseException as error:
        for future in inputs:
            future.discard()
        if not isinstance(error, GeneratorExit):  # else the actor has ended: nobody is left to wait
            await undiscardable(await_all(inputs))
        raise


def undiscardable(future: Future[T]) -> Future[T]:
    """Return a future with the same outcome that never passes a discard on; its own ``on_discard`` still runs."""
    copy: Future[T] = Future()
    _Relay(copy).watch((future,), _Relay.copy)
    return copy


def after(seconds: float) -> Future[None]:
    """Return a future that is ready in ``seconds``; a discard cancels the timer."""
    promise: Promise[None] = Promise()

    def cancel() -> None:
        timer.cancel()
        promise.discard()

    timer = timers.call_later(seconds, lambda: promise.set(None))
    promise.future.on_discard(cancel)
    return promise.future


def _combine(inputs: Sequence[Future[T]], settle: Callable[[_Relay[R], Future[T]], object]) -> Future[R]:
    """Call ``settle`` with each input when it is final; pass a discard of the result on to all, then answer it.

    Only the inputs keep the relay: when the last of them is gone, the result is abandoned.
    """
    result: Future[R] = Future()
    relay = _Relay(result)
    reference = weakref.ref(relay)

    def discard() -> None:
        kept = reference()
        for future in inputs:
            future.discard()
        if kept is not None:
            kept.discard()

    def settle_unless_discarded(relay: _Relay[R], future: Future[T]) -> None:
        # What an input makes of the discard no longer matters to the result.
        if not relay.has_discard():
            settle(relay, future)

    result.on_discard(discard)
    relay.watch(inputs, settle_unless_discarded)
    return result


class _Relay(Generic[R]):
    """The write side of a future that is made from others, which hold it for as long as they live: that may be long.

    So it holds its future only while somebody observes that, and is withdrawn from all once the future is final or
    dropped. If they are gone before, the future is abandoned.
    """

    def __init__(self, future: Future[R]) -> None:
        self.kept: Future[R] | None = None
        me = weakref.ref(self)

        def withdraw(_: object) -> None:
            relay = me()
            if relay is not None:
                relay._withdraw()

        self._future = weakref.ref(future, withdraw)
        self._withdrawals: list[Callable[[], bool]] = []
        future._keeper = me

    def __del__(self) -> None:
        future = self._future()
        if future is not None and future.is_pending():
            self.fail(AbandonedError())

    def watch(self, inputs: Iterable[Future[T]], settle: Callable[[_Relay[R], Future[T]], object]) -> None:
        """Call ``settle`` with this and each input when it is final."""
        for future in inputs:
            self._withdrawals.append(future.watch(functools.partial(settle, self)))
        result = self._future()
        if result is not None and result.done():  # before all were watched
            self._withdraw()

    def has_discard(self) -> bool:
        future = self._future()
        return future is not None and future.has_discard()

    def set(self, value: R) -> None:
        self._complete(State.READY, value)

    def fail(self, error: BaseException) -> None:
        self._complete(State.FAILED, None, error, error.__traceback__)

    def discard(self) -> None:
        self._complete(State.DISCARDED, None, DiscardedError())

    def copy(self, source: Future[R]) -> None:
        self._complete(source._state, source._value, source._error, source._traceback)

    def _complete(self, *outcome: Any) -> None:
        future = self._future()
        if future is not None and future._complete(*outcome):
            self._withdraw()

    def _withdraw(self) -> None:
        withdrawals, self._withdrawals = self._withdrawals, []
        for withdraw in withdrawals:
            withdraw()
