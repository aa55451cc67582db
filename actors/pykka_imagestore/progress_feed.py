"""Tells listeners how far a put has come, without waiting for them.

Callbacks run in one thread, one at a time; one that is slow misses what came meanwhile, and gets the latest next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.progress import LayerProgress, Progress
from pykka_imagestore.runtime import Lane

logger = logging.getLogger(__name__)

Listener = Callable[[Progress], object]


class ProgressFeed:
    """How far one put has come, and who wants to know. Belongs to one actor.

    Args:
        thread: Where the listeners are called.
    """

    def __init__(self, thread: Lane) -> None:
        self._thread = thread
        self._names: tuple[str, ...] = ()
        self._layers: dict[DiffID, LayerProgress] = {}
        self._listeners: list[_Mailbox] = []

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` from now on."""
        self._listeners.append(_Mailbox(listener))

    def expect(self, names: Iterable[str], layers: Mapping[DiffID, int]) -> None:
        """Set what there is to do: names, and for each layer the bytes to read."""
        self._names += tuple(names)
        for diff_id, size in layers.items():
            self._layers.setdefault(diff_id, LayerProgress(diff_id, 0, size))
        self._tell()

    def advance(self, diff_id: DiffID, bytes_done: int, entries_done: int) -> None:
        """Note how far a layer has come; ignored if this put does not want that layer."""
        layer = self._layers.get(diff_id)
        if layer is not None and not layer.done:
            self._layers[diff_id] = replace(layer, bytes_done=bytes_done, entries_done=entries_done)
            self._tell()

    def complete(self, diff_id: DiffID, entries: int | None) -> None:
        """Note that a layer is in the store; ``entries`` is None if it was before."""
        layer = self._layers.get(diff_id)
        if layer is not None and not layer.done:
            self._layers[diff_id] = replace(
                layer,
                bytes_done=layer.bytes_expected,
                entries_done=entries or 0,
                entries_expected=entries or 0,
                done=True,
            )
            self._tell()

    def _tell(self) -> None:
        progress = Progress(self._names, tuple(self._layers.values()))
        for mailbox in self._listeners:
            if mailbox.put(progress):
                self._thread.run(_Mailbox.deliver, mailbox)


class _Mailbox:
    """Holds the latest for one listener until it is delivered."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.RLock()
        self._latest: Progress | None = None

    def put(self, progress: Progress) -> bool:
        """Leave the latest; tell whether a delivery must be arranged."""
        with self._lock:
            was_empty, self._latest = self._latest is None, progress
            return was_empty

    def deliver(self) -> None:
        with self._lock:
            progress, self._latest = self._latest, None
        try:
            if progress is not None:
                self._listener(progress)
        except BaseException:
            logger.exception("A progress listener failed")
