"""The thread of a process engine, which waits for all of its descriptors at once.

It sleeps until a descriptor is readable, another thread has left a call, or a deadline has passed; it never wakes up
only to look. What the engine knows is read and written in this thread alone. So the engine needs no lock that a
callback, or the garbage collector in the middle of anything, could deadlock on.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from pykka_imagestore.runtime.callbacks import serving
from pykka_imagestore.runtime.forks import Origin

logger = logging.getLogger(__name__)

_NONE = -1
_MAX_WAIT_SECONDS = 86_400.0  # poll(2) refuses a month


class EventLoop:
    """Calls what other threads leave, and the handlers of descriptors, one after the other in a thread of its own.

    Args:
        name: What the thread is called.

    Attributes:
        is_stopped: Whether ``stop`` was called.
    """

    def __init__(self, name: str) -> None:
        self.is_stopped = False
        self._name = name
        self._origin = Origin()
        self._calls: deque[Callable[[], object]] = deque()
        self._lock = threading.RLock()  # of the thread's start, and of the descriptor that wakes it
        self._thread: threading.Thread | None = None
        self._wake_up = _NONE
        self._ended = threading.Event()
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {}

    # -- for all threads

    def start(self, turn: Callable[[], float], end: Callable[[], object]) -> None:
        """Start the thread, unless it was started or the loop is stopped.

        Only the thread keeps the functions: their owner has the loop, and so would be in a cycle with it.

        Args:
            turn: Called before each wait; returns when to call it again at the latest, on the monotonic clock.
            end: Called when the thread ends, before the calls that are left.

        Raises:
            OSError: No descriptor is left.
            RuntimeError: There are too many threads.
        """
        if self._thread is not None or self.is_stopped:
            return
        thread = threading.Thread(target=self._run, args=(turn, end), name=self._name, daemon=True)
        with self._lock:
            if self._wake_up != _NONE or self.is_stopped:
                return
            self._wake_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = thread
        # Not under the lock: start() waits for the new thread to begin, which may run the collector first, and so call.
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self.close_wake_up()
                self._thread = None
            self._make_calls()  # left by other threads, which believed that this one had started
            self._end_if_stopped()
            raise

    def call(self, function: Callable[[], object]) -> None:
        """Have the thread call ``function`` soon; call it here if there is no thread."""
        if not self._origin.is_here():
            return
        self._calls.append(function)
        if not self.wake():
            self._make_calls()

    def wake(self) -> bool:
        """Have the thread take its turn soon; False if there is no thread."""
        if not self._origin.is_here():  # in a forked child the descriptor's number may be another file's by now
            return False
        with self._lock:
            if self._wake_up == _NONE:
                return False
            os.eventfd_write(self._wake_up, 1)
            return True

    def stop(self) -> None:
        """End the thread once the handler or call that runs has returned."""
        self.is_stopped = True

    def join(self) -> None:
        """Wait until the thread has ended, if one was started."""
        if self._thread is not None:
            self._ended.wait()

    def has_thread(self) -> bool:
        """Tell whether the thread was started."""
        return self._thread is not None

    def is_this_thread(self) -> bool:
        """Tell whether the caller runs in the loop."""
        return self._thread is threading.current_thread()

    def close_wake_up(self) -> None:
        """Close the descriptor that wakes the thread: it has ended, or is not in this forked child."""
        descriptor, self._wake_up = self._wake_up, _NONE  # in this order: a child forked in between must not close it
        if descriptor != _NONE:
            os.close(descriptor)

    # -- for the thread itself

    def watch(self, descriptor: int, handler: Callable[[], object]) -> None:
        """Call ``handler`` whenever the descriptor is readable."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def await_room(self, descriptor: int, *, is_full: bool) -> None:
        """Call the descriptor's handler also when it can be written to, or no longer."""
        self._poll.modify(descriptor, select.POLLIN | select.POLLOUT if is_full else select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Call the descriptor's handler no more; nothing happens if it has none."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    # -- inside

    def _run(self, turn: Callable[[], float], end: Callable[[], object]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers inherit this until they ignore it
        self.watch(self._wake_up, self._take_calls)
        with serving(partial(self._run_once, turn), self.wake):
            try:
                while not self.is_stopped:
                    self._run_once(turn, None)
            except BaseException:  # no other thread would answer the futures that are pending
                logger.exception("The thread of a worker pool failed; the pool is closed")
        end()  # also if it was stopped in another thread, before this one had begun
        with self._lock:
            self.close_wake_up()
        self._make_calls()
        self._ended.set()

    def _run_once(self, turn: Callable[[], float], seconds: float | None) -> None:
        """Wait for events, at most for so many seconds, and handle them; a callback that waits calls this too."""
        deadline = turn()
        if self.is_stopped:
            return
        events = self._poll.poll(_milliseconds(deadline, seconds))
        for descriptor, handler in [(descriptor, self._handlers[descriptor]) for descriptor, _ in events]:
            if self._handlers.get(descriptor) is handler:  # else an earlier one has removed it
                handler()

    def _take_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_up)
        self._make_calls()

    def _make_calls(self) -> None:
        for _ in range(len(self._calls)):  # those that come meanwhile wait until the other descriptors had their turn
            try:
                function = self._calls.popleft()
            except IndexError:  # another thread took it, after this one had ended
                return
            function()

    def _end_if_stopped(self) -> None:
        if self.is_stopped:
            self._ended.set()


def _milliseconds(deadline: float, seconds: float | None) -> float | None:
    remaining = deadline - time.monotonic()
    wait = remaining if seconds is None else min(remaining, seconds)
    return None if wait == math.inf else math.ceil(max(0, min(_MAX_WAIT_SECONDS, wait)) * 1000)
