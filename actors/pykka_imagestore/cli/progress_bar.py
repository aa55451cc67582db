"""A progress bar on stderr, if that is a terminal: how far the work is, how fast, and how long it still takes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pykka_imagestore.cli import status_line
from pykka_imagestore.cli.bar_text import Reading, bar_text
from pykka_imagestore.cli.output import counted
from pykka_imagestore.durable.layout import count_removed_layers

if TYPE_CHECKING:
    from pykka_imagestore.checker import CheckListener
    from pykka_imagestore.core.check_report import CheckProgress
    from pykka_imagestore.core.paths import StorePaths
    from pykka_imagestore.core.progress import Progress
    from pykka_imagestore.progress import Listener

_INTERVAL = 0.2  # seconds
_RATE_OVER = 50  # intervals: rates of a moment jump


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Listener | None]:
    """Show the progress of a put while the block runs, and clear it afterwards.

    Yields:
        The listener to give the put, for any thread; None if nothing is to be shown.
    """
    with _shown_bar(lambda latest: Reading("reading the archive") if latest is None else _of_put(latest), quiet) as bar:
        yield None if bar is None else bar.tell


@contextmanager
def check_bar(bytes_expected: int, *, quiet: bool) -> Iterator[CheckListener | None]:
    """Show the progress of a check, as ``progress_bar`` does.

    Args:
        bytes_expected: What a deep check reads; 0 for another one.
    """

    def read(latest: CheckProgress | None) -> Reading:
        if latest is None:
            return Reading("checking")
        if not bytes_expected:
            return Reading("checking", latest.layers_done, latest.layers_expected, "layer")
        layers = f"{latest.layers_done} of {counted(latest.layers_expected, 'layer')}"
        return Reading("checking", latest.bytes_done, bytes_expected, None, layers)

    with _shown_bar(read, quiet) as bar:
        yield None if bar is None else bar.tell


@contextmanager
def removal_bar(paths: StorePaths, *, quiet: bool) -> Iterator[None]:
    """Show how many of the removed layers are deleted while the block runs."""
    most = 0

    def read(_: object) -> Reading:
        nonlocal most
        left = count_removed_layers(paths)
        most = max(most, left)
        return Reading("removing", most - left, most, "layer")

    with _shown_bar(read, quiet):
        yield


def _of_put(latest: Progress) -> Reading:
    layers = f"{sum(layer.done for layer in latest.layers)} of {counted(len(latest.layers), 'layer')}"
    details = f"{layers}, {latest.entries_done:,} entries"
    return Reading(", ".join(latest.names), latest.bytes_done, latest.bytes_expected, None, details)


@contextmanager
def _shown_bar(read: Callable[[Any], Reading], quiet: bool) -> Iterator[_Bar | None]:
    if quiet or not status_line.is_possible():
        yield None
        return
    bar = _Bar(read)
    bar.start()
    try:
        yield bar
    finally:
        bar.stop()


class _Bar:
    """Draws what is known, five times a second, in a thread of its own.

    Args:
        read: Makes a reading of what was last told; of None if nothing was.
    """

    def __init__(self, read: Callable[[Any], Reading]) -> None:
        self._read = read
        self._latest: object = None
        self._began = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imagestore-progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        status_line.erase()

    def tell(self, latest: object) -> None:
        """Take how far the work is; for any thread."""
        self._latest = latest

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            reading = self._read(self._latest)
            self._samples.append((now, reading.done))
            status_line.draw(bar_text(reading, status_line.width(), now - self._began, self._rate()))
            if self._ended.wait(_INTERVAL):
                return

    def _rate(self) -> float:
        (first, before), (last, now) = self._samples[0], self._samples[-1]
        return (now - before) / (last - first) if last > first else 0.0
