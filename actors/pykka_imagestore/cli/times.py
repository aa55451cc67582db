"""Times and ages, as they are printed."""

from __future__ import annotations

import time

_YEAR_1, _YEAR_9999 = -62_135_596_800, 253_402_300_799  # seconds since the epoch
_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60}  # as durations are written on the command line


def format_time(seconds: float) -> str | None:
    """Return a time in UTC, ``2026-11-30T12:00:00Z``; None if it is 0, which says that nothing tells.

    A time outside of the calendar becomes its first or last one.

    Spec:
        RFC 3339, section 5.6.
    """
    if not seconds:
        return None
    year, month, day, hour, minute, second, *_ = time.gmtime(min(max(seconds, _YEAR_1), _YEAR_9999))
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"


def format_age(seconds: float) -> str:
    """Return how long ago something was, in whole units: ``3d``. A time to come is ``0s``."""
    for name, length in _UNITS.items():
        if seconds >= (2 * length if name == "w" else length):  # 13d says more than 1w
            return f"{int(seconds // length)}{name}"
    return f"{max(0, int(seconds))}s"
