"""Counts what happens in a store, logs it, and tells a listener without waiting for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict

from pykka_imagestore import events
from pykka_imagestore.core.parameters import require_function
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.runtime import SerialExecutor

logger = logger_of(__name__)

EventListener = Callable[["events.Event"], object]

MAX_WAITING = 10_000  # events, of which each takes some 300 bytes


class Monitor:
    """The one place that is told of all that happens in a store. Thread-safe; nothing that it does blocks or raises.

    Args:
        listener: Told of each event, in the order of the events, in a thread of its own.
    """

    def __init__(self, listener: EventListener | None = None) -> None:
        require_function("on_event", listener)
        self._listener = listener
        self._thread = SerialExecutor("imagestore-events")
        # Reentrant, because an abandoned future may complete, and so bring an event, during any allocation.
        self._lock = threading.RLock()
        self._counts = asdict(events.StoreStats())
        self._waiting = 0

    def note(self, event: events.Event) -> None:
        """Count an event, log it and tell the listener."""
        logger.log(logging.DEBUG if event.is_frequent else logging.INFO, "%s", event)
        with self._lock:
            for name, count in event.counts().items():
                self._counts[name] += count
            if self._listener is None:
                return
            if self._waiting >= MAX_WAITING:
                self._counts["events_dropped"] += 1
                return
            self._waiting += 1
            self._thread.run(self._tell, event)

    def stats(self) -> events.StoreStats:
        """Return the counts as of now."""
        with self._lock:
            return events.StoreStats(**self._counts)

    def close(self) -> None:
        """Tell the listener of what has happened so far, and of nothing more; do not wait for it. Idempotent."""
        self._thread.close(wait=False)

    def _tell(self, event: events.Event) -> None:
        with self._lock:
            self._waiting -= 1
        try:
            if self._listener is not None:
                self._listener(event)
        except BaseException:
            logger.exception("An event listener failed")
