"""One at a time, or a few, without blocking a thread.

Source: Apache Mesos, 3rdparty/libprocess/include/process/mutex.hpp.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pykka_imagestore.runtime.future import Future, Promise, ready


class Mutex:
    """Lets one through at a time, in the order in which they came. Thread-safe.

    Args:
        places: Lets so many through at a time.
    """

    def __init__(self, places: int = 1) -> None:
        self._lock = threading.Lock()
        self._places = places
        self._waiting: deque[Promise[None]] = deque()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait until nobody else is inside, and keep others out meanwhile."""
        turn = self.lock()
        try:
            await turn
        except BaseException:
            if turn.is_ready():  # it came, and then a discard
                self.unlock()
            raise
        try:
            yield
        finally:
            self.unlock()

    def lock(self) -> Future[None]:
        """Return when it is the caller's turn, who then has to ``unlock``; a discard gives the place back."""
        with self._lock:
            if self._places:
                self._places -= 1
                return ready(None)
            promise: Promise[None] = Promise()
            self._waiting.append(promise)
        promise.future.on_discard(promise.discard)
        return promise.future

    def unlock(self) -> None:
        """Let the next one through."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._places += 1
                    return
                promise = self._waiting.popleft()
            if promise.set(None):
                return
