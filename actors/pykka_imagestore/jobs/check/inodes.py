"""Whether the names in a layer's tree belong to as many files as its entries make.

Each file knows how many names it has: together they have as many as there are names. Have they more, files of the layer
were made one, or have names outside of it, as in a copy that is made of hard links. Only then all are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import stat_result

_AT_ONCE = 200_000


class Inodes:
    """Counts names and files.

    Args:
        at_once: How many inode numbers may be in memory.
    """

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._at_once = at_once
        self._names = self._files = self._links = 0

    def add_file(self, links: int) -> None:
        """Add a file by its first name; ``links`` is how many it says it has."""
        self._files += 1
        self._links += links
        self._names += 1

    def add_name(self) -> None:
        """Add one more name of a file."""
        self._names += 1

    def find_joined(self, look: Callable[[], Iterable[stat_result]]) -> int:
        """Return how many files are one with another.

        Args:
            look: Returns what all names lead to; called again for layers that are too large for our memory.
        """
        if self._links == self._names:
            return 0
        rounds = self._files // self._at_once + 1
        return self._files - sum(_count(look(), number, rounds) for number in range(rounds))


def _count(found: Iterable[stat_result], number: int, rounds: int) -> int:
    """Return how many files there are among those whose turn it is."""
    alone, shared = 0, set()
    for status in found:
        if status.st_ino % rounds == number:
            if status.st_nlink == 1:
                alone += 1
            else:
                shared.add((status.st_dev, status.st_ino))
    return alone + len(shared)
