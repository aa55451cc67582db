"""Futures with libprocess' semantics that are Pykka futures too.

Their state machine is in ``completable.py``. Unlike in libprocess, exceptions travel with their traceback, and an
abandoned future fails with AbandonedError instead of staying pending.

Source: Apache Mesos, 3rdparty/libprocess/include/process/future.hpp.
"""

from __future__ import annotations

import concurrent.futures
import functools
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, overload

import pykka

from pykka_imagestore.runtime import bridges, forks
from pykka_imagestore.runtime.callbacks import MAX_NESTING, interrupts, this_thread
from pykka_imagestore.runtime.completable import Completable
from pykka_imagestore.runtime.errors import AbandonedError, DiscardedError
from pykka_imagestore.runtime.get_hook import GetHook
from pykka_imagestore.runtime.state import State
from pykka_imagestore.runtime.timers import timers
from pykka_imagestore.runtime.weak_promise import WeakPromise

T = TypeVar("T")
R = TypeVar("R")
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_PENDING, _READY, _FAILED, _DISCARDED = State.PENDING, State.READY, State.FAILED, State.DISCARDED


class Future(Completable[T]):
    """A value that is computed elsewhere, and may be used before it is there.

    A future is pending until it becomes ready, failed or discarded, and never changes after that. ``discard()`` is a
    request to the producer of the value; the future becomes discarded once the producer has stopped. A future whose
    producer is gone without an answer has failed with AbandonedError.

    Callbacks run at once, in the registering thread, if the future is final already; else in the thread that completes
    it: first those for the outcome, then ``on_any``, each in the order of registration. One that raises is logged.

    A pending future keeps its callbacks, and all that they refer to, until it is final. So on a future that stays
    pending for long, each ``on_...``, ``then``, ``repair`` and ``recover`` leaves a callback; ``watch`` leaves one that
    can be withdrawn. An ``await``, ``after``, ``select``, ``collect`` and ``undiscardable`` withdraw theirs themselves.

    Thread-safe. It can be awaited, in an actor's async method and in asyncio; cancelling the awaiting asyncio task
    discards it. To make one for others to wait on, make a Promise.
    """

    # -- chaining

    # The functions may return a value, a future, or one or the other. From the union alone mypy infers no R for a
    # function that returns a future; that case needs an overload of its own.

    @overload
    def then(self, function: Callable[[T], Future[R]]) -> Future[R]: ...
    @overload
    def then(self, function: Callable[[T], Future[R] | R]) -> Future[R]: ...
    def then(self, function: Callable[[T], Future[R] | R]) -> Future[R]:
        """Return a future with what ``function(value)`` returns; failures and discards pass through untouched.

        A future that ``function`` returns is flattened. A discard of the result is passed on to this future. If a
        discard of either was requested before this one is ready, ``function`` is skipped and the result discarded.

        ``function`` runs whether or not the result is kept: ``store.put(...).then(print)`` prints. So it stays with
        this future until that is final, and dropping the result does not withdraw it. To stop listening to a future
        that stays pending for long, use ``watch``.
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
        """Replace a failure by what ``function(self)`` returns; any other outcome, abandonment too, passes through."""

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

        An earlier discard request is forgotten, so that the replacement is not discarded at once.
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
        """Return a future with this outcome, or what ``function(self)`` returns if there is none after ``seconds``.

        This future stays pending when the time is up, unless ``function`` discards it, but no longer knows of the
        result. If it completes first, ``function`` never runs.
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
        if once.locked():  # it expired before the callback was there to be withdrawn
            withdrawals[0]()
        return promise.future

    def map(self, func: Callable[[T], R]) -> Future[R]:
        """Do what ``then`` does: at once, where Pykka's runs in each ``get``."""
        return self.then(func)

    def filter(self, func: Callable[[Any], bool]) -> Future[list[Any]]:  # type: ignore[override]
        """Keep the items of an iterable value for which ``func`` is true; runs once, as ``then`` does."""
        return self.then(lambda items: [item for item in cast(Iterable[Any], items) if func(item)])

    def reduce(self, func: Callable[[Any, Any], Any], *initial: Any) -> Future[Any]:
        """Reduce an iterable value as ``functools.reduce`` does; runs once, as ``then`` does."""
        return self.then(lambda items: functools.reduce(func, cast(Iterable[Any], items), *initial))

    def join(self, *futures: pykka.Future[Any]) -> Future[list[Any]]:  # type: ignore[override]
        """Return ``collect`` of this future and the others, which may be plain Pykka futures."""
        from pykka_imagestore.runtime.combine import collect  # noqa: PLC0415 - collect is built on Future

        return collect([self, *futures])

    # -- asyncio and concurrent.futures

    def __await__(self) -> Generator[Any, None, T]:
        """Suspend the awaiting coroutine, which is an actor's async method or an asyncio task.

        Cancelling the asyncio task discards this future.
        """
        if self._state is not _PENDING or self._is_lost():
            thread = this_thread()
            thread.awaits_left -= 1
            if thread.awaits_left == 0 and not bridges.is_in_asyncio():
                yield self
        elif not bridges.is_in_asyncio():
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

    @staticmethod
    def from_pykka(source: pykka.Future[R]) -> Future[R]:
        """Return a future with the outcome of any Pykka future; a runtime Future as it is.

        A plain one calls nothing back, so a thread waits for it once the returned future is observed. A discard makes
        the returned future discarded at once.
        """
        if isinstance(source, Future):
            return source
        future: Future[R] = Future()
        bridges.follow_pykka(source, future)
        return future

    # -- the write side that Pykka's actor loop calls

    def set(self, value: pykka.Future[T] | T | None = None) -> None:
        """Make the future ready; if ``value`` is a future, bind it to that one.

        Raises:
            queue.Full: It is final or bound already; Pykka's own raises this too. A Promise returns False instead.
        """
        if not (self._associate(value) if isinstance(value, pykka.Future) else self._complete(_READY, value)):
            raise queue.Full

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:  # type: ignore[override]
        """Fail the future with ``exc_info``, by default the exception being handled.

        Raises:
            queue.Full: It is final or bound already.
        """
        kind, error, traceback = exc_info or sys.exc_info()
        if error is None:
            error = RuntimeError("set_exception() was called outside of an except block") if kind is None else kind()
        if not self._complete(_FAILED, None, error, traceback):
            raise queue.Full

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Have ``func(timeout)`` get the value: in the first ``get``, or in a thread of its own if this is observed.

        It returns at most once. What it raises in a ``get`` is raised there, and the next ``get`` calls it again; what
        it raises in the thread, the future fails with.

        Raises:
            queue.Full: The future is final, or bound to another.
        """
        if not self._take_hook(func, replaces=True):
            raise queue.Full

    # -- inside

    def _next(self, apply: Callable[[Future[T], Promise[R]], None]) -> Future[R]:
        # No callback of this future may hold the future itself: dropped, it must be freed at once, and so abandoned.
        promise: Promise[R] = Promise()
        promise.future.on_discard(weak_discard(self))
        self._observe(None, lambda source: apply(source, promise), MAX_NESTING)
        return promise.future

    def _associate(self, source: pykka.Future[T]) -> bool:
        if self.done():
            return False
        if not isinstance(source, Future):
            return bridges.follow_pykka(source, self)
        with self._lock:
            if self._associated or self._state is not _PENDING:
                return False
            self._associated = True
        self.on_discard(weak_discard(source))
        if source.done():
            source._observe(None, self._copy, MAX_NESTING)
        else:
            WeakPromise(self).watch((source,), WeakPromise.copy)
        return True

    def _take_hook(self, function: Callable[[float | None], T], *, replaces: bool = False) -> bool:
        """Bind this future to a get hook; False if it is final, or bound to anything but a hook that this replaces."""
        if self.done():
            return False
        hook = GetHook(function)
        with self._lock:
            is_free = not self._associated or (replaces and self._hook is not None)
            if self._state is not _PENDING or not is_free:
                return False
            self._associated, self._hook = True, hook
            is_awaited = bool(self._callbacks or self._wakers)
        if is_awaited:
            hook.start(self)
        return True

    def _copy(self, source: Future[T]) -> bool:
        return self._complete(source._state, source._value, source._error, source._traceback, bound=True)


class Promise(Generic[T]):
    """The write side of a future, held by the producer of its value.

    Each setter returns False, and does nothing, if the future is final or bound to another. A promise that is
    dropped without an answer abandons its future.
    """

    def __init__(self) -> None:
        self.future: Future[T] = Future()

    def __del__(self) -> None:
        future = self.future
        if future._state is _PENDING and not future._associated and future._origin is forks.here:
            self.fail(AbandonedError())

    def set(self, value: pykka.Future[T] | T) -> bool:
        """Make the future ready; a future as the value is associated, a plain Pykka future too."""
        if isinstance(value, pykka.Future):
            return self.associate(value)
        return self.future._complete(_READY, value)

    def fail(self, error: BaseException) -> bool:
        """Fail the future; the error keeps its traceback."""
        return self.future._complete(_FAILED, None, error, error.__traceback__)

    def discard(self) -> bool:
        """Answer a discard: the work has stopped, and the future becomes discarded."""
        return self.future._complete(_DISCARDED, None, DiscardedError())

    def associate(self, source: pykka.Future[T]) -> bool:
        """Bind the future to ``source``: its outcome flows here, discard requests flow there."""
        return self.future._associate(source)

    def copy(self, source: Future[T]) -> bool:
        """Give the future the outcome of ``source``, which is final."""
        return self.future._copy(source)

    def compute(self, function: Callable[..., Any], *args: Any) -> bool:
        """Give the future what ``function(*args)`` returns or raises; raise a Ctrl-C here as well."""
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
    """Return a callback that discards ``future`` and refers to it weakly: a strong reference would make a cycle."""
    reference = weakref.ref(future)

    def discard() -> None:
        target = reference()
        if target is not None:
            target.discard()

    return discard


def without_frames(error: BaseException, count: int) -> BaseException:
    """Return ``error``, the outermost frames removed from its traceback.

    A frame that refers to the promise which gets the error would make a cycle, and nothing in it would be freed in
    time.
    """
    traceback = error.__traceback__
    for _ in range(count):
        traceback = traceback and traceback.tb_next
    return error.with_traceback(traceback)
