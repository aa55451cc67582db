"""What we want to hold of root file systems, and whether it does, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rows import Row, Rows

AFTER_PUT, COPIES, SANDBOXES = "right after a put", "copies, 1 at a time", "sandboxes"
API, API_NOT_DURABLE, COMMAND, COPY = "ours, API", "ours, API, not durable", "ours, command", "ours, API, copy"


def quiet(at_once: int) -> str:
    return f"{at_once} at a time, beside 1"


def crowded(at_once: int, others: int) -> str:
    return f"{at_once} at a time, beside {others:,}"


@dataclass(frozen=True, slots=True)
class Bound:
    """Something that is to hold.

    Attributes:
        holds: None if it was not measured.
    """

    what: str
    wanted: str
    found: str
    holds: bool | None
