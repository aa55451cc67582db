"""Whether the names in a layer's tree lead to as many files as its entries make.

Each file has a link count, and the link counts of all files together equal the number of names. If they do not, files
of the layer were joined into one, or have names outside of the layer, as in a copy that is made of hard links. Only
then are all of them looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import stat_result

_MAX_NUMBERS = 200_000


class Inodes:
    """Counts names and files.

    Args:
        max_numbers: How many inode numbers may be in memory.
    """

    def __init__(self, max_numbers: int = _MAX_NUMBERS) -> None:
        self._max_numbers = max_numbers
        self._names = self._files = self._links = 0

    def add_file(self, links: int) -> None:
        """Add a file by its first name; ``links`` is its link count."""
        self._files += 1
        self._links += links
        self._names += 1

    def add_name(self) -> None:
        """Add one more name of a file."""
        self._names += 1

    def find_joined(self, look: Callable[[], Iterable[stat_result]]) -> int:
        """Return how many files fewer there are than were added.

        Args:
            look: Returns the status behind each name. Called several times if not all inode numbers fit into memory.
        """
        if self._links == self._names:
            return 0
        rounds = self._files // self._max_numbers + 1
        return self._files - sum(_count(look(), number, rounds) for number in range(rounds))


def _count(found: Iterable[stat_result], number: int, rounds: int) -> int:
    """Return how many files there are in one of several rounds; a file's inode number decides in which it counts."""
    alone, shared = 0, set()
    for status in found:
        if status.st_ino % rounds == number:
            if status.st_nlink == 1:
                alone += 1
            else:
                shared.add((status.st_dev, status.st_ino))
    return alone + len(shared)
