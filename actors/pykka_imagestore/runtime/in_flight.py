"""A set of futures that are not final yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from pykka_imagestore.runtime.combine import await_all, undiscardable
from pykka_imagestore.runtime.future import Future

T = TypeVar("T")


class InFlight:
    """A set of futures that forgets each once it is final. Thread-safe."""

    def __init__(self) -> None:
        self._futures: set[Future[Any]] = set()  # without a lock: each use of it is atomic in Python

    def __iter__(self) -> Iterator[Future[Any]]:
        return iter(list(self._futures))

    def add(self, future: Future[T]) -> Future[T]:
        """Keep a future until it is final, and return it."""
        self._futures.add(future)
        future.on_any(self._futures.discard)
        return future

    def discard(self) -> None:
        """Ask all of them to stop."""
        for future in self:
            future.discard()

    def ended(self) -> Future[None]:
        """Return a future that is ready when all of these are final; a discard gives up only that future."""
        return await_all([undiscardable(future) for future in self]).then(lambda _: None)
