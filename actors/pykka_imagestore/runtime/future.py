"""Futures with libprocess' semantics that are Pykka futures too.

A future is pending until it becomes ready, failed or discarded, and never changes after that. ``discard()`` is a
request to whoever produces the value; the future becomes discarded once the producer says so. Callbacks run at once,
in the registering thread, if the future is final already, else in the thread that completes it: first those for the
outcome, then ``on_any``, each in the order of registration. A callback that raises is logged and hurts nobody.
Callbacks that nest very deep, as in a chain of a thousand links, run when the outer ones have returned.

Source: Apache Mesos, 3rdparty/libprocess/include/process/future.hpp. Unlike there, exceptions travel with their
traceback, and an abandoned future fails with AbandonedError instead of staying pending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import functools
import itertools
import logging
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import pykka

from pykka_imagestore.runtime.errors import AbandonedError, DiscardedError
from pykka_imagestore.runtime.timers import timers

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class State(enum.Enum):
    """Where a future stands. All but PENDING are final."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"
    DISCARDED = "discarded"


class Future(pykka.ThreadingFuture[T]):
    """A value that is there, or will be, or will not; see the module's text.

    Thread-safe. To make one for others to wait on, make a Promise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._state = State.PENDING
        self._associated = False
        self._discard_requested = False
        self._callbacks: list[tuple[State | None, Callable[[Future[T]], object]]] = []
        self._discard_callbacks: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Future {self._state.value}{', discard requested' if self._discard_requested else ''}>"

    # -- what it is now

    def done(self) -> bool:
        """Tell whether the future is ready, failed or discarded."""
        return self._state is not State.PENDING

    def is_pending(self) -> bool:
        """Tell whether the future has no outcome yet."""
        return self._state is State.PENDING

    def is_ready(self) -> bool:
        """Tell whether the future has a value."""
        return self._state is State.READY

    def is_failed(self) -> bool:
        """Tell whether the future has an error; an abandoned one has."""
        return self._state is State.FAILED

    def is_discarded(self) -> bool:
        """Tell whether the work was stopped on request."""
        return self._state is State.DISCARDED

    def is_abandoned(self) -> bool:
        """Tell whether the future failed because nobody was left to complete it."""
        return isinstance(self.error(), AbandonedError)

    def has_discard(self) -> bool:
        """Tell whether a discard was ever requested, also after completion."""
        return self._discard_requested

    def error(self) -> BaseException | None:
        """Return why the future failed or was discarded; None if it is pending or ready."""
        if self._state in (State.PENDING, State.READY):
            return None
        return cast(Any, self._result).exc_info[1]  # type: ignore[no-any-return]

    def get(self, *, timeout: float | None = None) -> T:
        """Wait for the value, blocking this thread.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            pykka.Timeout: It took longer. The future is unaffected.
            DiscardedError: The future was discarded.
            BaseException: Whatever the future failed with.
        """
        if self._state is State.READY:
            return cast(T, cast(Any, self._result).value)
        return cast(T, super().get(timeout=timeout))

    # -- asking for less

    def discard(self) -> bool:
        """Ask the producer to stop; the future stays pending until the producer has.

        ``on_discard`` callbacks run now, in this thread.

        Returns:
            False if the future is final or a discard was requested before.
        """
        with self._condition:
            if self._discard_requested or self._state is not State.PENDING:
                return False
            self._discard_requested = True
            callbacks, self._discard_callbacks = self._discard_callbacks, []
        _run_callbacks(callbacks)
        return True

    # -- observers

    def on_ready(self, callback: Callable[[T], object]) -> Future[T]:
        """Call ``callback(value)`` when ready."""
        return self._observe(State.READY, lambda future: callback(future.get(timeout=0)))

    def on_failed(self, callback: Callable[[BaseException], object]) -> Future[T]:
        """Call ``callback(error)`` when failed."""
        return self._observe(State.FAILED, lambda future: callback(cast(BaseException, future.error())))

    def on_abandoned(self, callback: Callable[[], object]) -> Future[T]:
        """Call ``callback()`` when the future failed because nobody is left to complete it."""
        return self._observe(State.FAILED, lambda future: future.is_abandoned() and callback())

    def on_discarded(self, callback: Callable[[], object]) -> Future[T]:
        """Call ``callback()`` when the work was stopped on request."""
        return self._observe(State.DISCARDED, lambda _: callback())

    def on_any(self, callback: Callable[[Future[T]], object]) -> Future[T]:
        """Call ``callback(future)`` when the future is final, whatever the outcome."""
        return self._observe(None, callback)

    def on_discard(self, callback: Callable[[], object]) -> Future[T]:
        """Call ``callback()`` when a discard is requested, in the requesting thread.

        At once if it was requested already; never if the future completes first.
        """
        with self._condition:
            if self._state is not State.PENDING:
                return self
            if not self._discard_requested:
                self._discard_callbacks.append(callback)
                return self
        _run_callbacks([callback])
        return self

    # -- the next link

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
                promise.compute(function, source.get(timeout=0))

        return self._next(apply)

    def repair(self, function: Callable[[Future[T]], Future[T] | T]) -> Future[T]:
        """Replace a failure by what ``function(self)`` returns; all else, abandonment too, passes."""

        def apply(source: Future[T], promise: Promise[T]) -> None:
            if source.is_failed() and not source.is_abandoned():
                promise.compute(function, source)
            else:
                promise.copy(source)

        return self._next(apply)

    def recover(self, function: Callable[[Future[T]], Future[R] | R]) -> Future[T | R]:
        """Replace a failure, a discard or an abandonment by what ``function(self)`` returns.

        A discard requested before is forgotten, so that the replacement is not discarded at birth.
        """

        def apply(source: Future[T], promise: Promise[T | R]) -> None:
            if source.is_ready():
                promise.copy(cast("Future[T | R]", source))
            else:
                promise.future._discard_requested = False
                promise.compute(function, source)

        return self._next(apply)

    def after(self, seconds: float, function: Callable[[Future[T]], Future[R] | R]) -> Future[T | R]:
        """Take what ``function(self)`` returns if this future is still pending after ``seconds``.

        This future goes on all the same, unless ``function`` discards it. If it completes first, its outcome is
        taken and ``function`` never runs.
        """
        promise: Promise[T | R] = Promise()
        once = threading.Lock()

        def expire() -> None:
            if once.acquire(blocking=False):
                promise.compute(function, self)

        def complete(source: Future[T]) -> None:
            if once.acquire(blocking=False):
                timer.cancel()
                promise.copy(cast("Future[T | R]", source))

        timer = timers.call_later(seconds, expire)
        promise.future.on_discard(weak_discard(self))
        self.on_any(complete)
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
        if not self.done():
            if asyncio._get_running_loop() is None:
                yield self
            else:
                yield from self._wait_in_asyncio()
        return self.get(timeout=0)

    __iter__ = __await__

    def to_concurrent(self) -> concurrent.futures.Future[T]:
        """Return a ``concurrent.futures.Future`` with this outcome; cancelling it discards this future."""
        twin: concurrent.futures.Future[T] = concurrent.futures.Future()
        twin.add_done_callback(lambda twin: self.discard() if twin.cancelled() else None)

        def settle(_: Future[T]) -> None:
            if self.is_discarded():
                twin.cancel()
            if not twin.set_running_or_notify_cancel():
                return
            error = self.error()
            if error is None:
                twin.set_result(self.get(timeout=0))
            else:
                twin.set_exception(error)

        self.on_any(settle)
        return twin

    @staticmethod
    def from_concurrent(source: concurrent.futures.Future[R]) -> Future[R]:
        """Return a future with the outcome of a ``concurrent.futures.Future``; a discard cancels it."""
        promise: Promise[R] = Promise()

        def settle(_: object) -> None:
            if source.cancelled():
                promise.discard()
            elif (error := source.exception()) is not None:
                promise.fail(error)
            else:
                promise.set(source.result())

        promise.future.on_discard(source.cancel)
        source.add_done_callback(settle)
        return promise.future

    # -- Pykka's write side, used by Pykka's own actor loop

    def set(self, value: Future[T] | T | None = None) -> None:
        """Make the future ready, or bound to the future that ``value`` is.

        Raises:
            queue.Full: It is final or bound already, as Pykka has it. A Promise returns False instead.
        """
        if not (self._associate(value) if isinstance(value, Future) else self._complete(State.READY, value)):
            raise queue.Full

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:  # type: ignore[override]
        """Fail the future with ``exc_info``, by default the exception being handled.

        Raises:
            queue.Full: It is final or bound already.
        """
        if not self._complete(State.FAILED, exc_info):
            raise queue.Full

    # -- inside

    def _observe(self, outcome: State | None, callback: Callable[[Future[T]], object]) -> Future[T]:
        with self._condition:
            if self._state is State.PENDING:
                self._callbacks.append((outcome, callback))
                return self
        if outcome is None or outcome is self._state:
            _run_callbacks([functools.partial(callback, self)])
        return self

    def _next(self, apply: Callable[[Future[T], Promise[R]], None]) -> Future[R]:
        # Nothing that this future holds may hold this future: dropped, it must be gone at once, and so abandoned.
        promise: Promise[R] = Promise()
        promise.future.on_discard(weak_discard(self))
        self.on_any(lambda source: apply(source, promise))
        return promise.future

    def _associate(self, source: Future[T]) -> bool:
        with self._condition:
            if self._associated or self._state is not State.PENDING:
                return False
            self._associated = True
        self.on_discard(weak_discard(source))
        source.on_any(self._copy)
        return True

    def _copy(self, source: Future[T]) -> bool:
        error = source.error()
        if error is None:
            return self._complete(State.READY, source.get(timeout=0), bound=True)
        return self._complete(source._state, (type(error), error, error.__traceback__), bound=True)

    def _complete(self, state: State, result: Any, *, bound: bool = False) -> bool:
        with self._condition:
            if self._state is not State.PENDING or (self._associated and not bound):
                return False
            if state is State.READY:
                super().set(result)
            else:
                super().set_exception(result)
            self._state = state
            callbacks, self._callbacks, self._discard_callbacks = self._callbacks, [], []
        if callbacks:
            chosen = [callback for outcome, callback in callbacks if outcome is state]
            chosen += [callback for outcome, callback in callbacks if outcome is None]
            _run_callbacks([functools.partial(callback, self) for callback in chosen])
        return True

    def _wait_in_asyncio(self) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(_wake_up, waiter)

        self.on_any(wake)
        try:
            yield from waiter
        except asyncio.CancelledError:
            self.discard()
            raise


class Promise(Generic[T]):
    """The write side of a future. Whoever holds it owes the answer.

    Each setter returns False, and does nothing, if the future is final or bound to another. A promise that is
    dropped without an answer abandons its future.
    """

    def __init__(self) -> None:
        self.future: Future[T] = Future()

    def __del__(self) -> None:
        if self.future.is_pending() and not self.future._associated:
            self.fail(AbandonedError())

    def set(self, value: Future[T] | T) -> bool:
        """Make the future ready; a future as the value is associated."""
        if isinstance(value, Future):
            return self.associate(value)
        return self.future._complete(State.READY, value)

    def fail(self, error: BaseException) -> bool:
        """Fail the future; the error keeps its traceback."""
        return self.future._complete(State.FAILED, (type(error), error, error.__traceback__))

    def discard(self) -> bool:
        """Answer a discard: the work has stopped, the future becomes discarded."""
        return self.future._complete(State.DISCARDED, (DiscardedError, DiscardedError(), None))

    def associate(self, source: Future[T]) -> bool:
        """Bind the future to ``source``: its outcome flows here, discard requests flow there."""
        return self.future._associate(source)

    def copy(self, source: Future[T]) -> bool:
        """Give the future the outcome of ``source``, which is final."""
        return self.future._copy(source)

    def compute(self, function: Callable[..., Any], *args: Any) -> bool:
        """Give the future what ``function(*args)`` returns or raises; KeyboardInterrupt is raised here as well."""
        try:
            value = function(*args)
        except KeyboardInterrupt as error:
            self.fail(error)
            raise
        except BaseException as error:  # noqa: BLE001 - it travels to whoever gets the future
            return self.fail(without_frames(error, 1))
        return self.set(value)


def ready(value: T) -> Future[T]:
    """Return a future that is ready."""
    promise: Promise[T] = Promise()
    promise.set(value)
    return promise.future


def failed(error: BaseException) -> Future[Any]:
    """Return a future that has failed."""
    promise: Promise[Any] = Promise()
    promise.fail(error)
    return promise.future


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


def _wake_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


DEEPEST_NESTING = 16  # callbacks in callbacks, of some seven calls each


class _Nesting(threading.local):
    """How deep in callbacks this thread is, and what is put off until it is out of them."""

    def __init__(self) -> None:
        self.depth = 0
        self.put_off: deque[Callable[[], object]] = deque()


_nesting = _Nesting()


def _run_callbacks(callbacks: Iterable[Callable[[], object]]) -> None:
    if _nesting.depth == DEEPEST_NESTING:
        _nesting.put_off.extend(callbacks)
        return
    interrupt = None
    _nesting.depth += 1
    try:
        for callback in itertools.chain(callbacks, _put_off()):
            try:
                callback()
            except KeyboardInterrupt as error:
                interrupt = error  # raised when all have been told, or they would wait for ever
            except BaseException:
                logger.exception("A future's callback failed; the future is unaffected")
    finally:
        _nesting.depth -= 1
    if interrupt is not None:
        raise interrupt


def _put_off() -> Iterator[Callable[[], object]]:
    while _nesting.depth == 1 and _nesting.put_off:
        yield _nesting.put_off.popleft()
