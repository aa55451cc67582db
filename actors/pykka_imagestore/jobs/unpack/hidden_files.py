"""Files in aufs' own bookkeeping: no content of the layer, but hard links of the layer may lead to them.

Images that Docker built on aufs have a file of several names below ``.wh..wh.plnk``, and each of its names is a hard
link to there. While a layer is unpacked, such files lie in a directory that no entry can name. At the end each is set
aside like a file that a later entry replaced. Its links stay.

Source: moby, pkg/archive/diff.go, "UnpackLayer".
"""

from __future__ import annotations

import os
from collections.abc import Callable

from pykka_imagestore.core.tar.format import FILE, Entry, clean_path
from pykka_imagestore.fs.attributes import Attributes
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.whiteout_format import WHITEOUT_META_PREFIX
from pykka_imagestore.jobs.unpack.disk_use import DiskUse
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream
from pykka_imagestore.jobs.unpack.replaced import Replaced

# Beyond these, a file is left out, and a link to it is refused. An image has some hundreds.
MAX_HIDDEN = 10_000
MAX_HIDDEN_PATH_BYTES = 1 << 20


class HiddenFiles:
    """The files below ``.wh..wh.`` directories of one layer, by their path.

    Args:
        root: Descriptor of the layer's root directory.
        replaced: Keeps them at the end.
        fill: Given entry, parent, name, open file and stream: writes the file's body and closes it.
    """

    def __init__(
        self,
        root: int,
        replaced: Replaced,
        attributes: Attributes,
        disk_use: DiskUse,
        fill: Callable[[Entry, bytes, bytes, int, LayerStream], None],
    ) -> None:
        self._root = root
        self._replaced = replaced
        self._attributes = attributes
        self._disk_use = disk_use
        self._fill = fill
        # Not to be guessed: a symlink of the layer could lead there.
        self._name = WHITEOUT_META_PREFIX + os.urandom(16).hex().encode()
        self._directory = -1
        self._names: dict[bytes, bytes] = {}
        self._count = self._path_bytes = 0

    def extract(self, entry: Entry, stream: LayerStream) -> None:
        """Make an entry's file; skip an entry of another type, and what is too much."""
        path = clean_path(entry.name)
        parent, _, name = path.rpartition(b"/")
        if path in self._names:
            self._set_aside(path)
        self._count += entry.kind == FILE
        self._path_bytes += len(path)
        if entry.kind != FILE or self._count > MAX_HIDDEN or self._path_bytes > MAX_HIDDEN_PATH_BYTES:
            self._disk_use.add_name(name, entry.xattrs)
            stream.skip(entry.size)
            return
        self._disk_use.add_file(entry, name)
        stored = b"%d" % self._count
        file = self._attributes.create_file(entry, self._open(), stored)
        self._names[path] = stored
        self._fill(entry, parent, name, file, stream)

    def has(self, path: bytes) -> bool:
        """Tell whether there is a file."""
        return path in self._names

    def link(self, path: bytes, name: bytes, directory: int) -> None:
        """Make a hard link to a file."""
        self._attributes.link(self._names[path], self._directory, name, directory)

    def set_aside(self) -> None:
        """Set all files aside, and remove their directory."""
        for path in [*self._names]:
            self._set_aside(path)
        if self._directory >= 0:
            os.rmdir(self._name, dir_fd=self._root)
            self.close()

    def close(self) -> None:
        """Close the directory; after an error it stays, as all of the layer does."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _set_aside(self, path: bytes) -> None:
        self._replaced.set_aside(path, self._names.pop(path), self._directory)

    def _open(self) -> int:
        if self._directory < 0:
            make_directory(self._name, 0o700, self._root)
            self._directory = os.open(self._name, DIRECTORY_FLAGS, dir_fd=self._root)
        return self._directory
