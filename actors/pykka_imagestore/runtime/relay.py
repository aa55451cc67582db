"""How futures that are made from others hang on them, without being kept by them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pykka_imagestore.runtime.errors import AbandonedError, DiscardedError
from pykka_imagestore.runtime.state import State

if TYPE_CHECKING:
    from pykka_imagestore.runtime.future import Future

R = TypeVar("R")
T = TypeVar("T")


class Relay(Generic[R]):
    """The write side of a future that is made from others, which hold it for as long as they live: that may be long.

    So it holds its future only while somebody observes that, and is withdrawn from all once the future is final or
    dropped. If they are gone before, the future is abandoned.
    """

    def __init__(self, future: Future[R]) -> None:
        self.kept: object = None
        me = weakref.ref(self)

        def withdraw(_: object) -> None:
            relay = me()
            if relay is not None:
                relay._withdraw()

        self._future = weakref.ref(future, withdraw)
        self._withdrawals: list[Callable[[], bool]] = []
        future._keep(me)

    def __del__(self) -> None:
        future = self._future()
        if future is not None and future.is_pending():
            self.fail(AbandonedError())

    def watch(self, inputs: Iterable[Future[T]], settle: Callable[[Relay[R], Future[T]], object]) -> None:
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
        if future is not None and future._complete(*outcome, bound=True):
            self._withdraw()

    def _withdraw(self) -> None:
        withdrawals, self._withdrawals = self._withdrawals, []
        for withdraw in withdrawals:
            withdraw()
