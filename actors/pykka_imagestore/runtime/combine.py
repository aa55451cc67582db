"""Futures of several futures."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from pykka_imagestore.runtime.future import Future, Promise
from pykka_imagestore.runtime.timers import timers

T = TypeVar("T")


def collect(futures: Iterable[Future[T]]) -> Future[list[T]]:
    """Return all values, in the order of the futures; at once ready for none.

    The first failure or discard fails the result at once with its error, and leaves the others alone. A discard of
    the result discards every input, then the result, without waiting for them; ``gather`` waits.
    """
    inputs = list(futures)
    promise: Promise[list[T]] = Promise()
    ready = itertools.count(1)

    def settle(future: Future[T]) -> None:
        error = future.error()
        if error is not None:
            promise.fail(error)
        elif next(ready) == len(inputs):
            promise.set([each.get(timeout=0) for each in inputs])

    _combine(inputs, promise, settle)
    if not inputs:
        promise.set([])
    return promise.future


def await_all(futures: Iterable[Future[T]]) -> Future[list[Future[T]]]:
    """Return the futures once all of them are final, whatever their outcomes.

    A discard of the result discards every input, then the result, without waiting for them.
    """
    inputs = list(futures)
    promise: Promise[list[Future[T]]] = Promise()
    final = itertools.count(1)
    _combine(inputs, promise, lambda _: next(final) == len(inputs) and promise.set(inputs))
    if not inputs:
        promise.set([])
    return promise.future


def select(futures: Iterable[Future[T]]) -> Future[T]:
    """Return the value of the first future that becomes ready; failed and discarded ones are ignored.

    If none is left that could become ready, the result is abandoned. A discard of the result discards the inputs.
    """
    promise: Promise[T] = Promise()
    _combine(list(futures), promise, lambda each: each.is_ready() and promise.copy(each))
    return promise.future


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
    promise: Promise[T] = Promise()
    future.on_any(promise.copy)
    return promise.future


def after(seconds: float) -> Future[None]:
    """Return a future that is ready in ``seconds``; a discard cancels the timer."""
    promise: Promise[None] = Promise()

    def cancel() -> None:
        timer.cancel()
        promise.discard()

    timer = timers.call_later(seconds, lambda: promise.set(None))
    promise.future.on_discard(cancel)
    return promise.future


def _combine(inputs: Sequence[Future[T]], promise: Promise[Any], settle: Callable[[Future[T]], object]) -> None:
    """Call ``settle`` with each input when it is final; pass a discard of the result on to all, then answer it.

    Only the inputs keep the promise: when the last of them is gone, it is abandoned.
    """
    reference = weakref.ref(promise)

    def discard() -> None:
        kept = reference()
        for future in inputs:
            future.discard()
        if kept is not None:
            kept.discard()

    promise.future.on_discard(discard)
    for future in inputs:
        # What an input makes of the discard no longer matters to the result.
        future.on_any(lambda each: promise.future.has_discard() or settle(each))
