"""Which attributes of which entries could not be set."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_LISTED = 1000
_MAX_LISTED_BYTES = 1 << 20  # of all paths and names: an attribute's name may be as long as a header


@dataclass(frozen=True, slots=True)
class Unset:
    """Which attributes of which entries could not be set.

    Attributes:
        listed: Path and attribute; the first 1000, or fewer if these are long.
        count: How many there are in all.
    """

    listed: tuple[tuple[bytes, str], ...] = ()
    count: int = 0


_NOTHING = Unset()


class UnsetLog:
    """Collects what could not be set. However much that is, its memory stays bounded."""

    def __init__(self) -> None:
        self._listed: list[tuple[bytes, str]] = []
        self._listed_bytes = self._count = 0

    def add(self, path: bytes, what: str) -> None:
        """Add an attribute of an entry."""
        self._count += 1
        self._listed_bytes += len(path) + len(what)
        if len(self._listed) < _MAX_LISTED and self._listed_bytes <= _MAX_LISTED_BYTES:
            self._listed.append((path, what))

    def add_all(self, unset: Unset) -> None:
        """Add what another log collected."""
        for path, what in unset.listed:
            self.add(path, what)
        self._count += unset.count - len(unset.listed)

    def take(self) -> Unset:
        """Return what was added since the last call."""
        if not self._count:
            return _NOTHING
        taken = Unset(tuple(self._listed), self._count)
        self._listed, self._listed_bytes, self._count = [], 0, 0
        return taken
