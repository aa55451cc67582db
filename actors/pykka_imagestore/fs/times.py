"""What a file system makes of times: tried out, since nothing tells."""

from __future__ import annotations

import os

from pykka_imagestore.core.time_range import TimeRange

_SECOND = 1_000_000_000  # in nanoseconds
_ODD = 1_234_567_891 * _SECOND + 999_999_999
_EARLIEST, _LATEST = -(1 << 63), (1 << 63) - 1
_SURE = 1 << 31  # seconds that any kernel clamps right; before 5.4 one wrapped them around


def find_time_range(directory: int) -> TimeRange | None:
    """Return which times the file system of an open directory keeps; None if its answers make no sense.

    Leaves the directory with another time.
    """
    odd = _tried(directory, _ODD)
    earliest, latest = (_tried(directory, time * _SECOND) // _SECOND for time in (_EARLIEST, _LATEST))
    if not (earliest <= 0 and latest >= _SURE - 1 and 0 <= _ODD - odd < 2 * _SECOND):
        return None
    return TimeRange(earliest, latest, _ODD - odd + 1)


def _tried(directory: int, time_ns: int) -> int:
    os.utime(directory, ns=(time_ns, time_ns))
    return os.stat(directory).st_mtime_ns
