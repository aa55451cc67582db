"""One piece of work shared by all callers that want it at the same time, and stopped when the last gives it up.

Source: Apache Mesos, src/slave/containerizer/mesos/provisioner/docker/store.cpp, which counts users of a pull
through ``undiscardable`` and ``onDiscard``. Unlike there, a flight is removed by identity, not by key: one that is
ending can neither be joined nor remove its successor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from pykka_imagestore.runtime.forks import Origin
from pykka_imagestore.runtime.future import Future, Promise

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """A table of work in flight. Thread-safe. In a forked child, which cannot share the work, it raises ForkedError."""

    def __init__(self) -> None:
        self._origin = Origin()
        # Reentrant, because an abandoned future may complete during any allocation. For the same reason nothing that
        # may take another lock is called under it.
        self._lock = threading.RLock()
        self._flights: dict[K, _Flight[T]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def futures(self) -> list[Future[T]]:
        """Return the work in flight, not handles on it: discarding one stops it for everybody."""
        return [flight.future for flight in list(self._flights.values())]

    def find(self, key: K) -> Future[T] | None:
        """Return a new handle on the flight under ``key``, or None."""
        self._origin.require("this table of work in flight")
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                flight.handles += 1
        return None if flight is None else self._handle(key, flight)

    def join(self, key: K, start: Callable[[], Future[T]]) -> Future[T]:
        """Return a new handle on the flight under ``key``, starting it if there is none.

        Discarding a handle gives up only that handle, and at once. Discarding the last one discards the work, and
        that handle becomes discarded when the work has ended. If ``start`` raises, the work fails with that error.
        """
        self._origin.require("this table of work in flight")
        fresh: _Flight[T] = _Flight()
        with self._lock:
            flight = self._flights.setdefault(key, fresh)
            flight.handles += 1
        if flight is fresh:
            flight.future.on_any(lambda _: self._land(key, flight))
            flight.promise.compute(start)
        return self._handle(key, flight)

    def forget(self, key: K) -> None:
        """Let no later call join the flight under ``key``: from here on, its effect may be undone before it ends."""
        self._origin.require("this table of work in flight")
        with self._lock:
            self._flights.pop(key, None)

    def _handle(self, key: K, flight: _Flight[T]) -> Future[T]:
        promise: Promise[T] = Promise()
        withdraw = flight.future.watch(promise.copy)

        def leave() -> None:
            if not self._leave(key, flight):
                withdraw()
                promise.discard()

        return promise.future.on_discard(leave)

    def _leave(self, key: K, flight: _Flight[T]) -> bool:
        """Give up a handle; return whether it was the last, so that the work is being stopped."""
        with self._lock:
            flight.handles -= 1
            is_last = not flight.handles
            if is_last:
                self._land(key, flight)
        if is_last:
            flight.future.discard()
        return is_last

    def _land(self, key: K, flight: _Flight[T]) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.promise: Promise[T] = Promise()
        self.future, self.handles = self.promise.future, 0
