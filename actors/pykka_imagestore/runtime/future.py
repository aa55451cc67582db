"""Futures with libprocess' semantics that are Pykka futures too.

See ``callbacks.py`` for callbacks that raise, or nest deep.

A future's lock is held for a few assignments only: never while anything is called that may take another lock, and
nothing is let go of under it. For the garbage collector may run in any of them, and with it the callbacks of a future
that was abandoned in a cycle; the lock is reentrant for the same reason.

In a forked child, a future that was pending at the fork has failed with ForkedError: who would complete it has stayed
in the parent.

Source: Apache Mesos, 3rdparty/libprocess/include/process/future.hpp. Unlike there, exceptions travel with their
traceback, and an abandoned future fails with AbandonedError instead of staying pending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, overload

import pykka

from pykka_imagestore.runtime import bridges, forks
from pykka_imagestore.runtime.callbacks import (
    DEEPEST_AT_ONCE,
    DEEPEST_NESTING,
    interrupts,
    run_callbacks,
    this_runner,
    wait_until,
)
from pykka_imagestore.runtime.errors import AbandonedError, DiscardedError, ForkedError
from pykka_imagestore.runtime.relay import Relay
from pykka_imagestore.runtime.state import State
from pykka_imagestore.runtime.timers import timers

T = TypeVar("T")
R = TypeVar("R")
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


_PENDING, _READY, _FAILED, _DISCARDED = State.PENDING, State.READY, State.FAILED, State.DISCARDED
_numbers = itertools.count(1)


class Future(pykka.ThreadingFuture[T]):
    """A value that is there, or will be, or will not.

    A future is pending until it becomes ready, failed or discarded, and never changes after that. ``discard()`` is a
    request to whoever produces the value; the future becomes discarded once the producer says so. A future whose
    producer is gone without an answer has failed with AbandonedError.

    Callbacks run at once, in the registering thread, if the future is final already, else in the thread that completes
    it: first those for the outcome, then ``on_any``, each in the order of registration. One that raises is logged.

    Thread-safe. It can be awaited, in an actor's async method and in asyncio; cancelling the awaiting asyncio task
    discards it. To make one for others to wait on, make a Promise.
    """

    _state = State.PENDING
    _value: Any = None
    _error: BaseException | None = None
    _traceback: TracebackType | None = None
    _associated = False
    _discard_requested = False
    _wakers: Sequence[Callable[[], object]] = ()
    _keeper: Callable[[], Relay[Any] | None] | None = None

    def __init__(self) -> None:
        # What Pykka's would set up is not used: all that it does is done otherwise here.
        self._origin = forks.here
        self._lock = threading.RLock()
        self._callbacks: dict[int, tuple[State | None, Callable[[Future[T]], object]]] = {}
        self._discard_callbacks: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Future {self._state.value}{', discard requested' if self._discard_requested else ''}>"

    # -- what it is now

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
        """Tell whether the future has an error; an abandoned one has."""
        return self.done() and self._state is _FAILED

    def is_discarded(self) -> bool:
        """Tell whether the work was stopped on request."""
        return self._state is _DISCARDED

    def is_abandoned(self) -> bool:
        """Tell whether the future failed because nobody was left to complete it."""
        return isinstance(self._error, AbandonedError)

    def has_discard(self) -> bool:
        """Tell whether a discard was ever requested, also after completion."""
        return self._discard_requested

    def error(self) -> BaseException | None:
        """Return why the future failed or was discarded; None if it is pending or ready."""
        return self._error if self.done() else None

    def get(self, *, timeout: float | None = None) -> T:
        """Wait for the value, blocking this thread.

        In a callback, what was put off in this thread is run first, until the future is final.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            pykka.Timeout: It took longer. The future is unaffected.
            DiscardedError: The future was discarded.
            ForkedError: This is a forked child, and the future was pending at the fork.
            BaseException: Whatever the future failed with.
        """
        if self._state is _PENDING:
            wait_until(self.done, self._wait_once, timeout)
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        return cast(T, self._value)

    # -- asking for less

    def discard(self) -> bool:
        """Ask the producer to stop; the future stays pending until the producer has.

        ``on_discard`` callbacks run now, in this thread.

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
        run_callbacks(chosen, (), DEEPEST_AT_ONCE)
        return True

    # -- observers

    def on_ready(self, callback: Callable[[T], object]) -> Future[T]:
        """Call ``callback(value)`` when ready."""
        self._observe(_READY, lambda future: callback(future._value))
        return self

    def on_failed(self, callback: Callable[[BaseException], object]) -> Future[T]:
        """Call ``callback(error)`` when failed."""
        self._observe(_FAILED, lambda future: callback(cast(BaseException, future._error)))
        return self

    def on_abandoned(self, callback: Callable[[], object]) -> Future[T]:
        """Call ``callback()`` when the future failed because nobody is left to complete it."""
        self._observe(_FAILED, lambda future: future.is_abandoned() and callback())
        return self

    def on_discarded(self, callback: Callable[[], object]) -> Future[T]:
        """Call ``callback()`` when the work was stopped on request."""
        self._observe(_DISCARDED, lambda _: callback())
        return self

    def on_any(self, callback: Callable[[Future[T]], object]) -> Future[T]:
        """Call ``callback(future)`` when the future is final, whatever the outcome."""
        self._observe(None, callback)
        return self

    def watch(self, callback: Callable[[Future[T]], object]) -> Callable[[], bool]:
        """Do what ``on_any`` does, and return a function that withdraws the callback.

        It tells whether there was something to withdraw: not once the future is final. A future that lives long keeps
        every callback, and what it refers to, until then; but not those that were withdrawn.
        """
        number, reference = self._observe(None, callback), weakref.ref(self)

        def withdraw() -> bool:
            future = reference()
            return future is not None and future._withdraw(number)

        return withdraw

    def on_discard(self, callback: Callable[[], object]) -> Future[T]:
        """Call ``callback()`` when a discard is requested, in the requesting thread.

        At once if it was requested already; never if the future completes first.
        """
        if self.done():
            return self
        with self._lock:
            if self._state is not _PENDING:
                return self
            if not self._discard_requested:
                self._discard_callbacks.append(callback)
                return self
        run_callbacks((callback,), (), DEEPEST_AT_ONCE)
        return self

    # -- the next link

    # A function may return a value, a future or either. Given the union alone, mypy finds no R for a function that
    # returns a future: that case needs an overload of its own.

    @overload
    def then(self, function: Callable[[T], Future[R]]) -> Future[R]: ...
    @overload
    def then(self, function: Callable[[T], Future[R] | R]) -> Future[R]: ...
    def then(self, function: Callable[[T], Future[R] | R]) -> Future[R]:
        """Apply ``function`` to the value; failure and discard pass through untouched.

        ``function`` is skipped, and the result discarded, if a discard of either future was requested by then.
        A future that ``function`` returns is flattened. A discard of the result is passed on to this future.
        """

        def apply(source: Future[T], promise: Promise[R]) -> None:
            if not source.is_ready():
                promise.copy(cast("Future[R]", source))
            elif source.has_discard() or promise.future.has_discard():
                promise.discard()
            else:
                promise.compute(function, source._value)

        return self._next(apply)

    def repair(self, function: Callable[[Future[T]], Future[T] | T]) -> Future[T]:
        """Replace a failure by what ``function(self)`` returns; all else, abandonment too, passes."""

        def apply(source: Future[T], promise: Promise[T]) -> None:
            if source.is_failed() and not source.is_abandoned():
                promise.compute(function, source)
            else:
                promise.copy(source)

        return self._next(apply)

    @overload
    def recover(self, function: Callable[[Future[T]], Future[R]]) -> Future[T | R]: ...
    @overload
    def recover(self, function: Callable[[Future[T]], Future[R] | R]) -> Future[T | R]: ...
    def recover(self, function: Callable[[Future[T]], Any]) -> Future[Any]:
        """Replace a failure, a discard or an abandonment by what ``function(self)`` returns.

        A discard requested before is forgotten, so that the replacement is not discarded at birth.
        """

        def apply(source: Future[T], promise: Promise[Any]) -> None:
            if source.is_ready():
                promise.copy(source)
            else:
                promise.future._discard_requested = False
                promise.compute(function, source)

        return self._next(apply)

    @overload
    def after(self, seconds: float, function: Callable[[Future[T]], Future[R]]) -> Future[T | R]: ...
    @overload
    def after(self, seconds: float, function: Callable[[Future[T]], Future[R] | R]) -> Future[T | R]: ...
    def after(self, seconds: float, function: Callable[[Future[T]], Any]) -> Future[Any]:
        """Take what ``function(self)`` returns if this future is still pending after ``seconds``.

        This future goes on all the same, unless ``function`` discards it. If it completes first, its outcome is
        taken and ``function`` never runs.
        """
        promise: Promise[Any] = Promise()
        once = threading.Lock()
        withdrawals: list[Callable[[], bool]] = []

        def expire() -> None:
            if once.acquire(blocking=False):
                for withdraw in withdrawals:
                    withdraw()
                promise.compute(function, self)

        def complete(source: Future[T]) -> None:
            if once.acquire(blocking=False):
                timer.cancel()
                promise.copy(source)

        timer = timers.call_later(seconds, expire)
        promise.future.on_discard(weak_discard(self))
        withdrawals.append(self.watch(complete))
        if once.locked():  # it expired before there was something to withdraw
            withdrawals[0]()
        return promise.future

    def map(self, func: Callable[[T], R]) -> Future[R]:
        """Same as ``then``: eager, unlike Pykka's, and never run twice."""
        return self.then(func)

    def filter(self, func: Callable[[Any], bool]) -> Future[list[Any]]:  # type: ignore[override]
        """Keep the items of an iterable value for which ``func`` is true; eager."""
        return self.then(lambda items: [item for item in cast(Iterable[Any], items) if func(item)])

    def reduce(self, func: Callable[[Any, Any], Any], *initial: Any) -> Future[Any]:
        """Reduce an iterable value as ``functools.reduce`` does; eager."""
        return self.then(lambda items: functools.reduce(func, cast(Iterable[Any], items), *initial))

    def join(self, *futures: Future[Any]) -> Future[list[Any]]:  # type: ignore[override]
        """Same as ``collect`` of this future and the others; eager."""
        from pykka_imagestore.runtime.combine import collect  # noqa: PLC0415 - collect is built on Future

        return collect([self, *futures])

    # -- other worlds

    def __await__(self) -> Generator[Any, None, T]:
        """Suspend the awaiting coroutine alone: an actor's async method, or an asyncio task.

        Cancelling the asyncio task discards this future.
        """
        if self._state is not _PENDING or self._is_lost():
            runner = this_runner()
            runner.awaits_left -= 1
            if runner.awaits_left == 0 and asyncio._get_running_loop() is None:
                yield self
        elif asyncio._get_running_loop() is None:
            yield self
        else:
            yield from bridges.wait_in_asyncio(self)
        return self.get(timeout=0)

    __iter__ = __await__

    def to_concurrent(self) -> concurrent.futures.Future[T]:
        """Return a ``concurrent.futures.Future`` with this outcome; cancelling it discards this future."""
        return bridges.to_concurrent(self)

    @staticmethod
    def from_concurrent(source: concurrent.futures.Future[R]) -> Future[R]:
        """Return a future with the outcome of a ``concurrent.futures.Future``; a discard cancels it."""
        promise: Promise[R] = Promise()
        bridges.follow(source, promise)
        return promise.future

    # -- Pykka's write side, used by Pykka's own actor loop

    def set(self, value: Future[T] | T | None = None) -> None:
        """Make the future ready, or bound to the future that ``value`` is.

        Raises:
            queue.Full: It is final or bound already, as Pykka has it. A Promise returns False instead.
        """
        if not (self._associate(value) if isinstance(value, Future) else self._complete(_READY, value)):
            raise queue.Full

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:  # type: ignore[override]
        """Fail the future with ``exc_info``, by default the exception being handled.

        Raises:
            queue.Full: It is final or bound already.
        """
        kind, error, traceback = exc_info or sys.exc_info()
        if error is None:
            error = RuntimeError("set_exception() outside of an exception's handling") if kind is None else kind()
        if not self._complete(_FAILED, None, error, traceback):
            raise queue.Full

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Refuse: a hook would run in whichever thread gets, and nobody would be told.

        Raises:
            NotImplementedError: Always.
        """
        msg = f"a runtime Future has no get hooks, such as {func!r}: use then(), or a Promise"
        raise NotImplementedError(msg)

    # -- inside

    def _is_lost(self) -> bool:
        """Tell whether this pending future is the parent's of a forked child, and fail it then.

        Its lock, which another thread may have held at the fork, is never taken: that of a final future is not.
        """
        if self._origin is forks.here:
            return False
        self._error = ForkedError("this future")
        self._callbacks, self._discard_callbacks, self._wakers = {}, [], ()
        self._state = _FAILED
        return True

    def _wait_once(
        self, wait: Callable[[float | None], object], wake: Callable[[], object], seconds: float | None
    ) -> None:
        """Call ``wait``; whoever completes the future meanwhile calls ``wake``."""
        wakers = [wake]
        with self._lock:
            if self._state is not _PENDING:
                return
            if self._wakers:
                cast("list[Callable[[], object]]", self._wakers).append(wake)
            else:
                self._wakers = wakers
        try:
            wait(seconds)
        finally:
            if not self.done():
                with self._lock:
                    if wake in self._wakers:
                        cast("list[Callable[[], object]]", self._wakers).remove(wake)

    def _observe(
        self, outcome: State | None, callback: Callable[[Future[T]], object], deepest: int = DEEPEST_AT_ONCE
    ) -> int:
        """Call ``callback`` at the ``outcome``, or at any; return what withdraws it."""
        number, entry = 0, (outcome, callback)
        if self._state is _PENDING and (self._origin is forks.here or not self._is_lost()):
            number = next(_numbers)
            with self._lock:
                if self._state is _PENDING:
                    self._callbacks[number] = entry
                    keeper = None if self._keeper is None else self._keeper()
                    if keeper is not None:
                        keeper.kept = self
                    return number
        if outcome is None or outcome is self._state:
            run_callbacks((callback,), (self,), deepest)
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

    def _keep(self, keeper: weakref.ref[Relay[Any]]) -> None:
        """Have ``keeper`` keep this future for as long as somebody observes it."""
        relay = keeper()
        with self._lock:
            self._keeper = keeper
            if relay is not None and self._callbacks:
                relay.kept = self

    def _next(self, apply: Callable[[Future[T], Promise[R]], None]) -> Future[R]:
        # Nothing that this future holds may hold this future: dropped, it must be gone at once, and so abandoned.
        promise: Promise[R] = Promise()
        promise.future.on_discard(weak_discard(self))
        self._observe(None, lambda source: apply(source, promise), DEEPEST_NESTING)
        return promise.future

    def _associate(self, source: Future[T]) -> bool:
        if self.done():
            return False
        with self._lock:
            if self._associated or self._state is not _PENDING:
                return False
            self._associated = True
        self.on_discard(weak_discard(source))
        if source.done():
            source._observe(None, self._copy, DEEPEST_NESTING)
        else:
            Relay(self).watch((source,), Relay.copy)
        return True

    def _copy(self, source: Future[T]) -> bool:
        return self._complete(source._state, source._value, source._error, source._traceback, bound=True)

    def _complete(
        self,
        state: State,
        value: Any,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
        *,
        bound: bool = False,
    ) -> bool:
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
            run_callbacks(chosen, (self,), DEEPEST_NESTING)
        return True


_NO_CALLBACKS: dict[int, Any] = {}  # of a final future: nobody adds to it
_NO_DISCARDS: list[Callable[[], object]] = []


class Promise(Generic[T]):
    """The write side of a future. Whoever holds it owes the answer.

    Each setter returns False, and does nothing, if the future is final or bound to another. A promise that is
    dropped without an answer abandons its future.
    """

    def __init__(self) -> None:
        self.future: Future[T] = Future()

    def __del__(self) -> None:
        future = self.future
        if future._state is _PENDING and not future._associated and future._origin is forks.here:
            self.fail(AbandonedError())

    def set(self, value: Future[T] | T) -> bool:
        """Make the future ready; a future as the value is associated."""
        if isinstance(value, Future):
            return self.associate(value)
        return self.future._complete(_READY, value)

    def fail(self, error: BaseException) -> bool:
        """Fail the future; the error keeps its traceback."""
        return self.future._complete(_FAILED, None, error, error.__traceback__)

    def discard(self) -> bool:
        """Answer a discard: the work has stopped, the future becomes discarded."""
        return self.future._complete(_DISCARDED, None, DiscardedError())

    def associate(self, source: Future[T]) -> bool:
        """Bind the future to ``source``: its outcome flows here, discard requests flow there."""
        return self.future._associate(source)

    def copy(self, source: Future[T]) -> bool:
        """Give the future the outcome of ``source``, which is final."""
        return self.future._copy(source)

    def compute(self, function: Callable[..., Any], *args: Any) -> bool:
        """Give the future what ``function(*args)`` returns or raises; what may be a Ctrl-C is raised here as well."""
        try:
            value = function(*args)
        except BaseException as error:
            if interrupts(error):
                self.fail(error)
                raise
            return self.fail(without_frames(error, 1))
        return self.set(value)


def ready(value: T) -> Future[T]:
    """Return a future that is ready."""
    future: Future[T] = Future()
    future.set(value)
    return future


def failed(error: BaseException) -> Future[Any]:
    """Return a future that has failed."""
    future: Future[Any] = Future()
    future._complete(_FAILED, None, error, error.__traceback__)
    return future


def weak_discard(future: Future[Any]) -> Callable[[], object]:
    """Return a callback that discards ``future`` if it still lives; held strongly it would make a cycle."""
    reference = weakref.ref(future)

    def discard() -> None:
        target = reference()
        if target is not None:
            target.discard()

    return discard


def without_frames(error: BaseException, count: int) -> BaseException:
    """Return ``error``, its traceback without the outermost frames.

    A frame that holds the promise that the error goes to would make a cycle: nothing of it would be freed in time.
    """
    traceback = error.__traceback__
    for _ in range(count):
        traceback = traceback and traceback.tb_next
    return error.with_traceback(traceback)
