"""Looking at a layer's tree, by directory descriptors only: whatever lies there, no call leads out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.walk import Policy, Walk


class TooManyLookupsError(Exception):
    """The way to the directories of a layer's entries takes too long; the argument tells how many may be looked up."""


class LayerTree:
    """Finds the directories below ``root``, a descriptor that it does not close.

    A symlink on the way is resolved by hand, as if ``root`` were ``/``. Descriptors are good until the next call.

    Args:
        most_lookups: How many directories may be looked up in all. An entry whose parent was replaced is looked for in
            the tree as it became, which the extractor did not do and did not bound: there it may lead through symlinks
            of a thousand parts each.
    """

    def __init__(self, root: int, most_lookups: int) -> None:
        self._walk = Walk(root, Policy(self._count_lookup))
        self._most_lookups = most_lookups
        self._lookups = 0

    def close(self) -> None:
        """Close all directories but the root."""
        self._walk.forget()

    def directory(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of a directory, and its path without symlinks.

        Raises:
            OSError: There is none, or it cannot be opened.
            TooManyLookupsError: More were looked up than may be.
        """
        found = self._walk.known(path)
        if found is None:
            self._walk.make_room()
            found = self._walk.directory(path)
        return found.directory, found.path

    def _count_lookup(self, _: bytes) -> None:
        self._lookups += 1
        if self._lookups > self._most_lookups:
            raise TooManyLookupsError(self._most_lookups)

    def walk(self) -> Iterator[bytes]:
        """Yield the path of everything below the root. Nobody else looks at this tree meanwhile.

        Raises:
            OSError: A directory cannot be read.
        """
        directories = [b""]
        while directories:
            path = directories.pop()
            with os.scandir(self.directory(path)[0]) as entries:
                for entry in entries:
                    below = join(path, os.fsencode(entry.name))
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(below)
                    yield below


class Names:
    """Paths, of which only the number and the sum of the hashes are kept."""

    def __init__(self) -> None:
        self.count = self._sum = 0

    def add(self, path: bytes) -> None:
        self.count += 1
        self._sum += hash(path)

    def is_without(self, path: bytes, others: Names) -> bool:
        """Tell whether these, without one, are the others."""
        return self._sum - hash(path) == others._sum
