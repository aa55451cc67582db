"""Bounds how much is remembered of a layer until it is complete: what no byte of its own pays for."""

from __future__ import annotations

from pykka_imagestore.core.tar.format import OverLimitError


class MemoryLimit:
    """A number of bytes of memory that all who remember something of one layer share."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0

    def take(self, size_bytes: int, what: str) -> None:
        """Count something that is to be remembered.

        Args:
            what: What it is, for the error.

        Raises:
            OverLimitError: It is one too many.
        """
        self._used += size_bytes
        if self._used > self._limit:
            others = "directories, their whiteouts and links to lower layers"
            msg = f"is one {what} too many: {others} take all of {self._limit} bytes of memory"
            raise OverLimitError(msg, "memory_bytes")

    def give_back(self, size_bytes: int) -> None:
        """Count something as forgotten."""
        self._used -= size_bytes
