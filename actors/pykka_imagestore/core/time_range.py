"""Which times a file system keeps. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_SECOND = 1_000_000_000  # in nanoseconds


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Which times a file system can hold: Linux clamps a time to them, and rounds it down.

    Attributes:
        earliest: Seconds since the epoch.
        latest: Seconds since the epoch.
        step_ns: Times are kept in multiples of this.
    """

    earliest: int
    latest: int
    step_ns: int

    def kept(self, time_ns: int) -> int:
        """Return what becomes of a time."""
        seconds, fraction = divmod(time_ns, _SECOND)
        if seconds >= self.latest:
            return self.latest * _SECOND
        if seconds <= self.earliest:
            return self.earliest * _SECOND
        if self.step_ns >= _SECOND:  # FAT has even seconds
            return time_ns - time_ns % self.step_ns
        return seconds * _SECOND + fraction - fraction % self.step_ns
