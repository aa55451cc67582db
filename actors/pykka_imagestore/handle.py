"""What callers hold of an actor: a base for handles, and how they ask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import pykka

from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.errors import StoreClosedError
from pykka_imagestore.runtime import Actor, Future, dispatch

A = TypeVar("A", bound=Actor)
P = ParamSpec("P")
T = TypeVar("T")


class Handle(Uncopyable):
    """A base for handles on what lives in a store's directory; one is closed at the end of its ``with`` block."""

    instead = "start one in each process, on the same directory"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Stop all work and wait for it. Idempotent."""


def ask(
    actor: pykka.ActorRef[A],
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T] | Future[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Future[T]:
    """Dispatch a method to a store's actor; StoreClosedError where the actor has ended."""
    return or_closed(cast("Future[T]", dispatch(actor, method, *args, **kwargs)))


def or_closed(answer: Future[T]) -> Future[T]:
    """Return an actor's answer; StoreClosedError where the actor has ended."""
    return answer.repair(_raise_if_dead)


def _raise_if_dead(answer: Future[T]) -> Future[T]:
    if isinstance(answer.error(), pykka.ActorDeadError):
        raise StoreClosedError from answer.error()
    return answer
