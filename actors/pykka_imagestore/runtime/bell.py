"""Wakes one thread."""

from __future__ import annotations

import threading


class Bell:
    """Ends the wait of the one thread that waits for it, or else its next one. Never misses, and takes no lock of ours.

    In its place ``queue.SimpleQueue.get`` with a timeout would do, if it did not wait for ever in Python 3.11 when the
    timeout has passed by the time it begins to wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the thread; from any, also while the garbage collector runs."""
        try:
            self._lock.release()
        except RuntimeError:  # it was rung before, and nobody has waited since
            return

    def wait(self, seconds: float | None) -> bool:
        """Return when it is rung, or was since the last time; False if it is not within so many seconds."""
        return self._lock.acquire(timeout=-1 if seconds is None else min(max(seconds, 0), threading.TIMEOUT_MAX))
