"""The tree of one stored layer, looked at path by path: what it has there, and what it hides of the layers below.

No call leads out of the tree, and no symlink in it is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.plan_rootfs import Kind, Mark
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.walk import Walk
from pykka_imagestore.fs.whiteout_format import (
    OPAQUE_WHITEOUT,
    OPAQUE_XATTRS,
    WHITEOUT_META_PREFIX,
    WHITEOUT_PREFIX,
    is_whiteout,
)


class LayerFiles:
    """A layer's files: the part of a ``LayerView`` that lies on disk.

    Args:
        root: Descriptor of its root directory, which this does not close.
        whiteouts: How deletions are kept in it.
        opaque: Its directories that an extended attribute marks as opaque; None to look at each.
    """

    def __init__(self, root: int, whiteouts: WhiteoutFormat, opaque: frozenset[bytes] | None = None) -> None:
        self.whiteouts = whiteouts
        self._walk = Walk(root, follows=False)
        self._has_files = whiteouts == WhiteoutFormat.FILES
        self._opaque = opaque
        self._names_of: dict[int, list[bytes]] | None = None

    def close(self) -> None:
        """Close all directories but the root."""
        self._walk.forget()

    def directory(self, path: bytes) -> int:
        """Return the descriptor of a directory, good until the next call.

        Raises:
            OSError: It is not there, or cannot be opened.
        """
        return self._walk.open(path)

    def kind(self, path: bytes) -> Kind:
        """Return what it has at a path in one of its directories."""
        name = path.rpartition(b"/")[2]
        if self._has_files and name.startswith(WHITEOUT_PREFIX):
            return Kind.NOTHING
        status = self._status(path)
        if status is None:
            return Kind.WHITEOUT if self._has_files and self._is_hidden_by_file(path) else Kind.NOTHING
        if stat.S_ISDIR(status.st_mode):
            return Kind.OPAQUE if self._is_opaque(path) else Kind.DIRECTORY
        if is_whiteout(status):
            return Kind.WHITEOUT
        return Kind.SYMLINK if stat.S_ISLNK(status.st_mode) else Kind.OTHER

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, but not those of whiteouts that are files."""
        names = map(os.fsencode, os.listdir(self.directory(path)))
        return [name for name in names if not (self._has_files and name.startswith(WHITEOUT_PREFIX))]

    def target(self, path: bytes) -> bytes:
        """Return where a symlink leads to."""
        parent, _, name = path.rpartition(b"/")
        return os.readlink(name, dir_fd=self.directory(parent))

    def same(self, path: bytes) -> Collection[bytes]:
        """Return all paths of the file that is there; the layer is walked, once, if it has several."""
        status = self._status(path)
        if status is None or status.st_nlink == 1:
            return (path,)
        if self._names_of is None:
            self._names_of = {}
            for below in self._find_files():
                found = self._status(below)
                if found is not None and found.st_nlink > 1:
                    self._names_of.setdefault(found.st_ino, []).append(below)
        return self._names_of[status.st_ino]

    def marks(self) -> Iterator[Mark]:
        """Yield all that it hides; of what is a device, the opaque directories."""
        if self._has_files:
            for path in self._find_files():
                parent, _, name = path.rpartition(b"/")
                if name == OPAQUE_WHITEOUT:
                    yield Mark(parent, path)
                elif name.startswith(WHITEOUT_PREFIX) and not name.startswith(WHITEOUT_META_PREFIX):
                    yield Mark(join(parent, name.removeprefix(WHITEOUT_PREFIX)), path)
        elif self._opaque is not None:
            yield from map(Mark, sorted(self._opaque))
        else:
            yield from (Mark(path) for path, *_ in self._directories() if self._is_opaque(path))

    def find_hiding(self) -> Iterator[bytes]:
        """Yield the directories that have whiteouts which are devices; the layer is walked."""
        if self.whiteouts in OPAQUE_XATTRS:
            for path, _, others in self._directories():
                if any(self.kind(join(path, name)) is Kind.WHITEOUT for name in others):
                    yield path

    def _status(self, path: bytes) -> os.stat_result | None:
        parent, _, name = path.rpartition(b"/")
        try:
            directory = self.directory(parent)
            return os.stat(name, dir_fd=directory, follow_symlinks=False) if name else os.fstat(directory)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _is_opaque(self, path: bytes) -> bool:
        if self._has_files:
            return self._status(join(path, OPAQUE_WHITEOUT)) is not None or self._is_hidden_by_file(path)
        if self._opaque is not None:
            return path in self._opaque
        key = OPAQUE_XATTRS.get(self.whiteouts)
        try:
            return key is not None and os.getxattr(self.directory(path), key) == b"y"
        except OSError:
            return False  # it has none

    def _is_hidden_by_file(self, path: bytes) -> bool:
        """Tell whether a file says that what lower layers have at a path is gone."""
        parent, _, name = path.rpartition(b"/")
        return bool(name) and self._status(join(parent, WHITEOUT_PREFIX + name)) is not None

    def _find_files(self) -> Iterator[bytes]:
        """Yield the path of all that is no directory."""
        for path, files, others in self._directories():
            yield from (join(path, name) for name in files + others)

    def _directories(self) -> Iterator[tuple[bytes, list[bytes], list[bytes]]]:
        """Yield each directory's path, the names of the files in it, and those of all else that is no directory."""
        left = [b""]
        while left:
            path = left.pop()
            directories, files, others = list[bytes](), list[bytes](), list[bytes]()
            with os.scandir(self.directory(path)) as entries:
                for entry in entries:
                    is_directory, is_file = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
                    (directories if is_directory else files if is_file else others).append(os.fsencode(entry.name))
            left += (join(path, name) for name in directories)
            yield path, files, others
