"""A limit to how many calls of one async method run at once in an actor."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from pykka_imagestore.runtime.actor import Actor

A = TypeVar("A", bound="Actor")
P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate[A, P], Coroutine[Any, Any, T]]


def limit(calls: int) -> Callable[[Method[A, P, T]], Method[A, P, T]]:
    """Decorate an async method: in each actor, so many calls of it run at once, and further ones wait in order.

    The actor goes on meanwhile, and serves other messages. A call that is discarded while it waits never begins. A
    call that awaits another call of the same method of its actor may wait for ever.

    Args:
        calls: 1 or more.

    Raises:
        TypeError: The method is not async, so that its calls never run at once.
    """
    if type(calls) is not int or calls < 1:
        msg = f"a limit is a number of calls, 1 or more, not {calls!r}"
        raise ValueError(msg)

    def decorate(method: Method[A, P, T]) -> Method[A, P, T]:
        if not inspect.iscoroutinefunction(method):
            msg = f"{method!r} is not async: its actor runs one call at a time anyway"
            raise TypeError(msg)

        @functools.wraps(method)
        async def limited(actor: A, /, *args: P.args, **kwargs: P.kwargs) -> T:
            async with actor._limiter(limited, calls).held():
                return await method(actor, *args, **kwargs)

        return limited

    return decorate
