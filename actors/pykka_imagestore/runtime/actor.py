"""Pykka actors whose methods may be ``async def``, and the functions that send methods to them.

A method runs in its actor's thread, one message at a time. An ``await`` suspends only the method, and other messages
run; the method goes on, in the same thread, when the awaited future is final. So there must be no ``await`` between
testing a table and writing it.

Source: Apache Mesos, 3rdparty/libprocess/include/process/{process,dispatch,defer}.hpp.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast, overload

import pykka
from pykka.messages import _ActorStop

from pykka_imagestore.runtime.callbacks import this_thread
from pykka_imagestore.runtime.coroutines import CoroutineTask, advance
from pykka_imagestore.runtime.errors import ForkedError
from pykka_imagestore.runtime.future import Future, Promise, failed, ready, without_frames
from pykka_imagestore.runtime.inbox import Envelope, Exited, Inbox, exc_info, inbox_of
from pykka_imagestore.runtime.mailbox import BoundedInbox, Bounds, WhenFull, bounded, new_inbox
from pykka_imagestore.runtime.semaphore import Semaphore

logger = logging.getLogger(__name__)
pykka_logger = logging.getLogger("pykka")  # for what Pykka logs of its own actors, in its words

A = TypeVar("A", bound="Actor")
P = ParamSpec("P")
T = TypeVar("T")

_NOT_GIVEN: Any = ...  # None means that there is no limit


class Actor(pykka.ThreadingActor):
    """A Pykka actor with async methods and death notices.

    Calls through ``dispatch``, ``ask`` and a proxy answer with a runtime Future; a future that a method returns is
    flattened. ``on_start`` and ``on_stop`` may be async too: other messages wait until they have ended. Pykka's return
    None, so a type checker wants a ``# type: ignore[override]`` at an async one. An actor that was not stopped does not
    keep the interpreter from ending. It runs only in the process that started it: in a forked child, requests to it
    fail with ForkedError.
    """

    use_daemon_thread = True
    actor_inbox: Inbox

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()
        self.actor_inbox.owner = f"the actor {type(self).__name__}"
        self._actor_ref = _BoundedRef(self) if isinstance(self.actor_inbox, BoundedInbox) else _Ref(self)
        self._stops_all = False
        self._tasks: set[CoroutineTask] = set()
        self._links: set[str] = set()
        self._limiters: dict[object, Semaphore] = {}

    @classmethod
    def start(
        cls, *args: Any, mailbox: int | None = _NOT_GIVEN, when_full: WhenFull = _NOT_GIVEN, **kwargs: Any
    ) -> pykka.ActorRef[Self]:
        """Start an actor; the arguments go to its constructor, as in Pykka.

        These two do not, unless the constructor has a parameter of that name:

        Args:
            mailbox: How many messages may wait for the actor, besides the one that it handles; None for any number.
                A message from the actor itself, from a callback of a future, or from an actor in whose mailbox this one
                waits for a place, goes in beyond the limit.
            when_full: What becomes of a message beyond that. With ``"wait"``, its sender waits in ``tell``, ``ask`` or
                ``dispatch``; a blocking ``ask`` waits no longer than its timeout. With ``"fail"``, an answer fails
                with MailboxFullError, and ``tell`` raises it.
        """
        given: dict[str, Any] = {"mailbox": mailbox, "when_full": when_full}
        given = {name: value for name, value in given.items() if value is not _NOT_GIVEN}
        for name in given and given.keys() & inspect.signature(cls.__init__).parameters.keys():
            kwargs[name] = given.pop(name)
        with bounded(_bounds(**given)):
            return super().start(*args, **kwargs)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in this actor's thread. It starts later, as a message of its own.

        Returns:
            Its outcome. A discard discards the future that the coroutine awaits; once that is final, DiscardedError is
            raised at the ``await``. This happens once, so that the coroutine may await its cleanup. Fails with
            ActorDeadError if the actor ends first.
        """
        task = CoroutineTask(self, coroutine)
        task.wake()
        if self.actor_inbox.closed:
            task.close(_dead(self.actor_ref))
        return task.promise.future

    def link(self, ref: pykka.ActorRef[Any]) -> None:
        """Have ``exited(ref)`` called in this actor, exactly once, when the other has ended; at once if it has.

        Raises:
            TypeError: The other is no runtime Actor, and so does not tell when it ends.
        """
        inbox, me = inbox_of(ref), self.actor_ref
        if ref.actor_urn not in self._links:
            self._links.add(ref.actor_urn)
            inbox.on_ended(lambda: _tell(me, Exited(ref)))

    def exited(self, ref: pykka.ActorRef[Any]) -> None:
        """Handle the end of a linked actor; does nothing unless overridden."""

    # -- Pykka's hooks

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return new_inbox()

    @staticmethod
    def _create_future() -> Future[Any]:
        return Future()

    def _actor_loop_setup(self) -> None:
        this_thread().inbox = self.actor_inbox
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
        if self._stops_all:  # only now: an actor that this one would wait for may itself wait for an answer of this one
            pykka.ActorRegistry.stop_all()

    def _stop(self) -> None:
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        pykka_logger.debug("Stopped %s", self)
        self._run_hook(self.on_stop)

    def _serve(self, envelope: Any) -> None:
        """Handle one message. Unlike in Pykka's loop, a caller gets a KeyboardInterrupt of what it asked for."""
        if type(envelope) is CoroutineTask:
            envelope.step()
            return
        reply_to = envelope.reply_to
        try:
            answer = self._handle_receive(envelope.message)
        except BaseException as error:
            if reply_to is None:
                self._fail(error)
            else:
                pykka_logger.info("Exception returned from %s to caller:", self, exc_info=error)
                reply_to.set_exception(exc_info(without_frames(error, 1)))
        else:
            if reply_to is not None:
                reply_to.set(answer)

    def _handle_receive(self, message: Any) -> Any:
        kind = type(message)
        if kind is _Call:
            result = message.function(self, *message.args, **message.kwargs)
        elif kind is Exited:
            return self._tell_exited(message.ref)
        else:
            result = super()._handle_receive(message)
        return self._begin(result) if type(result) is CoroutineType else result

    # -- inside

    def _fail(self, error: BaseException) -> None:
        """End the actor, because a message failed whose sender does not wait for an answer; all actors by an exit."""
        if not isinstance(error, Exception):
            pykka_logger.debug("%r in %s. Stopping all actors.", error, self)
            self._stops_all = True
            self._stop()
            return
        self._handle_failure(*exc_info(error))
        try:
            self.on_failure(*exc_info(error))
        except BaseException:  # noqa: BLE001 - logged
            self._handle_failure(*sys.exc_info())

    def _run_hook(self, hook: Callable[[], object]) -> None:
        """Run ``on_start`` or ``on_stop``, to its end also if it is async; end the actor if it fails."""
        try:
            result = hook()
            if type(result) is CoroutineType:
                self._run_to_end(CoroutineTask(self, result))
        except BaseException:  # noqa: BLE001 - logged
            self._handle_failure(*sys.exc_info())

    def _run_to_end(self, task: CoroutineTask) -> None:
        """Run only steps of async methods until ``task`` has ended, or the actor is terminated."""
        task.step()
        held: list[Any] = []
        is_terminated = False
        while task.promise.future.is_pending():
            envelope = self.actor_inbox.take()
            if type(envelope) is CoroutineTask:
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
        """Run an async method until it awaits, or to its end: most answer at once, from a table."""
        try:
            awaited = advance(coroutine)
        except StopIteration as stop:
            return stop.value
        except BaseException as error:  # noqa: BLE001 - the caller gets it; the actor lives on
            return failed(without_frames(error, 2))
        task = CoroutineTask(self, coroutine)
        task.wait_for(awaited)
        return task.promise.future

    def _limiter(self, method: object, calls: int) -> Semaphore:
        """Return what limits the calls of a method that ``limit`` decorates; asked in this actor's thread alone."""
        if method not in self._limiters:
            self._limiters[method] = Semaphore(calls)
        return self._limiters[method]

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
    """Run ``method(actor, *args)`` in the actor's thread: always later, and first come first served.

    Args:
        ref: A runtime Actor.
        method: A function whose first argument is the actor: ``MyActor.method``, or any other.

    Returns:
        What it returns or raises; a returned future is flattened. Fails with ActorDeadError if the actor ends
        first. A discard before the method runs does not skip it, but is passed on to the first future that it awaits.

    Raises:
        TypeError: The actor is no runtime Actor, and so does not know how to run a method.
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
    """Return a function that dispatches ``method`` to the actor; it may be called in any thread."""

    def dispatched(*args: Any, **kwargs: Any) -> Future[Any]:
        return dispatch(ref, method, *args, **kwargs)

    return dispatched


def terminate(ref: pykka.ActorRef[Any]) -> Future[bool]:
    """End an actor now: the current message is finished, and all that wait fail with ActorDeadError.

    Pykka's ``ref.stop()`` serves the waiting messages first.

    Returns:
        Whether the actor was alive, in this process; ready when it has ended and the actors that linked were told.
    """
    inbox, promise = inbox_of(ref), Promise[bool]()
    if not inbox.is_here():
        return ready(False)
    alive = not inbox.closed
    inbox.on_ended(lambda: promise.set(alive))
    if alive:
        inbox.terminate()
    return promise.future


class _Ref(pykka.ActorRef[A]):
    """An actor's ref whose ``stop(block=False)`` returns a runtime Future, which can be awaited."""

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        answer = cast("Future[Any]", self.ask(_ActorStop(), block=False))
        stopped = answer.then(lambda _: True).repair(_false_if_dead)
        return stopped.get(timeout=timeout) if block else stopped


class _BoundedRef(_Ref[A]):
    """A ref whose ``ask`` counts the wait for a place in the mailbox against its timeout."""

    actor_inbox: BoundedInbox

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        if not block or timeout is None:
            return super().ask(message, block=block, timeout=timeout)
        deadline = time.monotonic() + timeout
        answer: Future[Any] = Future()
        self.actor_inbox.put(Envelope(message, answer), timeout)
        return answer.get(timeout=max(0, deadline - time.monotonic()))


@dataclass(slots=True)
class _Call:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _bounds(mailbox: int | None = None, when_full: WhenFull = "wait") -> Bounds | None:
    return None if mailbox is None else Bounds(mailbox, when_full)


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


def _renew_registry_lock() -> None:
    """Have Pykka's registry work in a forked child, although another thread may have held its lock at the fork."""
    pykka.ActorRegistry._actor_refs_lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_registry_lock)
