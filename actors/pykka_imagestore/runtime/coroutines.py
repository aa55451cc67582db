"""Coroutines of actors, run one step per message of their actor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from pykka_imagestore.runtime.callbacks import this_thread
from pykka_imagestore.runtime.errors import DiscardedError
from pykka_imagestore.runtime.future import Future, Promise, without_frames

if TYPE_CHECKING:
    from pykka_imagestore.runtime.actor import Actor

logger = logging.getLogger(__name__)

MAX_AWAITS = 100  # of futures that are final, in a row in one method, before other messages have a turn


class CoroutineTask:
    """One call of an async method. Each time the future that it awaits is final, a message to its actor runs a step."""

    reply_to = None  # it is its own envelope

    def __init__(self, actor: Actor, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.promise: Promise[Any] = Promise()
        self._actor = actor
        self._coroutine = coroutine
        self._awaited: Future[Any] | None = None
        self._withdraw: Callable[[], object] | None = None
        self._discard_delivered = False
        actor._tasks.add(self)
        self.promise.future.on_discard(self._pass_discard_on)

    def wake(self, _: object = None) -> None:
        self._actor.actor_inbox.put_step(self)

    def step(self) -> None:
        try:
            awaited = advance(self._coroutine, self._take_discard())
        except StopIteration as stop:
            self._finish()
            self.promise.set(stop.value)
        except DiscardedError as error:
            self._finish()
            if not (self.promise.future.has_discard() and self.promise.discard()):
                self.promise.fail(without_frames(error, 2))
        except BaseException as error:  # noqa: BLE001 - the caller gets it; the actor lives on
            self._finish()
            self.promise.fail(without_frames(error, 2))
        else:
            self.wait_for(awaited)

    def wait_for(self, awaited: Future[Any]) -> None:
        """Have the next step run when ``awaited`` is final."""
        self._awaited = awaited
        if self.promise.future.has_discard():
            self._pass_discard_on()
        self._withdraw = awaited.watch(self.wake)

    def close(self, error: BaseException) -> None:
        """Discard the future that the coroutine awaits, and end the coroutine; its caller gets ``error``."""
        self._finish()
        if self._withdraw is not None:
            self._withdraw()
        if self._awaited is not None:
            self._awaited.discard()
        try:
            self._coroutine.close()
        except BaseException:
            logger.exception("An async method failed while its actor ended")
        self.promise.fail(error)

    def _take_discard(self) -> DiscardedError | None:
        if self._awaited is None or self._discard_delivered or not self.promise.future.has_discard():
            return None
        self._discard_delivered = True
        return DiscardedError()

    def _pass_discard_on(self) -> None:
        awaited = self._awaited  # read first: futures that are awaited after the delivery are left alone
        if awaited is not None and not self._discard_delivered:
            awaited.discard()

    def _finish(self) -> None:
        self._actor._tasks.discard(self)


def advance(coroutine: Coroutine[Any, Any, Any], error: BaseException | None = None) -> Future[Any]:
    """Run a coroutine up to its next ``await``, and return the future; it is final after many final ones in a row."""
    this_thread().awaits_left = MAX_AWAITS
    awaited = coroutine.send(None) if error is None else coroutine.throw(error)
    while not isinstance(awaited, Future):
        awaited = coroutine.throw(_not_awaitable(awaited))
    return awaited


def _not_awaitable(awaited: object) -> TypeError:
    return TypeError(
        f"an actor's async method can await runtime futures and coroutines only, not {awaited!r}: a plain Pykka "
        "future would block the actor, and asyncio has no loop here"
    )
