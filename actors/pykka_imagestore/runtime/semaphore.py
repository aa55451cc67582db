"""A semaphore that is awaited, so that no thread blocks.

Source: Apache Mesos, 3rdparty/libprocess/include/process/mutex.hpp.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pykka_imagestore.runtime.errors import ForkedError
from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.runtime.future import Future, Promise, failed


class Semaphore:
    """Admits a limited number of holders at a time, first come first served. Thread-safe.

    Args:
        places: How many holders; with one, it is a mutex.
    """

    def __init__(self, places: int = 1) -> None:
        self._origin = Origin()
        # Reentrant, because an abandoned future may complete, and so release, during any allocation.
        self._lock = threading.RLock()
        self._places = places
        self._waiting: deque[Promise[None]] = deque()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Await a place, and hold it for the ``async with`` block."""
        turn = self.acquire()
        try:
            await turn
        except BaseException:
            if turn.is_ready():  # the place was given, and then a discard came
                self.release()
            raise
        try:
            yield
        finally:
            self.release()

    def acquire(self) -> Future[None]:
        """Return a future that is ready when the caller has a place, and then has to ``release`` it.

        A discard while it waits withdraws the request. Fails with ForkedError in a forked child, which has no part in
        the semaphore.
        """
        if not self._origin.is_here():
            return failed(ForkedError("this semaphore"))
        promise: Promise[None] = Promise()
        promise.future.on_discard(promise.discard)
        with self._lock:
            self._waiting.append(promise)
        self._let_in()
        return promise.future

    def release(self) -> None:
        """Give a place back, to the next that waits. Does nothing in a forked child."""
        if self._origin.is_here():
            with self._lock:
                self._places += 1
            self._let_in()

    def _let_in(self) -> None:
        while True:
            with self._lock:
                if not (self._places and self._waiting):
                    return
                promise = self._waiting.popleft()
                self._places -= 1
            if not promise.set(None):  # it was discarded meanwhile
                with self._lock:
                    self._places += 1
