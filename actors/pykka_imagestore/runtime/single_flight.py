"""Many callers, one piece of work: it goes on while anybody still wants it.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/store.cpp, which counts users of a pull
through ``undiscardable`` and ``onDiscard``. Unlike there, an entry is known by identity, not by key: a flight that
still comes to its end can neither be joined nor remove its successor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from pykka_imagestore.runtime.future import Future, Promise

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """A table of work in flight. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._flights: dict[K, _Flight[T]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def futures(self) -> list[Future[T]]:
        """Return the work in flight, not handles on it: discarding one stops it for everybody."""
        with self._lock:
            return [flight.future for flight in self._flights.values()]

    def find(self, key: K) -> Future[T] | None:
        """Return a new handle on the flight under ``key``, or None."""
        with self._lock:
            flight = self._flights.get(key)
            return None if flight is None else self._handle(key, flight)

    def join(self, key: K, start: Callable[[], Future[T]]) -> Future[T]:
        """Return a new handle on the flight under ``key``, starting it if there is none.

        Discarding a handle gives up that handle alone, and at once; discarding the last one discards the work, and
        that handle becomes discarded when the work has ended.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight(start())
                flight.future.on_any(lambda _: self._land(key, flight))
            return self._handle(key, flight)

    def depart(self, key: K) -> None:
        """Let nobody join the flight under ``key`` any more: its effect is about to come, and may be undone."""
        with self._lock:
            self._flights.pop(key, None)

    def _handle(self, key: K, flight: _Flight[T]) -> Future[T]:
        promise: Promise[T] = Promise()
        handle = promise.future
        flight.handles += 1
        flight.future.on_any(promise.copy)
        handle.on_discard(lambda: self._leave(key, flight) or promise.discard())
        return handle

    def _leave(self, key: K, flight: _Flight[T]) -> bool:
        """Give up a handle; tell whether it was the last, so that the work is being stopped."""
        with self._lock:
            flight.handles -= 1
            if flight.handles:
                return False
            self._land(key, flight)
        flight.future.discard()
        return True

    def _land(self, key: K, flight: _Flight[T]) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]


class _Flight(Generic[T]):
    def __init__(self, future: Future[T]) -> None:
        self.future, self.handles = future, 0
