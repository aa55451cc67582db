"""What a worker does after each block of what takes long."""

from __future__ import annotations

import time
from collections.abc import Callable

from pykka_imagestore.runtime.worker import raise_if_discarded, report

_REPORT_INTERVAL = 0.1  # seconds


class Ticker:
    """Ends work that was discarded, and reports how far it has come, ten times a second at most.

    Args:
        counts: Makes what is reported of what ``tick`` is given.
        first_seconds: How long before the first report.
    """

    def __init__(self, counts: Callable[..., object], first_seconds: float = 0.0) -> None:
        self._counts = counts
        self._next_report = time.monotonic() + first_seconds

    def tick(self, *counts: int) -> None:
        """Note how far the work has come."""
        raise_if_discarded()
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + _REPORT_INTERVAL
            report(self._counts(*counts))
