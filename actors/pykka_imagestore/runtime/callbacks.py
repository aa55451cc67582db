"""How a thread runs callbacks: each once, in order, on a stack of bounded depth, whatever they raise.

Callbacks that nest very deep, as in a chain of a thousand links, are put off until the outer ones have returned. A
callback that waits for a future would wait for ever if what completes it was put off in the same thread; so a wait runs
what was put off before it blocks.

What a callback raises is logged, and hurts nobody. Only a KeyboardInterrupt in the main thread, which may be a real
one, is raised again, when all callbacks have run. In any other thread it is an error like others: no signal can have
caused it, and raised it would end a thread that serves many.
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

from pykka_imagestore.runtime.bell import Bell

A = TypeVar("A")
R = TypeVar("R")
Wait = Callable[[Callable[[float | None], object], Callable[[], object], float | None], object]

logger = logging.getLogger(__name__)

MAX_NESTING = 16  # callbacks in callbacks, of some seven calls each
MAX_NESTING_AT_ONCE = 100  # of those that are promised to run at once, and have fewer calls: Python allows 1000


class Runner:
    """What one thread is about.

    Attributes:
        depth: How many callbacks it is in.
        put_off: What it runs when it is out of them, or waits: functions and their arguments.
        pump: How it serves others while it waits, and what makes it look up; see ``serving``.
        awaits_left: How often an actor's method may still await what is there already, before others have a turn.
    """

    __slots__ = ("awaits_left", "depth", "pump", "put_off")

    def __init__(self) -> None:
        self.depth = 0
        self.put_off: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.pump: tuple[Callable[[float | None], object], Callable[[], object]] | None = None
        self.awaits_left = 0


class _Here(threading.local):
    runner: Runner


_here = _Here()


def this_runner() -> Runner:
    """Return what this thread is about."""
    try:
        return _here.runner
    except AttributeError:
        # Not in _Here.__init__: the garbage collector may run in the making, and callbacks that ask for it in that.
        runner: Runner = _here.__dict__.setdefault("runner", Runner())
        return runner


def run_callbacks(callbacks: Iterable[Callable[..., object]], args: tuple[Any, ...], max_nesting: int) -> None:
    """Call each with ``args``; put them off if this thread is ``max_nesting`` callbacks deep already."""
    runner = this_runner()
    if runner.depth >= max_nesting:
        runner.put_off.extend((callback, args) for callback in callbacks)
        return
    interrupt = None  # raised when all have been told, or they would wait for ever
    runner.depth += 1
    try:
        for callback in callbacks:
            try:
                callback(*args)
            except BaseException as error:  # noqa: BLE001 - logged, or raised below
                interrupt = _take(error) or interrupt
        while runner.depth == 1 and runner.put_off:
            callback, args = runner.put_off.popleft()
            try:
                callback(*args)
            except BaseException as error:  # noqa: BLE001 - logged, or raised below
                interrupt = _take(error) or interrupt
    finally:
        runner.depth -= 1
    if interrupt is not None:
        raise interrupt


def wait_until(is_final: Callable[[], bool], wait_once: Wait, timeout: float | None) -> None:
    """Return once ``is_final()``; run what this thread has put off first, and serve whom it serves meanwhile.

    Args:
        wait_once: Calls its first argument, which waits for as many seconds as the third says, with the second as what
            ends that wait once it is final.

    Raises:
        pykka.Timeout: It took longer.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    runner = this_runner()
    depth = runner.depth
    try:
        while not is_final():
            seconds = None if deadline is None else deadline - time.monotonic()
            if seconds is not None and seconds <= 0:
                msg = f"{timeout} seconds"
                raise pykka.Timeout(msg)
            # What is called while this thread waits is not nested in what waits: none of it may be put off again.
            runner.depth = 0
            if runner.put_off:
                _run_put_off(runner)
            elif runner.pump is not None:
                wait_once(*runner.pump, seconds)
            else:
                bell = Bell()
                wait_once(bell.wait, bell.ring, seconds)
    finally:
        runner.depth = depth


@contextlib.contextmanager
def serving(pump: Callable[[float | None], object], wake: Callable[[], object]) -> Iterator[None]:
    """Have this thread go on serving others while it waits for a future, as in a callback that it runs for them.

    Args:
        pump: Called by ``get`` again and again until the future is final: serves what there is, waiting at most so
            many seconds for something to come, or without end if that is None. What it serves may wait in turn, so it
            may be called within itself.
        wake: Called by whichever thread completes the future: makes the ``pump`` that runs return, or else the next.
    """
    runner = this_runner()
    before, runner.pump = runner.pump, (pump, wake)
    try:
        yield
    finally:
        runner.pump = before


def undisturbed(function: Callable[[A], R], argument: A) -> R:
    """Call a function that nothing which this thread serves may come in the middle of, although it may wait."""
    runner = this_runner()
    pump, runner.pump = runner.pump, None
    try:
        return function(argument)
    finally:
        runner.pump = pump


def interrupts(error: BaseException) -> bool:
    """Tell whether ``error`` must not be kept from this thread: it may be the user's Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _take(error: BaseException) -> BaseException | None:
    """Return what a callback raised if it is to be raised again; log it if not."""
    if interrupts(error):
        return error
    logger.error("A future's callback failed; the future is unaffected", exc_info=error)
    return None


def _run_put_off(runner: Runner) -> None:
    """Run the first of what this thread has put off."""
    callback, args = runner.put_off.popleft()
    runner.depth = 1  # not 0: the rest is for whoever called, who may have what it waits for by then
    try:
        run_callbacks((callback,), args, MAX_NESTING)
    finally:
        runner.depth = 0


def _forget() -> None:
    """Leave what was put off to the parent, whose futures it is about."""
    runner = this_runner()
    runner.put_off.clear()
    runner.pump = None


os.register_at_fork(after_in_child=_forget)
