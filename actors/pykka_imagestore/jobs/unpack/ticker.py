"""What a worker does after each block of a layer, whatever it does with the bytes."""

from __future__ import annotations

import time

from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.unpack.limiter import Limiter
from pykka_imagestore.runtime.worker import raise_if_discarded, report

_REPORT_INTERVAL = 0.1  # seconds
_FIRST_REPORT = 0.02  # seconds: upon it, peers are called


class Ticker:
    """Ends work that was discarded or passes a limit, and reports how far it has come, ten times a second at most."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._next_report = time.monotonic() + _FIRST_REPORT

    def tick(self, bytes_read: int, entries: int, size_bytes: int) -> None:
        """Note how far a layer has come; the arguments are those of ``LayerCounts``.

        Raises:
            OverLimitError: The layer is too large.
            NoSpaceError: The disk is all but full.
        """
        raise_if_discarded()
        self._limiter.check(bytes_read, size_bytes)
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + _REPORT_INTERVAL
            report(LayerCounts(bytes_read, entries, size_bytes))
