"""Counts what an archive asks for, over all of it: something small may be repeated a hundred thousand times. Pure."""

from __future__ import annotations

from collections import Counter

from pykka_imagestore.core.format_error import LimitExceededError
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits


class Totals:
    """How much one archive has asked for so far.

    Args:
        limits: How much it may ask for.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._counts: Counter[str] = Counter()

    def add(self, limit: str, count: int, what: str) -> None:
        """Count some more of what a limit is about.

        Args:
            limit: The limit's name in ``Limits``.
            count: How many more.
            what: What they are, as the end of a sentence: "members".

        Raises:
            LimitExceededError: All together they are too many.
        """
        total = self._counts[limit] = self._counts[limit] + count
        if total > getattr(self.limits, limit):  # building a sentence for each of 100,000 members would cost more
            self.check(limit, total, f"it has {total} {what}")

    def check(self, limit: str, count: int, found: str) -> None:
        """Require that a single thing is within a limit.

        Args:
            limit: The limit's name in ``Limits``.
            count: How many there are.
            found: What was found, as a ``fault`` without its end: "has 1001 layers".

        Raises:
            LimitExceededError: They are too many.
        """
        most = getattr(self.limits, limit)
        if count > most:
            raise LimitExceededError(f"{found}; {most} is the limit", limit)
