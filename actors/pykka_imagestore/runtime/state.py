"""The states of a future."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a future stands. All but PENDING are final."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"
    DISCARDED = "discarded"
