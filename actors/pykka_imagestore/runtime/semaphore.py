"""One at a time, or a few, without blocking a thread.

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
    """Lets one through at a time, in the order in which they came. Thread-safe.

    Args:
        places: Lets so many through at a time.
    """

    def __init__(self, places: int = 1) -> None:
        self._origin = Origin()
        # Reentrant, because an abandoned future may complete, and so release, during any allocation.
        self._lock = threading.RLock()
        self._places = places
        self._waiting: deque[Promise[None]] = deque()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait until nobody else is inside, and keep others out meanwhile."""
        turn = self.acquire()
        try:
            await turn
        except BaseException:
            if turn.is_ready():  # it came, and then a discard
                self.release()
            raise
        try:
            yield
        finally:
            self.release()

    def acquire(self) -> Future[None]:
        """Return when it is the caller's turn, who then has to ``release``; a discard gives the place back.

        Fails with ForkedError in a forked child: who is inside is in the parent.
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
        """Let the next one through. Does nothing in a forked child."""
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
