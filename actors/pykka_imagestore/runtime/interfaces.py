"""The protocols between the parts of a pool. A worker process does not import this module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Answers(Protocol):
    """How results, errors and reports travel from a worker: as bytes, and back to values.

    Attributes:
        max_bytes: How large one answer may be.
    """

    max_bytes: int

    def dump(self, value: object) -> bytes:
        """Return a value as bytes; raise any error, which says what cannot be sent."""

    def load(self, data: bytes) -> Any:
        """Return the value; MalformedError if ``dump`` makes no such bytes."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker process is set up.

    Attributes:
        name: What ``ps`` shows, at most 15 bytes.
        memory_limit_bytes: Its limit on private memory.
        answers: How it sends results, errors and reports.
    """

    name: str
    memory_limit_bytes: int | None
    answers: Answers


class Host(Protocol):
    """What an engine offers to the task that it runs."""

    def report(self, message: object) -> None:
        """Pass a message on, or drop it."""

    def is_discarded(self) -> bool:
        """Tell whether the task should stop."""

    def receive(self, timeout: float | None) -> object:
        """Return the next message to the task; TimeoutError if none comes."""
