"""What was asked of a store, what it answered, and what may therefore be in it: each name is a register.

A write may be what a name shows if no other write, which was acknowledged, began after it had ended. One that was not
acknowledged, since its process or the power was gone, may have been made or not.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

Value = str | None
"""The image that a name shows; None if there is none."""


@dataclass(frozen=True)
class Write:
    """A name was to show a value.

    Attributes:
        end: When it was answered, or when it could not be made any more; infinite before.
        is_certain: Whether it was acknowledged.
    """

    name: str
    value: Value
    start: float
    end: float = math.inf
    is_certain: bool = False


@dataclass(frozen=True)
class Read:
    """A name showed a value, at some time in between."""

    name: str
    value: Value
    start: float
    end: float


class History:
    """Writes and reads of one store. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._writes: dict[int, Write] = {}
        self._reads: list[Read] = []

    @classmethod
    def of(cls, shown: Mapping[str, Value]) -> History:
        """Begin a history with what was found."""
        history = cls()
        for name, value in shown.items():
            history.end(history.begin(name, value), is_certain=True)
        return history

    def begin(self, name: str, value: Value, at: float | None = None) -> int:
        """Note that a write begins; return its number."""
        with self._lock:
            number = next(self._numbers)
            self._writes[number] = Write(name, value, time.monotonic() if at is None else at)
        return number

    def end(self, number: int, *, is_certain: bool, at: float | None = None) -> None:
        """Note that a write was acknowledged, or that it failed, or that who asked for it is gone."""
        with self._lock:
            write = self._writes[number]
            end = time.monotonic() if at is None else at
            self._writes[number] = replace(write, end=end, is_certain=is_certain)

    def take_back(self, number: int) -> None:
        """Note that a write was not made, for certain."""
        with self._lock:
            del self._writes[number]

    def read(self, name: str, value: Value, start: float, end: float) -> None:
        """Note what a read showed."""
        with self._lock:
            self._reads.append(Read(name, value, start, end))

    @property
    def names(self) -> set[str]:
        """All names that were ever written."""
        with self._lock:
            return {write.name for write in self._writes.values()}

    def may_show(self, name: str) -> set[Value]:
        """Return what a name may show, now that nothing is going on any more, or everything has stopped."""
        return _candidates(self._writes_of(name), math.inf, math.inf)

    def cut(self, before: float, after: float) -> History:
        """Return the history as it was at a moment between two times, when everything stopped."""
        past = History()
        past._numbers = self._numbers
        for number, write in list(self._writes.items()):
            if write.start <= after:
                is_ended = write.end <= before
                end = write.end if is_ended else math.inf
                past._writes[number] = replace(write, end=end, is_certain=is_ended and write.is_certain)
        return past

    def wrong_reads(self) -> list[str]:
        """Return, as sentences, the reads that showed what their name could not show then."""
        wrong = []
        for read in self._reads:
            may = _candidates(self._writes_of(read.name), read.start, read.end)
            if read.value not in may:
                wrong.append(f"{read.name} showed {read.value} and may have shown {_listed(may)} only: {read}")
        return wrong

    def _writes_of(self, name: str) -> list[Write]:
        with self._lock:
            writes = [write for write in self._writes.values() if write.name == name]
        return [Write(name, None, -math.inf, -math.inf, is_certain=True), *writes]


def _candidates(writes: Iterable[Write], start: float, end: float) -> set[Value]:
    begun = [write for write in writes if write.start <= end]
    certain = [write for write in begun if write.is_certain and write.end <= start]
    latest = max((write.start for write in certain), default=-math.inf)
    return {write.value for write in begun if write.end >= latest}


def _listed(values: set[Value]) -> str:
    return ", ".join(sorted(map(str, values)))
