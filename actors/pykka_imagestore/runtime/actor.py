"""Pykka actors whose methods may be ``async def``, and the ways to reach them.

A method runs in its actor's thread, one message at a time. At an ``await`` the method alone is suspended, and other
messages run; it goes on, in the same thread, when the awaited future is final. So there must be no ``await`` between
testing a table and writing it.

Source: Apache Mesos, 3rdparty/libprocess/include/process/{process,dispatch,defer}.hpp.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import CoroutineType, TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, overload

import pykka
from pykka.messages import _ActorStop

from pykka_imagestore.runtime import forks
from pykka_imagestore.runtime.callbacks import this_runner
from pykka_imagestore.runtime.errors import DiscardedError, ForkedError
from pykka_imagestore.runtime.future import Future, Promise, failed, ready, without_frames

logger = logging.getLogger(__name__)

A = TypeVar("A", bound="Actor")
P = ParamSpec("P")
T = TypeVar("T")

MAX_AWAITS = 100  # of futures that are final, one after the other in one method, before others have a turn


class Actor(pykka.ThreadingActor):
    """A Pykka actor with async methods and death notices.

    Calls through ``dispatch``, ``ask`` and a proxy answer with a runtime Future; a future that a method returns is
    flattened. ``on_start`` and ``on_stop`` may be async too: other messages wait until they have ended. Pykka's return
    None, so a type checker wants a ``# type: ignore[override]`` at an async one. An actor left running does not keep
    the interpreter from ending. It runs in the process that started it alone: in a forked child, what it is asked fails
    with ForkedError.
    """

    use_daemon_thread = True
    actor_inbox: Inbox

    def __init__(self) -> None:
        super().__init__()
        self.actor_inbox.owner = f"the actor {type(self).__name__}"
        self._actor_ref = _Ref(self)
        self._tasks: set[_Task] = set()
        self._links: set[str] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in this actor's thread, never at once but as a message of its own.

        Returns:
            Its outcome. A discard stops what the coroutine awaits; once that has ended, DiscardedError is raised at
            the ``await``, once: what it awaits afterwards, to clean up, is left alone. Fails with ActorDeadError if
            the actor ends first.
        """
        task = _Task(self, coroutine)
        task.wake()
        if self.actor_inbox.closed:
            task.close(_dead(self.actor_ref))
        return task.promise.future

    def link(self, ref: pykka.ActorRef[Any]) -> None:
        """Have ``exited(ref)`` called in this actor, exactly once, when the other has ended; at once if it has.

        Raises:
            TypeError: The other is no runtime Actor, so nobody tells when it ends.
        """
        inbox, me = inbox_of(ref), self.actor_ref
        if ref.actor_urn not in self._links:
            self._links.add(ref.actor_urn)
            inbox.on_ended(lambda: _tell(me, _Exited(ref)))

    def exited(self, ref: pykka.ActorRef[Any]) -> None:
        """Handle the end of a linked actor; does nothing unless overridden."""

    # -- Pykka's hooks

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox()

    @staticmethod
    def _create_future() -> Future[Any]:
        return Future()

    def _actor_loop_setup(self) -> None:
        self._run_hook(self.on_start)

    def _actor_loop_running(self) -> None:
        while not self.actor_stopped.is_set():
            self._serve(self.actor_inbox.get())

    def _actor_loop_teardown(self) -> None:
        self.actor_inbox.close()
        super()._actor_loop_teardown()
        for task in list(self._tasks):
            task.close(_dead(self.actor_ref))
        self.actor_inbox.end()

    def _stop(self) -> None:
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        self._run_hook(self.on_stop)

    def _serve(self, envelope: Any) -> None:
        """Handle one message. Unlike in Pykka's loop, KeyboardInterrupt is an error like others."""
        if type(envelope) is _Task:
            envelope.step()
            return
        reply_to = envelope.reply_to
        try:
            answer = self._handle_receive(envelope.message)
        except BaseException as error:
            if reply_to is None:
                self._fail(error)
            else:
                logger.info("%s returns an exception to its caller", self, exc_info=error)
                reply_to.set_exception(_exc_info(without_frames(error, 1)))
        else:
            if reply_to is not None:
                reply_to.set(answer)

    def _handle_receive(self, message: Any) -> Any:
        kind = type(message)
        if kind is _Call:
            result = message.function(self, *message.args, **message.kwargs)
        elif kind is _Exited:
            return self._tell_exited(message.ref)
        else:
            result = super()._handle_receive(message)
        return self._begin(result) if type(result) is CoroutineType else result

    # -- inside

    def _fail(self, error: BaseException) -> None:
        """End, because of a message that was told and could not be handled."""
        self._handle_failure(*_exc_info(error))
        try:
            self.on_failure(*_exc_info(error))
        except BaseException:  # noqa: BLE001 - logged
            self._handle_failure(*sys.exc_info())

    def _run_hook(self, hook: Callable[[], object]) -> None:
        """Run ``on_start`` or ``on_stop``, to its end if it is async; end the actor if it fails."""
        try:
            result = hook()
            if type(result) is CoroutineType:
                self._run_to_end(_Task(self, result))
        except BaseException:  # noqa: BLE001 - logged
            self._handle_failure(*sys.exc_info())

    def _run_to_end(self, task: _Task) -> None:
        """Serve nothing but what async methods wait for until ``task`` has ended, or the actor is terminated."""
        task.step()
        held: list[Any] = []
        is_terminated = False
        while task.promise.future.is_pending():
            envelope = self.actor_inbox.get()
            if type(envelope) is _Task:
                envelope.step()
                continue
            held.append(envelope)
            if self.actor_inbox.closed and not self.actor_stopped.is_set():
                is_terminated = True
                task.close(_dead(self.actor_ref))
        self.actor_inbox.put_back(held)
        if not is_terminated:
            task.promise.future.get(timeout=0)

    def _begin(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run an async method until it awaits, or to its end if it does not: most answer from a table, at once."""
        try:
            awaited = _advance(coroutine)
        except StopIteration as stop:
            return stop.value
        except BaseException as error:  # noqa: BLE001 - it travels to the caller; the actor lives on
            return failed(without_frames(error, 2))
        task = _Task(self, coroutine)
        task.wait_for(awaited)
        return task.promise.future

    def _tell_exited(self, ref: pykka.ActorRef[Any]) -> None:
        self._links.discard(ref.actor_urn)
        try:
            self.exited(ref)
        except BaseException:
            logger.exception("%s failed to handle the end of %s", self, ref)


@overload
def dispatch(
    ref: pykka.ActorRef[A],
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Future[T]: ...
@overload
def dispatch(
    ref: pykka.ActorRef[A], method: Callable[Concatenate[A, P], Future[T]], *args: P.args, **kwargs: P.kwargs
) -> Future[T]: ...
@overload
def dispatch(
    ref: pykka.ActorRef[A], method: Callable[Concatenate[A, P], T], *args: P.args, **kwargs: P.kwargs
) -> Future[T]: ...
def dispatch(ref: pykka.ActorRef[Any], method: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Run ``method(actor, *args)`` in the actor's thread, always later, first come first served.

    Args:
        ref: A runtime Actor.
        method: A function whose first argument is the actor: ``MyActor.method``, or any other.

    Returns:
        What it returns or raises; a returned future is flattened. Fails with ActorDeadError if the actor ends
        first. A discard before the method runs does not skip it; it is passed on to what the method awaits.

    Raises:
        TypeError: The actor is no runtime Actor, so it does not know what to do with a method.
    """
    inbox_of(ref)
    return cast("Future[Any]", ref.ask(_Call(method, args, kwargs), block=False))


@overload
def defer(
    ref: pykka.ActorRef[A], method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]]
) -> Callable[P, Future[T]]: ...
@overload
def defer(ref: pykka.ActorRef[A], method: Callable[Concatenate[A, P], Future[T]]) -> Callable[P, Future[T]]: ...
@overload
def defer(ref: pykka.ActorRef[A], method: Callable[Concatenate[A, P], T]) -> Callable[P, Future[T]]: ...
def defer(ref: pykka.ActorRef[Any], method: Callable[..., Any]) -> Callable[..., Future[Any]]:
    """Return a function that, whoever calls it in whichever thread, dispatches ``method`` to the actor."""

    def dispatched(*args: Any, **kwargs: Any) -> Future[Any]:
        return dispatch(ref, method, *args, **kwargs)

    return dispatched


def terminate(ref: pykka.ActorRef[Any]) -> Future[bool]:
    """End an actor now: the current message is finished, all that wait are refused with ActorDeadError.

    Pykka's ``ref.stop()`` serves what is queued first.

    Returns:
        Whether there was a living actor in this process; ready when it has ended and those who linked were told.
    """
    inbox, promise = inbox_of(ref), Promise[bool]()
    if not inbox.is_here():
        return ready(False)
    alive = not inbox.closed
    inbox.on_ended(lambda: promise.set(alive))
    if alive:
        inbox.terminate()
    return promise.future


class Inbox:
    """An actor's inbox that loses no reply: once closed it refuses what comes, and what waited.

    Pykka checks that an actor lives, then puts the message; one that slips in after the final drain would never be
    answered. Reentrant, because an abandoned future may complete, and so send a message, during any allocation; for the
    same reason nothing that may take another lock is called under this one.

    Attributes:
        owner: What errors call the actor.
    """

    def __init__(self) -> None:
        self.owner = "this actor"
        self.closed = False
        self._ended = False
        self._origin = forks.here
        self._lock = threading.RLock()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._put_back: deque[Any] = deque()
        self._watchers: list[Callable[[], object]] = []

    def is_here(self) -> bool:
        """Tell whether the actor is in this process; not in a child that was forked since."""
        return self._origin is forks.here

    def put(self, envelope: Any) -> None:
        """Add a message, or refuse it if the actor is ending or in another process.

        Raises:
            ForkedError: It is in another process, and nobody waits for an answer, which would be the error.
        """
        if self._origin is not forks.here:
            if envelope.reply_to is None:
                raise ForkedError(self.owner)
            envelope.reply_to.set_exception(_exc_info(ForkedError(self.owner)))
            return
        with self._lock:
            if not self.closed:
                self._queue.put(envelope)
                return
        if envelope.reply_to is not None:
            envelope.reply_to.set_exception(_exc_info(pykka.ActorDeadError("the actor has ended")))

    def put_step(self, task: _Task) -> None:
        """Add the next step of an async method; the actor serves it, or closes the task, whatever it is about."""
        self._queue.put(task)

    def put_back(self, envelopes: list[Any]) -> None:
        """Have these, which were taken and not served, be the next; if the actor is terminated, only what stops it."""
        with self._lock:
            refused = [each for each in envelopes if self.closed and not isinstance(each.message, _ActorStop)]
            self._put_back.extendleft(each for each in reversed(envelopes) if each not in refused)
        for each in refused:
            self.put(each)

    def get(self) -> Any:
        """Take the next message, waiting for one."""
        while self._put_back:
            with contextlib.suppress(IndexError):  # all were taken away meanwhile
                return self._put_back.popleft()
        return self._queue.get()

    def empty(self) -> bool:
        """Tell whether no message waits."""
        return not self._put_back and self._queue.empty()

    def close(self) -> None:
        """Refuse all messages from now on; those that wait stay to be drained."""
        with self._lock:
            self.closed = True

    def terminate(self) -> None:
        """Refuse what waits and what comes, and stop the actor after its current message."""
        refused, steps = [], []
        with self._lock:
            if self.closed:
                return
            self.closed = True
            waiting = self._take_all()
            self._queue.put(_Envelope(_ActorStop()))
            for each in waiting:
                if type(each) is _Task:
                    steps.append(each)
                elif isinstance(each.message, _ActorStop):
                    self._queue.put(each)
                else:
                    refused.append(each)
            for step in steps:  # behind: they are served if an async on_stop waits for them
                self._queue.put(step)
        for each in refused:
            self.put(each)

    def on_ended(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the actor has ended; at once if it has.

        Raises:
            ForkedError: It is in another process.
        """
        self._origin.require(self.owner)
        with self._lock:
            if not self._ended:
                self._watchers.append(callback)
                return
        callback()

    def end(self) -> None:
        """Tell that the actor has ended."""
        with self._lock:
            self._ended = True
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()

    def _take_all(self) -> list[Any]:
        """Take what waits. The actor may take some of it at the same time."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._put_back.popleft())
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._queue.get_nowait())
        return taken


def inbox_of(ref: pykka.ActorRef[Any]) -> Inbox:
    """Return the inbox of a runtime Actor; TypeError for any other actor."""
    if not isinstance(ref.actor_inbox, Inbox):
        msg = f"{ref} is no runtime Actor: derive {ref.actor_class.__name__} from pykka_imagestore.runtime.Actor"
        raise TypeError(msg)
    return ref.actor_inbox


class _Ref(pykka.ActorRef[A]):
    """An actor's ref, whose ``stop(block=False)`` gives a future that can be awaited; Pykka's knows ``get`` alone."""

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        answer = cast("Future[Any]", self.ask(_ActorStop(), block=False))
        stopped = answer.then(lambda _: True).repair(_false_if_dead)
        return stopped.get(timeout=timeout) if block else stopped


class _Task:
    """One call of an async method: stepped as a message of its actor, each time what it awaits is final."""

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
            awaited = _advance(self._coroutine, self._take_discard())
        except StopIteration as stop:
            self._finish()
            self.promise.set(stop.value)
        except DiscardedError as error:
            self._finish()
            if not (self.promise.future.has_discard() and self.promise.discard()):
                self.promise.fail(without_frames(error, 2))
        except BaseException as error:  # noqa: BLE001 - it travels to the caller; the actor lives on
            self._finish()
            self.promise.fail(without_frames(error, 2))
        else:
            self.wait_for(awaited)

    def wait_for(self, awaited: Future[Any]) -> None:
        """Go on when ``awaited`` is final."""
        self._awaited = awaited
        if self.promise.future.has_discard():
            self._pass_discard_on()
        self._withdraw = awaited.watch(self.wake)

    def close(self, error: BaseException) -> None:
        """Stop what the coroutine awaits and end it; its caller gets ``error``."""
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
        awaited = self._awaited  # read first: what is awaited after the delivery is left alone
        if awaited is not None and not self._discard_delivered:
            awaited.discard()

    def _finish(self) -> None:
        self._actor._tasks.discard(self)


def _advance(coroutine: Coroutine[Any, Any, Any], error: BaseException | None = None) -> Future[Any]:
    """Go on with a coroutine until it awaits; return what. It is final if the method has awaited many such in a row."""
    this_runner().awaits_left = MAX_AWAITS
    awaited = coroutine.send(None) if error is None else coroutine.throw(error)
    while not isinstance(awaited, Future):
        awaited = coroutine.throw(_not_awaitable(awaited))
    return awaited


@dataclass(slots=True)
class _Call:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(slots=True)
class _Exited:
    ref: pykka.ActorRef[Any]


@dataclass(slots=True, eq=False)
class _Envelope:
    """As Pykka's, whose class is not public."""

    message: object
    reply_to: Future[Any] | None = None


def _tell(ref: pykka.ActorRef[Any], message: object) -> None:
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        logger.debug("%s has ended; %s is dropped", ref, message)


def _false_if_dead(future: Future[bool]) -> bool:
    if isinstance(future.error(), (pykka.ActorDeadError, ForkedError)):
        return False
    return future.get(timeout=0)


def _dead(ref: pykka.ActorRef[Any]) -> pykka.ActorDeadError:
    return pykka.ActorDeadError(f"{ref} ended before its method did")


def _exc_info(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    return type(error), error, error.__traceback__


def _not_awaitable(awaited: object) -> TypeError:
    return TypeError(
        f"an actor's async method can await runtime futures and coroutines only, not {awaited!r}: a plain Pykka "
        "future would block the actor, and asyncio has no loop here"
    )


def _renew_registry_lock() -> None:
    """Have Pykka's registry work in a forked child, although another thread may have held its lock at the fork."""
    pykka.ActorRegistry._actor_refs_lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_registry_lock)
