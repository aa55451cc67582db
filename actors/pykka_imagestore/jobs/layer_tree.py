"""Looking at a layer's tree, by directory descriptors only: whatever lies there, no call leads out of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.remove_tree import FOLDER_FLAGS

_MAX_OPEN_FOLDERS = 128
_MAX_SYMLINKS = 40  # as the extractor has it


class LayerTree:
    """Finds the folders below ``root``, a descriptor that it does not close.

    A symlink on the way is resolved by hand, as if ``root`` were ``/``. Descriptors are good until the next call.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: dict[bytes, tuple[int, bytes]] = {b"": (root, b"")}
        self._hops = 0

    def close(self) -> None:
        """Close all folders but the root."""
        for path, (folder, real) in self._open.items():
            if path and path == real:
                os.close(folder)
        self._open = {b"": (self._root, b"")}

    def folder(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of a folder, and its path without symlinks.

        Raises:
            OSError: There is none, or it cannot be opened.
        """
        known = self._open.get(path)
        if known is not None:
            return known
        if len(self._open) > _MAX_OPEN_FOLDERS:
            self.close()
        self._hops = 0
        return self._find(path)

    def walk(self) -> Iterator[bytes]:
        """Yield the path of everything below the root. Nobody else looks at this tree meanwhile.

        Raises:
            OSError: A folder cannot be read.
        """
        folders = [b""]
        while folders:
            path = folders.pop()
            with os.scandir(self.folder(path)[0]) as entries:
                for entry in entries:
                    below = join(path, os.fsencode(entry.name))
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(below)
                    yield below

    def _find(self, path: bytes) -> tuple[int, bytes]:
        ancestor, missing = path, []
        while ancestor not in self._open:
            ancestor, _, name = ancestor.rpartition(b"/")
            missing.append(name)
        while missing:
            folder, above = self._open[ancestor]
            real = join(above, missing[-1])
            below = self._open.get(real) or self._enter(folder, above, missing[-1])
            ancestor = join(ancestor, missing.pop())
            self._open[ancestor] = self._open[real] = below
        return self._open[path]

    def _enter(self, folder: int, real: bytes, name: bytes) -> tuple[int, bytes]:
        try:
            return os.open(name, FOLDER_FLAGS, dir_fd=folder), join(real, name)
        except NotADirectoryError as error:
            try:
                target = os.readlink(name, dir_fd=folder)
            except OSError:
                raise error from None  # no symlink
        return self._follow(real, target)

    def _follow(self, real: bytes, target: bytes) -> tuple[int, bytes]:
        self._hops += 1
        if self._hops > _MAX_SYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith(b"/"):
            real = b""
        for part in target.split(b"/"):
            if part == b"..":
                real = real.rpartition(b"/")[0]
            elif part not in (b"", b"."):
                real = self._pass(join(real, part))
        return self._find(real)

    def _pass(self, path: bytes) -> bytes:
        """Return the path without symlinks of a part of the way; of what is missing there, as it is."""
        try:
            return self._find(path)[1]
        except (FileNotFoundError, NotADirectoryError):
            return path  # ".." may lead back; else the end of the way is missing, too


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
