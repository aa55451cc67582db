"""An event that lets one thread go on each time it is set."""

from __future__ import annotations

import threading


class AutoResetEvent:
    """Ends the wait of the one thread that waits for it, or else its next wait. Takes no lock of the package's.

    ``queue.SimpleQueue.get`` with a timeout would do instead, but in Python 3.11 it waits for ever if the timeout has
    passed by the time it begins to wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the thread; may be called in any thread, and while the garbage collector runs."""
        try:
            self._lock.release()
        except RuntimeError:  # it is set already
            return

    def wait(self, seconds: float | None) -> bool:
        """Return True when the event is set, or was since the last wait; False if it is not within so many seconds."""
        return self._lock.acquire(timeout=-1 if seconds is None else min(max(seconds, 0), threading.TIMEOUT_MAX))
