"""Futures that are made of several others."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pykka

from pykka_imagestore.runtime.future import Future, Promise, ready
from pykka_imagestore.runtime.timers import timers
from pykka_imagestore.runtime.weak_promise import WeakPromise

R = TypeVar("R")
T = TypeVar("T")


def collect(futures: Iterable[pykka.Future[T]]) -> Future[list[T]]:
    """Return all values, in the order of the futures; for no futures, ready at once.

    The first failure or discard fails the result at once with its error, and leaves the others alone. A discard of
    the result discards every input, then the result, without waiting for them; ``gather`` waits. A thread waits for
    each plain Pykka future.
    """
    inputs = [Future.from_pykka(each) for each in futures]
    values = itertools.count(1)

    def settle(promise: WeakPromise[list[T]], future: Future[T]) -> None:
        error = future.error()
        if error is not None:
            promise.fail(error)
        elif next(values) == len(inputs):
            promise.set([each.get(timeout=0) for each in inputs])

    return _combine(inputs, settle) if inputs else ready([])


def await_all(futures: Iterable[Future[T]]) -> Future[list[Future[T]]]:
    """Return the futures once all of them are final, whatever their outcomes.

    A discard of the result discards every input, then the result, without waiting for them.
    """
    inputs = list(futures)
    final = itertools.count(1)

    def settle(promise: WeakPromise[list[Future[T]]], _: Future[T]) -> None:
        if next(final) == len(inputs):
            promise.set(inputs)

    return _combine(inputs, settle) if inputs else ready([])


def select(futures: Iterable[Future[T]]) -> Future[T]:
    """Return the value of the first future that becomes ready; failed and discarded ones are ignored.

    If none can become ready any more, the result is abandoned. A discard of the result discards the inputs.
    """

    def settle(promise: WeakPromise[T], future: Future[T]) -> None:
        if future.is_ready():
            promise.copy(future)

    return _combine(list(futures), settle)


async def gather(futures: Iterable[Future[T]]) -> list[T]:
    """Await all values; on a failure or discard, discard the others, and raise only when all have ended.

    Unlike with ``collect``, no work outlives the call, so its files may be removed afterwards.
    """
    inputs = list(futures)
    try:
        return await collect(inputs)
    except BaseException as error:
        ended = discard_all(inputs)
        if not isinstance(error, GeneratorExit):  # else the actor has ended, and can await nothing
            await ended
        raise


def discard_all(futures: Iterable[Future[Any]]) -> Future[None]:
    """Discard all; the result is ready when all are final. A discard of the result gives up only the result."""
    inputs = list(futures)
    for future in inputs:
        future.discard()
    return undiscardable(await_all(inputs)).then(lambda _: None)


def undiscardable(future: Future[T]) -> Future[T]:
    """Return a future with the same outcome that never passes a discard on; its own ``on_discard`` still runs.

    A future that is final is returned itself: nothing can be discarded of it.
    """
    if future.done():
        return future
    copy: Future[T] = Future()
    WeakPromise(copy).watch((future,), WeakPromise.copy)
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


def _combine(inputs: Sequence[Future[T]], settle: Callable[[WeakPromise[R], Future[T]], object]) -> Future[R]:
    """Call ``settle`` with each input when it is final; pass a discard of the result on to all, then answer it.

    Only the inputs refer to the promise: when the last of them is dropped, the result is abandoned.
    """
    result: Future[R] = Future()
    promise = WeakPromise(result)
    reference = weakref.ref(promise)

    def discard() -> None:
        kept = reference()
        for future in inputs:
            future.discard()
        if kept is not None:
            kept.discard()

    def settle_unless_discarded(promise: WeakPromise[R], future: Future[T]) -> None:
        # Once the result was discarded, the outcomes of its inputs no longer matter.
        if not promise.has_discard():
            settle(promise, future)

    result.on_discard(discard)
    promise.watch(inputs, settle_unless_discarded)
    return result
