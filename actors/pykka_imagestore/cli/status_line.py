"""A line on stderr that is drawn again and again in its place, and gives way to sentences."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

DEFAULT_WIDTH = 80
_ERASE = "\r\x1b[K"
_lock = threading.RLock()
_is_drawn = False


def is_possible() -> bool:
    """Tell whether stderr is a terminal that can draw over what it shows."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def width() -> int:
    """Return how many characters a line may have."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    return (columns or DEFAULT_WIDTH) - 1  # the last column makes some terminals begin another line


def draw(safe_text: str) -> None:
    """Draw the line."""
    global _is_drawn  # noqa: PLW0603 - there is one terminal
    with _lock:
        _write(f"{_ERASE}{safe_text}")
        _is_drawn = True


def erase() -> None:
    """Erase the line, if it is drawn."""
    global _is_drawn  # noqa: PLW0603
    with _lock:
        if _is_drawn:
            _write(_ERASE)
        _is_drawn = False


@contextmanager
def erased() -> Iterator[None]:
    """Keep the line from being drawn while the block writes to stderr."""
    with _lock:
        erase()
        yield


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        return  # the terminal is gone
