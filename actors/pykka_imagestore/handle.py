"""What callers hold of an actor: a base for handles, and how they ask."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar, cast

import pykka

from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.errors import InvalidInputError, StoreClosedError
from pykka_imagestore.runtime import Actor, Future, dispatch, failed

A = TypeVar("A", bound=Actor)
P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Future[Any])


# What somebody who knows Pykka's actors may look for on a handle, and what is there instead.
_OF_PYKKA = {
    "stop": "close() ends it",
    "proxy": "its own methods return futures",
    "ask": "its own methods return futures",
    "tell": "its own methods return futures",
}


class Handle(Uncopyable):
    """A base for handles on what lives in a store's directory; closed at the end of ``with`` and ``async with``."""

    instead = "start one in each process, on the same directory"
    started_on: ClassVar[str] = "directory"
    named_otherwise: ClassVar[Mapping[str, str]] = {}  # what it has in place of what other tools have

    if not TYPE_CHECKING:  # a checker would take what these take: any argument, any attribute

        def __new__(cls, actor: object = None, *_: object, **__: object) -> Self:
            if not isinstance(actor, pykka.ActorRef):
                started = f"{cls.__name__}.start({cls.started_on}) starts one"
                msg = f"a {cls.__name__} is not made by calling the class: {started}"
                raise TypeError(msg)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> Any:
            instead = _OF_PYKKA.get(name) or self.named_otherwise.get(name)
            msg = f"{type(self).__name__!r} object has no attribute {name!r}{'' if instead is None else f': {instead}'}"
            raise AttributeError(msg, name=name, obj=self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        # In a thread, since it waits. One whose task is cancelled meanwhile goes on closing there.
        import asyncio  # noqa: PLC0415 - a program that does not use it should not import it

        await asyncio.to_thread(self.close)

    @abstractmethod
    def close(self) -> None:
        """Stop all work and wait for it. Idempotent."""


class StoreActor(Actor):
    """A base for a store's actors: the names of their threads tell whose they are."""

    def on_start(self) -> None:
        thread = threading.current_thread()
        thread.name = f"imagestore-{thread.name}"


def ask(
    actor: pykka.ActorRef[A],
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T] | Future[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Future[T]:
    """Dispatch a method to a store's actor; StoreClosedError where the actor has ended."""
    return or_closed(cast("Future[T]", dispatch(actor, method, *args, **kwargs)))


def end(actor: pykka.ActorRef[A], close: Callable[[A], Coroutine[Any, Any, None]]) -> None:
    """Have a store's actor close, however that ends, and stop it. Idempotent."""
    try:
        dispatch(actor, close).recover(lambda _: None).get(timeout=120)
    finally:
        actor.stop(timeout=60)


def in_future(method: Callable[P, F]) -> Callable[P, F]:
    """Have a handle's method fail its future, instead of raising, where it refuses what the caller gave."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> F:
        try:
            return method(*args, **kwargs)
        except InvalidInputError as error:
            return cast("F", failed(error))

    return call


def or_closed(answer: Future[T]) -> Future[T]:
    """Return an actor's answer; StoreClosedError where the actor has ended."""
    return answer.repair(_raise_if_dead)


def _raise_if_dead(answer: Future[T]) -> Future[T]:
    if isinstance(answer.error(), pykka.ActorDeadError):
        raise StoreClosedError from answer.error()
    return answer
