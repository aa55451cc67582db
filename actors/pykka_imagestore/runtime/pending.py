"""The futures that are not final yet, of those that somebody looks after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, TypeVar

from pykka_imagestore.runtime.combine import await_all, undiscardable
from pykka_imagestore.runtime.future import Future

T = TypeVar("T")


class Pending:
    """A set of futures that forgets each once it is final. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._futures: set[Future[Any]] = set()

    def __iter__(self) -> Iterator[Future[Any]]:
        with self._lock:
            return iter(list(self._futures))

    def add(self, future: Future[T]) -> Future[T]:
        """Keep a future until it is final, and return it."""
        with self._lock:
            self._futures.add(future)
        future.on_any(self._forget)
        return future

    def discard(self) -> None:
        """Ask all of them to stop."""
        for future in self:
            future.discard()

    def ended(self) -> Future[None]:
        """Return when those that are pending now are final, however they end; a discard gives up this future alone."""
        return await_all([undiscardable(future) for future in self]).then(lambda _: None)

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._futures.discard(future)
