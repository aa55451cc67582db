"""The state machine of a future: pending until it completes, once, with the threads and callbacks that wait for it.

``callbacks.py`` tells how callbacks run, and what happens to one that raises.

The lock is held for a few assignments only. Nothing that may take another lock is called under it, and no reference is
dropped under it: the garbage collector may run at any allocation, and with it the callbacks of a future that was
abandoned in a cycle. The lock is reentrant for the same reason.

In a forked child, a future that was pending at the fork has failed with ForkedError, since only the parent has the
threads that would complete it.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import pykka

from pykka_imagestore.runtime import forks
from pykka_imagestore.runtime.callbacks import MAX_NESTING, MAX_NESTING_AT_ONCE, run_callbacks, wait_until
from pykka_imagestore.runtime.errors import AbandonedError, ForkedError
from pykka_imagestore.runtime.future_repr import future_repr
from pykka_imagestore.runtime.get_hook import GetHook
from pykka_imagestore.runtime.state import State
from pykka_imagestore.runtime.weak_promise import WeakPromise

T = TypeVar("T")
Wake = Callable[[], object]

_PENDING, _READY, _FAILED, _DISCARDED = State.PENDING, State.READY, State.FAILED, State.DISCARDED
_numbers = itertools.count(1)


class Completable(pykka.ThreadingFuture[T]):
    """What a Future is before anything is chained to it: an outcome, and those who wait for it."""

    _state = State.PENDING
    _value: Any = None
    _error: BaseException | None = None
    _traceback: TracebackType | None = None
    _associated = False
    _discard_requested = False
    _wakers: Sequence[Wake] = ()
    _hook: GetHook[T] | None = None
    _keeper: Callable[[], WeakPromise[Any] | None] | None = None

    def __init__(self) -> None:
        # Pykka's own __init__ is not called: nothing that it sets up is used here.
        self._origin = forks.here
        self._lock = threading.RLock()
        self._callbacks: dict[int, tuple[State | None, Callable[[Self], object]]] = {}
        self._discard_callbacks: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return future_repr(self)

    if not TYPE_CHECKING:  # a checker would take any attribute

        def __getattr__(self, name: str) -> Any:
            # What somebody takes for the value, or for a future of another library, looks for it here.
            instead = "" if name.startswith("_") else ": get() waits for its value"
            msg = f"{type(self).__name__!r} object has no attribute {name!r}{instead}"
            raise AttributeError(msg, name=name, obj=self)

    # -- the state

    def done(self) -> bool:
        """Tell whether the future is ready, failed or discarded."""
        return self._state is not _PENDING or self._is_lost()

    def is_pending(self) -> bool:
        """Tell whether the future has no outcome yet."""
        return not self.done()

    def is_ready(self) -> bool:
        """Tell whether the future has a value."""
        return self._state is _READY

    def is_failed(self) -> bool:
        """Tell whether the future failed; an abandoned one did."""
        return self.done() and self._state is _FAILED

    def is_discarded(self) -> bool:
        """Tell whether the work was stopped on request."""
        return self._state is _DISCARDED

    def is_abandoned(self) -> bool:
        """Tell whether the future failed because nothing was left that could complete it."""
        return isinstance(self._error, AbandonedError)

    def has_discard(self) -> bool:
        """Tell whether a discard was ever requested, also after completion."""
        return self._discard_requested

    def error(self) -> BaseException | None:
        """Return why the future failed or was discarded; None if it is pending or ready."""
        return self._error if self.done() else None

    def get(self, *, timeout: float | None = None) -> T:
        """Block this thread until the future is final, and return its value.

        Called in a callback, it first runs the deferred callbacks of this thread.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            pykka.Timeout: It took longer. The future is unaffected.
            DiscardedError: The future was discarded.
            ForkedError: This is a forked child, and the future was pending at the fork.
            BaseException: Whatever the future failed with.
        """
        if self._state is _PENDING:
            if self._hook is None or self._is_lost():
                wait_until(self.done, self._wait_once, timeout)
            else:
                self._hook.get(self, timeout)
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        return cast(T, self._value)

    def discard(self) -> bool:
        """Ask the producer to stop, by its ``on_discard`` callbacks, here and now; the future is pending until it has.

        Returns:
            False if the future is final or a discard was requested before.
        """
        if self.done():
            return False
        with self._lock:
            if self._discard_requested or self._state is not _PENDING:
                return False
            self._discard_requested = True
            chosen, self._discard_callbacks = self._discard_callbacks, []
        run_callbacks(chosen, (), MAX_NESTING_AT_ONCE)
        return True

    # -- observers

    def on_ready(self, callback: Callable[[T], object]) -> Self:
        """Call ``callback(value)`` when the future is ready."""
        self._observe(_READY, lambda future: callback(future._value))
        return self

    def on_failed(self, callback: Callable[[BaseException], object]) -> Self:
        """Call ``callback(error)`` when the future has failed."""
        self._observe(_FAILED, lambda future: callback(cast(BaseException, future._error)))
        return self

    def on_abandoned(self, callback: Callable[[], object]) -> Self:
        """Call ``callback()`` when the future has failed because nothing is left that could complete it."""
        self._observe(_FAILED, lambda future: future.is_abandoned() and callback())
        return self

    def on_discarded(self, callback: Callable[[], object]) -> Self:
        """Call ``callback()`` when the work was stopped on request."""
        self._observe(_DISCARDED, lambda _: callback())
        return self

    def on_any(self, callback: Callable[[Self], object]) -> Self:
        """Call ``callback(future)`` when the future is final, whatever the outcome."""
        self._observe(None, callback)
        return self

    def watch(self, callback: Callable[[Self], object]) -> Callable[[], bool]:
        """Do what ``on_any`` does, and return a function that withdraws the callback.

        A pending future keeps its callbacks and what they refer to: withdraw what lost interest in a long-lived one.

        Returns:
            Withdraws the callback; returns False if it was withdrawn before, or the future is final.
        """
        number, reference = self._observe(None, callback), weakref.ref(self)

        def withdraw() -> bool:
            future = reference()
            return future is not None and future._withdraw(number)

        return withdraw

    def on_discard(self, callback: Callable[[], object]) -> Self:
        """Call ``callback()`` in the thread that requests a discard; now if one was, never if the future ends first."""
        if self.done():
            return self
        with self._lock:
            if self._state is not _PENDING:
                return self
            if not self._discard_requested:
                self._discard_callbacks.append(callback)
                return self
        run_callbacks((callback,), (), MAX_NESTING_AT_ONCE)
        return self

    # -- inside

    def _is_lost(self) -> bool:
        """Tell whether this pending future belongs to the parent of this forked child; fail it in that case."""
        if self._origin is forks.here:
            return False
        # Its lock, which another thread may have held at the fork, is never taken: no method takes that of a final one.
        self._error = ForkedError("this future")
        self._callbacks, self._discard_callbacks, self._wakers = {}, [], ()
        self._state = _FAILED
        return True

    def _wait_once(self, wait: Callable[[float | None], object], wake: Wake, seconds: float | None) -> None:
        """Call ``wait``; the thread that completes the future meanwhile calls ``wake``."""
        wakers = [wake]
        with self._lock:
            if self._state is not _PENDING:
                return
            if self._wakers:
                cast("list[Wake]", self._wakers).append(wake)
            else:
                self._wakers = wakers
        try:
            wait(seconds)
        finally:
            if not self.done():
                with self._lock:
                    if wake in self._wakers:
                        cast("list[Wake]", self._wakers).remove(wake)

    def _observe(
        self, outcome: State | None, callback: Callable[[Self], object], max_nesting: int = MAX_NESTING_AT_ONCE
    ) -> int:
        """Call ``callback`` at this outcome, or at any if it is None; return the number that withdraws it."""
        number, entry = 0, (outcome, callback)
        if self._state is _PENDING and (self._origin is forks.here or not self._is_lost()):
            number = next(_numbers)
            with self._lock:
                is_pending = self._state is _PENDING
                if is_pending:
                    self._callbacks[number] = entry
                    keeper = None if self._keeper is None else self._keeper()
                    if keeper is not None:
                        keeper.kept = self
            if is_pending:
                if self._hook is not None:
                    self._hook.start(self)
                return number
        if outcome is None or outcome is self._state:
            run_callbacks((callback,), (self,), max_nesting)
        return number

    def _withdraw(self, number: int) -> bool:
        if self.done():
            return False
        with self._lock:
            entry = self._callbacks.pop(number, None)
            keeper = None if self._keeper is None else self._keeper()
            if keeper is not None and not self._callbacks:
                keeper.kept = None
        return entry is not None

    def _keep(self, keeper: weakref.ref[WeakPromise[Any]]) -> None:
        """Have ``keeper`` hold this future strongly for as long as something observes it."""
        promise = keeper()
        with self._lock:
            self._keeper = keeper
            if promise is not None and self._callbacks:
                promise.kept = self

    def _complete(
        self,
        state: State,
        value: Any,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
        *,
        bound: bool = False,
    ) -> bool:
        """Make the future final; False if it is already, or bound to another that has not brought this outcome."""
        if self._origin is not forks.here and self.done():
            return False
        with self._lock:
            if self._state is not _PENDING or (self._associated and not bound):
                return False
            self._value, self._error, self._traceback = value, error, traceback
            self._state = state
            entries, self._callbacks = self._callbacks, _NO_CALLBACKS
            wakers, self._wakers = self._wakers, ()
            dropped, self._discard_callbacks = self._discard_callbacks, _NO_DISCARDS
        del dropped
        if wakers:
            run_callbacks(wakers, (), sys.maxsize)
        if entries:
            chosen = [callback for outcome, callback in entries.values() if outcome is state]
            chosen += [callback for outcome, callback in entries.values() if outcome is None]
            run_callbacks(chosen, (self,), MAX_NESTING)
        return True


_NO_CALLBACKS: dict[int, Any] = {}  # shared by all final futures, which never add to it
_NO_DISCARDS: list[Callable[[], object]] = []
