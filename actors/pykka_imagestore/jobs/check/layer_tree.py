"""Looking at a layer's tree, by directory descriptors only: whatever lies there, no call leads out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.walk import Walk


class LayerTree:
    """Finds the directories below ``root``, a descriptor that it does not close.

    A symlink on the way is resolved by hand, as if ``root`` were ``/``. Descriptors are good until the next call.
    """

    def __init__(self, root: int) -> None:
        self._walk = Walk(root)

    def close(self) -> None:
        """Close all directories but the root."""
        self._walk.forget()

    def directory(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of a directory, and its path without symlinks.

        Raises:
            OSError: There is none, or it cannot be opened.
        """
        found = self._walk.known(path)
        if found is None:
            self._walk.make_room()
            found = self._walk.directory(path)
        return found.directory, found.path

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
