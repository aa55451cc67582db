"""Writes a layer's whiteouts in the form that ``fs/whiteout_format.py`` chooses.

``core/layer_record.py`` names the forms, and ``jobs/check/whiteouts.py`` compares each with the entries.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.whiteout_format import (
    OPAQUE_WHITEOUT,
    OPAQUE_XATTRS,
    WHITEOUT_META_PREFIX,
    WHITEOUT_PREFIX,
    choose_whiteout_format,
    whiteout_of,
    write_mark,
    write_whiteout,
)
from pykka_imagestore.jobs.unpack.disk_use import DiskUse
from pykka_imagestore.jobs.unpack.memory_limit import MemoryLimit
from pykka_imagestore.jobs.unpack.replaced import Replaced

_PATH_BYTES = 200  # of memory, beside the path
_PATH_COPIES = 4  # it goes into the layer's record too, as it is and serialized


class WhiteoutWriter:
    """Writes whiteouts below one root directory, all in one form.

    Args:
        memory: What is remembered counts there.

    Attributes:
        form: The form; chosen with the first whiteout.
        opaque: Paths of the directories that have an extended attribute for a mark.
        hiding: Paths of those that have a whiteout which is a device, or had one.
    """

    def __init__(self, root: int, replaced: Replaced, disk_use: DiskUse, memory: MemoryLimit) -> None:
        self.form = WhiteoutFormat.NONE
        self.opaque: set[bytes] = set()
        self.hiding: set[bytes] = set()
        self._root = root
        self._replaced = replaced
        self._disk_use = disk_use
        self._memory = memory

    def forget(self, path: bytes) -> None:
        """Forget a directory that is removed."""
        for paths in (self.opaque, self.hiding):
            if path in paths:
                paths.remove(path)
                self._memory.give_back(_memory_of(path))

    def apply(self, directory: int, parent: bytes, name: bytes) -> None:
        """Write the whiteout that an entry of that name stands for.

        Raises:
            TarError: It hides nothing that has a name.
        """
        if self.form == WhiteoutFormat.NONE:
            self.form = choose_whiteout_format(self._root)
        if name == OPAQUE_WHITEOUT:
            self.make_opaque(parent, directory)
        elif not name.startswith(WHITEOUT_META_PREFIX):
            self._hide(directory, parent, name.removeprefix(WHITEOUT_PREFIX))

    def make_opaque(self, path: bytes, directory: int) -> None:
        """Mark an open directory as one that hides what lower layers have in it."""
        if self.form == WhiteoutFormat.FILES:
            self._disk_use.add_inode()
            with suppress(FileExistsError):
                write_mark(OPAQUE_WHITEOUT, directory)
        else:
            os.setxattr(directory, OPAQUE_XATTRS[self.form], b"y")
            self._remember(self.opaque, path)

    def _hide(self, directory: int, parent: bytes, name: bytes) -> None:
        if name in (b"", b".", b".."):
            msg = "is a whiteout of nothing"
            raise TarError(msg)
        self._disk_use.add_inode()
        try:
            write_whiteout(name, directory, self.form)
            if self.form != WhiteoutFormat.FILES:
                self._remember(self.hiding, parent)
        except FileExistsError:
            self._replaced.note(whiteout_of(join(parent, name)))
            # A whiteout speaks of lower layers only. A file of this layer hides what lower layers have at its path by
            # itself; a directory of this layer must be made opaque for that.
            if self.form != WhiteoutFormat.FILES:
                self._make_opaque_if_directory(join(parent, name), name, directory)

    def _remember(self, paths: set[bytes], path: bytes) -> None:
        if path not in paths:
            self._memory.take(_memory_of(path), "directory with whiteouts")
            paths.add(path)

    def _make_opaque_if_directory(self, path: bytes, name: bytes, parent: int) -> None:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        try:
            self.make_opaque(path, directory)
        finally:
            os.close(directory)


def _memory_of(path: bytes) -> int:
    return _PATH_BYTES + _PATH_COPIES * len(path)
