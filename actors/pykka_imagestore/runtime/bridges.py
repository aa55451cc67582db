"""Conversions between runtime futures and those of asyncio, ``concurrent.futures`` and Pykka."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
import weakref
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

import pykka

from pykka_imagestore.runtime.errors import DiscardedError
from pykka_imagestore.runtime.state import State

if TYPE_CHECKING:
    import asyncio

    from pykka_imagestore.runtime.future import Future, Promise

T = TypeVar("T")


def is_in_asyncio() -> bool:
    """Tell whether a loop of asyncio runs in this thread."""
    if "asyncio" not in sys.modules:  # importing it takes an eighth of what importing the store takes
        return False
    import asyncio  # noqa: PLC0415

    return asyncio._get_running_loop() is not None


def wait_in_asyncio(future: Future[Any]) -> Generator[Any, None, None]:
    """Suspend the running asyncio task until ``future`` is final; cancelling the task discards the future."""
    import asyncio  # noqa: PLC0415 - see above

    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, so nothing waits
            loop.call_soon_threadsafe(_wake_up, waiter)

    withdraw = future.watch(wake)
    try:
        yield from waiter
    except asyncio.CancelledError:
        future.discard()
        raise
    finally:
        withdraw()


def to_concurrent(future: Future[T]) -> concurrent.futures.Future[T]:
    """Return a ``concurrent.futures.Future`` with the outcome of ``future``; cancelling it discards that.

    Its callback stays when the twin is cancelled: ``wait`` and ``as_completed`` hear of that only once the future is
    final, so that what the work has used may be removed then.
    """
    twin: concurrent.futures.Future[T] = concurrent.futures.Future()
    twin.add_done_callback(lambda twin: future.discard() if twin.cancelled() else None)

    def settle(_: object) -> None:
        if future.is_discarded():
            twin.cancel()
        if not twin.set_running_or_notify_cancel():
            return
        error = future.error()
        if error is None:
            twin.set_result(future.get(timeout=0))
        else:
            twin.set_exception(error)

    future.on_any(settle)
    return twin


def follow(source: concurrent.futures.Future[T], promise: Promise[T]) -> None:
    """Give ``promise`` the outcome of ``source``; a discard of its future cancels ``source``."""

    def settle(_: object) -> None:
        if source.cancelled():
            promise.discard()
        elif (error := source.exception()) is not None:
            promise.fail(error)
        else:
            promise.set(source.result())

    promise.future.on_discard(source.cancel)
    source.add_done_callback(settle)


def follow_pykka(source: pykka.Future[T], future: Future[T]) -> bool:
    """Bind ``future`` to a plain Pykka future, which calls nothing back; False if it is final or bound already.

    Nothing can stop the producer of ``source``, so a discard makes ``future`` discarded at once.
    """
    if not future._take_hook(lambda timeout: source.get(timeout=timeout)):
        return False
    reference = weakref.ref(future)

    def give_up() -> None:
        follower = reference()
        if follower is not None:
            follower._complete(State.DISCARDED, None, DiscardedError(), bound=True)

    future.on_discard(give_up)
    return True


def _wake_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
