"""Writes what a stack of layers needs on top: directories with attributes of layers, copies of files, whiteouts."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from pykka_imagestore.core.budget import Size
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.plan_rootfs import FixDirectory, FixLink, FixUps
from pykka_imagestore.core.rootfs import DEVICES_FOR, Reads
from pykka_imagestore.fs.attributes import disown
from pykka_imagestore.fs.contents import has_holes, stored_bytes
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.layer_files import LayerFiles
from pykka_imagestore.fs.likeness import node_like, open_like
from pykka_imagestore.fs.open_directories import opened_directory
from pykka_imagestore.fs.walk import Walk
from pykka_imagestore.fs.whiteout_format import write_whiteout
from pykka_imagestore.rootfs.copies import Copies

_BLOCK_BYTES = 4096
_IMPLICIT_MODE = 0o755  # of a root that no layer has


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        whiteouts: How its deletions are kept.
        size: What it takes on disk.
    """

    whiteouts: WhiteoutFormat
    size: Size


def write_fix_ups(fix_ups: FixUps, layers: Sequence[LayerFiles], reads: Reads, rootfs: str) -> Written:
    """Write what a stack needs into a new directory ``rootfs``; nothing is synced.

    What this process may not set or make it could not give the layers either, and it is left out.

    Raises:
        OSError: A layer cannot be read, or the disk failed or is full.
    """
    make_directory(rootfs, stat.S_IRWXU)
    with opened_directory(rootfs) as root, closing(_Writer(root, layers, reads)) as writer:
        disown(root)
        writer.write(fix_ups)
        return Written(writer.form, writer.size)


class _Writer:
    def __init__(self, root: int, layers: Sequence[LayerFiles], reads: Reads) -> None:
        self.form = WhiteoutFormat.NONE
        self.size = Size(_BLOCK_BYTES, 1)
        self._root = root
        self._layers = layers
        self._reads = reads
        self._made = Walk(root, follows=False)
        self._copies = Copies()

    def close(self) -> None:
        self._made.forget()

    def write(self, fix_ups: FixUps) -> None:
        for directory in fix_ups.directories:
            self._make_directory(directory.path)
        for link in fix_ups.links:
            self._copy(link)
        for path in fix_ups.whiteouts:
            self._hide(path)
        if not self._layers:
            os.fchmod(self._root, _IMPLICIT_MODE)
            os.utime(self._root, ns=(0, 0))
        for directory in reversed(fix_ups.directories):  # each gets its time when nothing more comes into it
            self._finish_directory(directory)

    # -- directories

    def _make_directory(self, path: bytes) -> None:
        if path:
            above, name = self._place(path)
            self._copies.make_directory(name, above)
            self._count(_BLOCK_BYTES)

    def _finish_directory(self, directory: FixDirectory) -> None:
        source = self._layers[directory.layer].directory(directory.path)
        about = open_like(source)
        self._copies.finish_directory(self._made.open(directory.path), about, directory.path)

    # -- files

    def _copy(self, link: FixLink) -> None:
        """Copy a file, or whatever else has a name and is no directory; give the copy its other names."""
        layer = self._layers[link.layer]
        parent, _, source = link.source.rpartition(b"/")
        from_ = layer.directory(parent)
        status = os.stat(source, dir_fd=from_, follow_symlinks=False)
        first, *others = link.names
        if stat.S_ISREG(status.st_mode):
            self._copy_file(source, from_, first)
        else:
            self._copy_node(source, from_, status, first)
        for name in others:
            self._link(first, name)

    def _copy_file(self, source: bytes, from_: int, path: bytes) -> None:
        above, name = self._place(path)
        file = self._copies.open(source, from_)
        try:
            status = os.fstat(file)
            self._copies.make_file(file, status, above, path.rpartition(b"/")[0], name)
        finally:
            os.close(file)
        whole = -(-status.st_size // _BLOCK_BYTES) * _BLOCK_BYTES
        self._count(max(_BLOCK_BYTES, stored_bytes(status)) if has_holes(status) else whole)

    def _copy_node(self, source: bytes, from_: int, status: os.stat_result, path: bytes) -> None:
        above, name = self._place(path)
        self._copies.make_node(node_like(status, source, from_), above, path.rpartition(b"/")[0], name)
        self._count(0)

    def _link(self, first: bytes, path: bytes) -> None:
        target_parent, _, target = first.rpartition(b"/")
        above, name = self._place(path)
        self._copies.attributes.link(target, self._made.directory(target_parent).directory, name, above)

    # -- whiteouts

    def _hide(self, path: bytes) -> None:
        above, name = self._place(path)
        self._count(0)
        if self.form != WhiteoutFormat.FILES:
            with suppress(PermissionError):  # an overlay takes no device that would be a whiteout of its own
                write_whiteout(name, above, DEVICES_FOR[self._reads])
                self.form = DEVICES_FOR[self._reads]
                return
        self.form = WhiteoutFormat.FILES
        write_whiteout(name, above, self.form)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the directory that a path lies in, good until room is made, and the name in there."""
        parent, _, name = path.rpartition(b"/")
        return self._made.open(parent), name

    def _count(self, size_bytes: int) -> None:
        self.size += Size(size_bytes, 1)
