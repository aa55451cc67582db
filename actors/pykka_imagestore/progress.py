"""Tells listeners how far a put has come, without waiting for them.

Listeners are called in one thread, one at a time; a slow one misses the news in between and gets the latest next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.progress import LayerProgress, Progress
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.runtime import SerialExecutor

logger = logger_of(__name__)

Listener = Callable[[Progress], object]


class ProgressFeed:
    """How far one put has come, and its listeners.

    Thread-safe. A step only marks that there is news; a Progress is built when it is delivered: an archive may have
    many layers, and each of them many steps.

    Args:
        thread: Where the listeners are called.
    """

    def __init__(self, thread: SerialExecutor) -> None:
        self._thread = thread
        self._lock = threading.RLock()
        self._names: list[str] = []
        self._layers: dict[DiffID, LayerProgress] = {}
        self._mailboxes: tuple[_Mailbox, ...] = ()

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` from now on."""
        with self._lock:
            self._mailboxes = (*self._mailboxes, _Mailbox(listener, self))

    def expect(self, names: Iterable[str], layers: Mapping[DiffID, int]) -> None:
        """Add what there is to do: names, and for each layer the bytes to read."""
        with self._lock:
            self._names += names
            for diff_id, size in layers.items():
                self._layers.setdefault(diff_id, LayerProgress(diff_id, 0, size))
        self._tell()

    def advance(self, diff_id: DiffID, bytes_done: int, entries_done: int) -> None:
        """Note how far a layer has come; ignored if this put does not want that layer, or the layer is done."""
        self._change(diff_id, lambda layer: replace(layer, bytes_done=bytes_done, entries_done=entries_done))

    def complete(self, diff_id: DiffID, entries: int | None) -> None:
        """Note that a layer is in the store; ``entries`` is None if it was before."""
        count = entries or 0
        self._change(
            diff_id,
            lambda layer: replace(
                layer, bytes_done=layer.bytes_expected, entries_done=count, entries_expected=count, done=True
            ),
        )

    def latest(self) -> Progress:
        """Return how far it has come by now."""
        with self._lock:
            return Progress(tuple(self._names), tuple(self._layers.values()))

    def _change(self, diff_id: DiffID, change: Callable[[LayerProgress], LayerProgress]) -> None:
        with self._lock:
            layer = self._layers.get(diff_id)
            if layer is None or layer.done:
                return
            self._layers[diff_id] = change(layer)
        self._tell()

    def _tell(self) -> None:
        for mailbox in self._mailboxes:
            if mailbox.mark():
                self._thread.run(_Mailbox.deliver, mailbox)


class _Mailbox:
    """Remembers for one listener that there is news, until it is delivered."""

    def __init__(self, listener: Listener, feed: ProgressFeed) -> None:
        self._listener = listener
        self._feed = feed
        self._lock = threading.RLock()
        self._has_news = False

    def mark(self) -> bool:
        """Note that there is news; return whether a delivery must be arranged."""
        with self._lock:
            had_news, self._has_news = self._has_news, True
            return not had_news

    def deliver(self) -> None:
        with self._lock:
            self._has_news = False
        try:
            self._listener(self._feed.latest())
        except BaseException:
            logger.exception("A progress listener failed")
