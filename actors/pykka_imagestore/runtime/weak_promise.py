"""The write side of a future that is made from others, which does not keep that future alive."""

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


class WeakPromise(Generic[R]):
    """A promise whose holders are the futures that its own is made from, which may stay pending for long.

    So it refers to its future strongly only while something observes that, and withdraws from all the others once its
    future is final or dropped. If the others are dropped first, its future is abandoned.

    Attributes:
        kept: The future, while something observes it.
    """

    def __init__(self, future: Future[R]) -> None:
        self.kept: object = None
        reference = weakref.ref(self)

        def withdraw(_: object) -> None:
            promise = reference()
            if promise is not None:
                promise._withdraw()

        self._future = weakref.ref(future, withdraw)
        self._withdrawals: list[Callable[[], bool]] = []
        future._keep(reference)

    def __del__(self) -> None:
        future = self._future()
        if future is not None and future.is_pending():
            self.fail(AbandonedError())

    def watch(self, inputs: Iterable[Future[T]], settle: Callable[[WeakPromise[R], Future[T]], object]) -> None:
        """Call ``settle(self, input)`` for each input that is or becomes final, until this future is."""
        for future in inputs:
            self._withdrawals.append(future.watch(functools.partial(settle, self)))
        result = self._future()
        if result is not None and result.done():  # before all inputs were watched
            self._withdraw()

    def has_discard(self) -> bool:
        """Tell whether a discard of the future was requested."""
        future = self._future()
        return future is not None and future.has_discard()

    def set(self, value: R) -> None:
        """Make the future ready."""
        self._complete(State.READY, value)

    def fail(self, error: BaseException) -> None:
        """Fail the future."""
        self._complete(State.FAILED, None, error, error.__traceback__)

    def discard(self) -> None:
        """Make the future discarded."""
        self._complete(State.DISCARDED, None, DiscardedError())

    def copy(self, source: Future[R]) -> None:
        """Give the future the outcome of ``source``, which is final."""
        self._complete(source._state, source._value, source._error, source._traceback)

    def _complete(self, *outcome: Any) -> None:
        future = self._future()
        if future is not None and future._complete(*outcome, bound=True):
            self._withdraw()

    def _withdraw(self) -> None:
        withdrawals, self._withdrawals = self._withdrawals, []
        for withdraw in withdrawals:
            withdraw()
