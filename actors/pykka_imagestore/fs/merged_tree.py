"""The one tree that a stack of layers means, read from their directories: no mount, no symlink followed.

Each layer says in its own form what of those below it is gone (``core/layer_record.py``). A whiteout, a file, a
symlink hides what lower layers have at its path; so does an opaque directory what they have in it. All of them speak of
lower layers only. A directory that several layers have is merged, and its attributes are those of the topmost.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Self

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import StackLayer
from pykka_imagestore.fs.attributes import join, sees_trusted_xattrs
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.whiteout_format import (
    OPAQUE_WHITEOUT,
    OPAQUE_XATTRS,
    WHITEOUT_META_PREFIX,
    WHITEOUT_PREFIX,
    is_whiteout,
)

FILE, DIRECTORY, OTHER = stat.S_IFREG, stat.S_IFDIR, 0
_PREFIX, _OPAQUE, _META_PREFIX = map(os.fsdecode, (WHITEOUT_PREFIX, OPAQUE_WHITEOUT, WHITEOUT_META_PREFIX))
_MAX_OPEN = 256  # of a stack of 500 layers, not even the roots
_NO_ATTRIBUTE = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES})


class MergedEntry(NamedTuple):
    """What the merged tree has of a name in a directory.

    Attributes:
        kind: FILE, DIRECTORY or OTHER, for which one has to look.
        layers: Numbers of the layers that it comes from, the topmost first; several only for a directory.
    """

    name: bytes
    kind: int
    layers: tuple[int, ...]


_Found = tuple[str, int, tuple[int, ...]]  # as the system call has names, since most are only counted


class _Seen(NamedTuple):
    """What a layer has in a directory, and what it says of lower layers."""

    found: list[_Found]
    gone: list[str]
    is_opaque: bool


class MergedDirectory:
    """A directory of the merged tree.

    Args:
        found: Name, kind and layers of what is in it, in any order.

    Attributes:
        path: Below the root; empty for the root itself.
        layers: Numbers of the layers that it is merged of, from 0 for the lowest, the topmost first.
    """

    def __init__(self, path: bytes, layers: tuple[int, ...], found: list[_Found]) -> None:
        self.path = path
        self.layers = layers
        self._found = found

    def __len__(self) -> int:
        return len(self._found)

    @cached_property
    def entries(self) -> list[MergedEntry]:
        """What is in it, sorted by name."""
        return sorted(MergedEntry(os.fsencode(name), kind, layers) for name, kind, layers in self._found)

    @property
    def directories(self) -> list[MergedEntry]:
        """The directories in it, sorted by name."""
        return sorted(
            MergedEntry(os.fsencode(name), kind, layers) for name, kind, layers in self._found if kind == DIRECTORY
        )


class MergedTree:
    """Reads the merged tree of some layers.

    Few directories are open at a time, however many layers there are and however deep they are.

    Args:
        layers: The lowest first.
        may_change: Whether somebody may write to the topmost meanwhile; a directory that is gone when it is its turn is
            then left out.

    Raises:
        PermissionError: A layer keeps deletions in attributes that this process is not shown.
    """

    def __init__(self, layers: Sequence[StackLayer], *, may_change: bool = False) -> None:
        self._layers = tuple(layers)
        self._may_change = may_change
        require_sight_of_deletions(layers)
        self._open: dict[tuple[int, bytes], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all directories."""
        while self._open:
            os.close(self._open.popitem()[1])

    def walk(self, enters: Callable[[bytes, bytes], bool] | None = None) -> Iterator[MergedDirectory]:
        """Yield each directory once, before those in it, always in the same order.

        Args:
            enters: Tells, of the path of a directory and the name of one in there, whether to go there.

        Raises:
            OSError: A directory cannot be read.
        """
        left = [(b"", b"", tuple(reversed(range(len(self._layers)))))]
        while left:
            above, name, layers = left.pop()
            path = join(above, name)
            try:
                directory = self._read(path, layers)
            except (FileNotFoundError, NotADirectoryError):
                if self._may_change and path:
                    continue
                raise
            yield directory
            left += [
                (path, entry.name, entry.layers)
                for entry in reversed(directory.directories)
                if enters is None or enters(path, entry.name)
            ]

    def open(self, layer: int, path: bytes) -> int:
        """Return the descriptor of a directory of one layer, good until the next call.

        Raises:
            OSError: It is not there, or cannot be opened.
        """
        key = layer, path
        directory = self._open.pop(key, -1)
        if directory < 0:
            directory = self._find(layer, path)
        self._open[key] = directory
        if len(self._open) > _MAX_OPEN:
            os.close(self._open.pop(next(iter(self._open))))
        return directory

    # -- what a directory has

    def _read(self, path: bytes, layers: tuple[int, ...]) -> MergedDirectory:
        if len(layers) == 1:
            return MergedDirectory(path, layers, self._look(layers[0], path).found)
        return self._merge(path, layers)

    def _merge(self, path: bytes, layers: tuple[int, ...]) -> MergedDirectory:
        merged: dict[str, _Found] = {}
        hidden: set[str] = set()
        for depth, layer in enumerate(layers, 1):
            seen = self._look(layer, path)
            for found in seen.found:
                name, kind, alone = found
                if name in hidden:
                    continue
                if kind != DIRECTORY:
                    hidden.add(name)
                above = merged.get(name)
                if above is None:
                    merged[name] = found
                elif kind == DIRECTORY:
                    merged[name] = name, kind, above[2] + alone
            hidden.update(seen.gone)
            if seen.is_opaque or (depth < len(layers) and self._is_marked(layer, path)):
                layers = layers[:depth]
                break
        return MergedDirectory(path, layers, [*merged.values()])

    def _look(self, layer: int, path: bytes) -> _Seen:
        has_files = self._layers[layer].whiteouts == WhiteoutFormat.FILES
        directory: int = self.open(layer, path)
        alone = (layer,)
        found: list[_Found] = []
        gone: list[str] = []
        is_opaque = False
        with os.scandir(directory) as entries:
            for entry in entries:
                name = entry.name
                if has_files and name.startswith(_PREFIX):
                    is_opaque = is_opaque or name == _OPAQUE
                    if not name.startswith(_META_PREFIX):
                        gone.append(name[len(_PREFIX) :])
                elif entry.is_file(follow_symlinks=False):
                    found.append((name, FILE, alone))
                elif entry.is_dir(follow_symlinks=False):
                    found.append((name, DIRECTORY, alone))
                elif not entry.is_symlink() and _is_gone(name, directory):
                    gone.append(name)
                else:
                    found.append((name, OTHER, alone))
        return _Seen(found, gone, is_opaque)

    def _is_marked(self, layer: int, path: bytes) -> bool:
        """Tell whether an attribute says that a directory is opaque."""
        mark = OPAQUE_XATTRS.get(self._layers[layer].whiteouts)
        if mark is None:
            return False
        directory: int = self.open(layer, path)
        try:
            return os.getxattr(directory, mark) == b"y"
        except OSError as error:
            if error.errno in _NO_ATTRIBUTE:
                return False
            raise

    # -- down

    def _find(self, layer: int, path: bytes) -> int:
        """Open a directory by way of the nearest one that is open."""
        ancestor, missing = path, []
        while ancestor and (layer, ancestor) not in self._open:
            ancestor, _, name = ancestor.rpartition(b"/")
            missing.append(name)
        directory = self._open.get((layer, ancestor), -1)
        is_kept = directory >= 0
        try:
            if not is_kept:
                directory = os.open(self._layers[layer].path, DIRECTORY_FLAGS)
            while missing:
                below = os.open(missing.pop(), DIRECTORY_FLAGS, dir_fd=directory)
                if not is_kept:
                    os.close(directory)
                directory, is_kept = below, False
        except OSError as error:
            if not is_kept and directory >= 0:
                os.close(directory)
            error.filename = os.path.join(self._layers[layer].path, os.fsdecode(path))
            raise
        return directory


def _is_gone(name: str, directory: int) -> bool:
    try:
        return is_whiteout(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:  # since the directory was read
        return True


def require_sight_of_deletions(layers: Sequence[StackLayer]) -> None:
    """Refuse layers whose deletions the kernel hides from this process: what they deleted would be back.

    Raises:
        PermissionError: There is such a layer.
    """
    form = WhiteoutFormat.OVERLAY_TRUSTED
    hidden = next((layer for layer in layers if layer.whiteouts == form), None)
    if hidden is not None and not sees_trusted_xattrs():
        mark = os.fsdecode(OPAQUE_XATTRS[form])
        msg = f"it keeps deletions in {mark}, which is shown with CAP_SYS_ADMIN only"
        raise PermissionError(errno.EPERM, msg, hidden.path)
