"""The tree of a stored layer, looked at by directory descriptors only: no call leads out of it, whatever lies there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.walk import Policy, Walk


class TooManyLookupsError(Exception):
    """Finding the directories of a layer's entries takes too long; the argument is the limit on lookups."""


class Node(NamedTuple):
    """A file, directory or other node of a layer.

    Attributes:
        path: Its path below the layer's root, without symlinks; in ``replaced/``, its path below the layer's directory.
        directory: Descriptor of the directory that it lies in; of the root itself for the root.
        name: Its name in there; empty for the root.
        status: Its status.
        made_at: The path at which its entry made it.
    """

    path: bytes
    directory: int
    name: bytes
    status: os.stat_result
    made_at: bytes

    @property
    def place(self) -> int | bytes:
        """What calls on extended attributes take, of which none takes a directory's descriptor and a name."""
        return b"/proc/self/fd/%d/%s" % (self.directory, self.name) if self.name else self.directory


def get_node(path: bytes, directory: int, name: bytes, made_at: bytes | None = None) -> Node:
    """Return a node; see its attributes for the arguments.

    Raises:
        OSError: It is not there, or cannot be looked at.
    """
    status = os.stat(name, dir_fd=directory, follow_symlinks=False) if name else os.fstat(directory)
    return Node(path, directory, name, status, path if made_at is None else made_at)


class LayerTree:
    """Finds the directories below ``root``, a descriptor that it does not close.

    A symlink on the way is resolved by hand, as if ``root`` were ``/``. Descriptors are good until the next call.

    Args:
        max_lookups: How many directories may be looked up in all. An entry whose parent was replaced is looked for in
            the tree as it became. The extractor never went that way, so its own limit does not cover it: the way may
            lead through symlinks of a thousand parts each.
    """

    def __init__(self, root: int, max_lookups: int) -> None:
        self._walk = Walk(root, Policy(self._count_lookup))
        self._max_lookups = max_lookups
        self._lookups = 0

    def close(self) -> None:
        """Close all directories but the root."""
        self._walk.forget()

    def directory(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of a directory, and its path without symlinks.

        Raises:
            OSError: It is not there, or cannot be opened.
            TooManyLookupsError: The limit on lookups is reached.
        """
        found = self._walk.known(path)
        if found is None:
            self._walk.make_room()
            found = self._walk.directory(path)
        return found.directory, found.path

    def resolve(self, path: bytes) -> bytes:
        """Return a path whose parent's symlinks are resolved, as far as that is there.

        Raises:
            As ``directory``.
        """
        parent, _, name = path.rpartition(b"/")
        self._walk.make_room()
        return join(self._walk.resolve(parent), name)

    def _count_lookup(self, _: bytes) -> None:
        self._lookups += 1
        if self._lookups > self._max_lookups:
            raise TooManyLookupsError(self._max_lookups)

    def walk(self) -> Iterator[bytes]:
        """Yield the path of everything below the root. The tree must not be used otherwise meanwhile.

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
