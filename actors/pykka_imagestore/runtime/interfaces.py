"""What the parts of a pool expect of each other. A worker process never imports this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Answers(Protocol):
    """How what a worker sends becomes bytes and values again.

    Attributes:
        max_bytes: How large one answer may be.
    """

    max_bytes: int

    def dump(self, value: object) -> bytes:
        """Return a value as bytes; any error says what cannot be sent."""

    def load(self, data: bytes) -> Any:
        """Return the value; MalformedError if these are not what ``dump`` makes."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker process is set up.

    Attributes:
        name: What ``ps`` shows, at most 15 bytes.
        memory_limit_bytes: Its limit on private memory.
        answers: How it sends what a task returns, raises or reports.
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
