"""Asks a store for things, one after the other, and keeps the history of what it answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gallery import Gallery
from history import History
from invariants import TIMEOUT

from pykka_imagestore import LocalStore, StoreError
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.runtime import Future


class Caller:
    """Waits for answers. A call that fails has been made or not; the error is kept.

    Attributes:
        errors: Of the calls that failed.
        is_cut: Tells whether the power is gone: what is answered then, nobody hears.
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.is_cut: Callable[[], bool] = lambda: False

    def answer(self, future: Future[Any]) -> Any:
        """Return what the caller is told; None if that is nothing."""
        try:
            answer = future.get(timeout=TIMEOUT)
        except (StoreError, OSError) as error:
            self.errors.append(error)
            return None
        return None if self.is_cut() else answer


class Script(Caller):
    """Calls on a store."""

    def __init__(self, store: LocalStore, gallery: Gallery, history: History) -> None:
        super().__init__()
        self._store, self._gallery, self._history = store, gallery, history

    def put(self, name: str, image: str) -> None:
        self.put_all((name, image))

    def put_all(self, *puts: tuple[str, str]) -> None:
        """Put several at once."""
        writes = [self._history.begin(stored(name), image) for name, image in puts]
        futures = [self._store.put(name, self._archive(image)) for name, image in puts]
        for write, future in zip(writes, futures, strict=True):
            self._history.end(write, is_certain=self.answer(future) is not None)

    def remove(self, name: str) -> None:
        write = self._history.begin(stored(name), None)
        self._history.end(write, is_certain=self.answer(self._store.remove(name)) is not None)

    def prune(self, keep: Iterable[str] = (), budget_bytes: int | None = None) -> None:
        kept = set(map(stored, keep))
        names = set() if budget_bytes is None else self._history.names - kept
        writes = {name: self._history.begin(name, None) for name in names}
        pruned = self.answer(self._store.prune(keep=keep, budget_bytes=budget_bytes))
        gone = None if pruned is None else {image.name for image in pruned.images}
        settle_prune(self._history, writes, gone)

    def _archive(self, image: str) -> Path:
        return self._gallery.archives[image]


def settle_prune(history: History, writes: dict[str, int], gone: set[str] | None, at: float | None = None) -> None:
    """Note how a prune ended that could have taken several names.

    Args:
        writes: For each such name the write that makes it show nothing.
        gone: The names that it took; None if nobody knows.
    """
    for name, write in writes.items():
        if gone is None:
            history.end(write, is_certain=False, at=at)
        elif name in gone:
            history.end(write, is_certain=True, at=at)
        else:
            history.take_back(write)


def stored(name: str) -> str:
    """Return a name in the form that the store shows."""
    return ImageName.parse(name).stored


def begin(script: Script) -> None:
    """Put what the operations find."""
    script.put_all(("app:1", "alpha"), ("app:2", "beta"))


OPERATIONS: dict[str, Callable[[Script], object]] = {
    "put": lambda script: script.put("app:3", "gamma"),
    "put of what is there": lambda script: script.put("app:1", "alpha"),
    "put under another name": lambda script: script.put("app:3", "alpha"),
    "put in the place of another image": lambda script: script.put("app:1", "gamma"),
    "puts at once": lambda script: script.put_all(("app:3", "gamma"), ("app:4", "delta"), ("app:1", "beta")),
    "remove": lambda script: script.remove("app:1"),
    "remove and put": lambda script: (script.remove("app:1"), script.put("app:1", "alpha")),
    "prune": lambda script: (script.put("app:1", "gamma"), script.prune()),
    "prune of images": lambda script: script.prune(keep=["app:2"], budget_bytes=0),
}
