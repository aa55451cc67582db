"""One at a time, without blocking a thread.

Source: Apache Mesos, 3rdparty/libprocess/include/process/mutex.hpp.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pykka_imagestore.runtime.future import Future, Promise, ready


class Mutex:
    """Lets one through at a time, in the order in which they came. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_locked = False
        self._waiting: deque[Promise[None]] = deque()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait until nobody else is inside, and keep others out meanwhile."""
        await self.lock()
        try:
            yield
        finally:
            self.unlock()

    def lock(self) -> Future[None]:
        """Return when it is the caller's turn, who then has to ``unlock``; a discard gives the place back."""
        with self._lock:
            if not self._is_locked:
                self._is_locked = True
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
                    self._is_locked = False
                    return
                promise = self._waiting.popleft()
            if promise.set(None):
                return
