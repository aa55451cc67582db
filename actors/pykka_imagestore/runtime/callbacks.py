"""How a thread runs callbacks: each once, in order, on a stack of bounded depth, whatever they raise.

Callbacks that nest very deep, as in a chain of a thousand links, are deferred until the outer ones have returned. A
callback that waits for a future would wait for ever if the callback that completes it was deferred in the same thread;
so a wait runs the deferred callbacks before it blocks.

What a callback raises is logged, and affects no other callback. Only a KeyboardInterrupt in the main thread, which may
be the user's Ctrl-C, is raised again, after all callbacks have run. In any other thread it is an error like others: no
signal can have caused it, and raising it would end a thread that serves many.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import pykka

from pykka_imagestore.runtime.auto_reset_event import AutoResetEvent

A = TypeVar("A")
R = TypeVar("R")
Wait = Callable[[Callable[[float | None], object], Callable[[], object], float | None], object]

logger = logging.getLogger(__name__)

MAX_NESTING = 16  # callbacks within callbacks, of some seven Python calls each
MAX_NESTING_AT_ONCE = 100  # of callbacks that must run at once, and have fewer calls: Python allows 1000 calls in all


class ThreadState:
    """How far one thread is in running callbacks.

    Attributes:
        depth: How many callbacks it is in.
        deferred: The callbacks, and their arguments, that it runs when it is out of those, or waits.
        pump: How it serves others while it waits, and what ends such a wait; see ``serving``.
        inbox: The inbox of the actor that runs in it; None in any other thread.
        awaits_left: How many final futures an actor's method may still await before other messages have a turn.
    """

    __slots__ = ("awaits_left", "deferred", "depth", "inbox", "pump")

    def __init__(self) -> None:
        self.depth = 0
        self.deferred: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.pump: tuple[Callable[[float | None], object], Callable[[], object]] | None = None
        self.inbox: object = None
        self.awaits_left = 0


class _Here(threading.local):
    thread: ThreadState


_here = _Here()


def this_thread() -> ThreadState:
    """Return the state of this thread."""
    try:
        return _here.thread
    except AttributeError:
        # Not in _Here.__init__: the garbage collector may run in that, and callbacks that call this function in turn.
        thread: ThreadState = _here.__dict__.setdefault("thread", ThreadState())
        return thread


def run_callbacks(callbacks: Iterable[Callable[..., object]], args: tuple[Any, ...], max_nesting: int) -> None:
    """Call each with ``args``, or defer them if this thread is in ``max_nesting`` callbacks already."""
    thread = this_thread()
    if thread.depth >= max_nesting:
        thread.deferred.extend((callback, args) for callback in callbacks)
        return
    interrupt = None  # raised when all have been called, or those left out would wait for ever
    thread.depth += 1
    try:
        for callback in callbacks:
            try:
                callback(*args)
            except BaseException as error:  # noqa: BLE001 - logged, or raised below
                interrupt = _take(error) or interrupt
        while thread.depth == 1 and thread.deferred:
            callback, args = thread.deferred.popleft()
            try:
                callback(*args)
            except BaseException as error:  # noqa: BLE001 - logged, or raised below
                interrupt = _take(error) or interrupt
    finally:
        thread.depth -= 1
    if interrupt is not None:
        raise interrupt


def wait_until(is_final: Callable[[], bool], wait_once: Wait, timeout: float | None) -> None:
    """Return once ``is_final()``; before that, run this thread's deferred callbacks and go on serving others.

    Args:
        wait_once: ``wait_once(wait, wake, seconds)`` calls ``wait(seconds)``, and has ``wake()`` called once it is
            final, which ends that wait.

    Raises:
        pykka.Timeout: It took longer.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    thread = this_thread()
    depth = thread.depth
    try:
        while not is_final():
            seconds = None if deadline is None else deadline - time.monotonic()
            if seconds is not None and seconds <= 0:
                msg = f"{timeout} seconds"
                raise pykka.Timeout(msg)
            # Callbacks that are called during the wait do not count as nested in the one that waits: deferring them
            # again could make it wait for ever.
            thread.depth = 0
            if thread.deferred:
                _run_deferred(thread)
            elif thread.pump is not None:
                wait_once(*thread.pump, seconds)
            else:
                event = AutoResetEvent()
                wait_once(event.wait, event.set, seconds)
    finally:
        thread.depth = depth


@contextlib.contextmanager
def serving(pump: Callable[[float | None], object], wake: Callable[[], object]) -> Iterator[None]:
    """Have this thread go on serving others while it waits for a future, as in a callback that it runs for them.

    Args:
        pump: Called by ``get`` repeatedly until the future is final: serves one request, and waits for one at most so
            many seconds, or for ever if that is None. A request may wait in turn, so it may be called within itself.
        wake: Called by the thread that completes the future: has the running ``pump`` return, or else the next one.
    """
    thread = this_thread()
    before, thread.pump = thread.pump, (pump, wake)
    try:
        yield
    finally:
        thread.pump = before


def undisturbed(function: Callable[[A], R], argument: A) -> R:
    """Call a function; if it waits, this thread serves nothing meanwhile."""
    thread = this_thread()
    pump, thread.pump = thread.pump, None
    try:
        return function(argument)
    finally:
        thread.pump = pump


def interrupts(error: BaseException) -> bool:
    """Tell whether ``error`` has to be raised in this thread, because it may be the user's Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _take(error: BaseException) -> BaseException | None:
    """Return what a callback raised if it has to be raised again; otherwise log it."""
    if interrupts(error):
        return error
    logger.error("A future's callback failed; the future is unaffected", exc_info=error)
    return None


def _run_deferred(thread: ThreadState) -> None:
    """Run the first of this thread's deferred callbacks."""
    callback, args = thread.deferred.popleft()
    thread.depth = 1  # not 0, or it would run the others too: the caller may need none of them by then
    try:
        run_callbacks((callback,), args, MAX_NESTING)
    finally:
        thread.depth = 0


def _forget() -> None:
    """Leave deferred callbacks to the parent, to whose futures they belong."""
    thread = this_thread()
    thread.deferred.clear()
    thread.pump = thread.inbox = None


os.register_at_fork(after_in_child=_forget)
