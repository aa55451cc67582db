"""Writes a layer's entries below one directory, and nowhere else.

Works on directory descriptors, one path component a call, and follows no symlink: whatever a name, a link or a replaced
directory says, no call can reach outside.

System calls an entry: a file is opened with its final mode, written, dated and closed; ownership is set only where
it differs. Directories get their modes, times and owners last.

Spec:
    OCI image-spec v1.1, layer.md, "Applying Changesets" and "Whiteouts"; Linux, filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.tar.format import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    Entry,
    TarError,
)
from pykka_imagestore.fs.attributes import NODE_TYPES, SET_ID, Attributes, entry_fault, join
from pykka_imagestore.fs.unset_attributes import Unset, UnsetLog
from pykka_imagestore.fs.whiteout_format import WHITEOUT_PREFIX, is_whiteout
from pykka_imagestore.jobs.unpack.directories import Directories
from pykka_imagestore.jobs.unpack.disk_use import DiskUse
from pykka_imagestore.jobs.unpack.hard_links import HardLinks
from pykka_imagestore.jobs.unpack.hidden_files import HiddenFiles
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream
from pykka_imagestore.jobs.unpack.leader import Leader
from pykka_imagestore.jobs.unpack.lower_links import LowerLinks
from pykka_imagestore.jobs.unpack.memory_limit import MemoryLimit
from pykka_imagestore.jobs.unpack.replaced import Replaced
from pykka_imagestore.jobs.unpack.sparse_writer import SparseWriter
from pykka_imagestore.jobs.unpack.tree import NO_NAMES, Tree, lstat
from pykka_imagestore.jobs.unpack.whiteout_writer import WhiteoutWriter

_AT_HAND = (sys.maxsize, b"")  # the position of the entry at hand: later than those of all that were handed over


@dataclass(frozen=True, slots=True)
class Extracted:
    """What became of a layer besides its files; see layer.proto.

    Attributes:
        implicit_directories: Paths of directories that no entry named, sorted.
        root_mode: The mode that the root's entry says; None if no entry is the root's.
        implicit_root: Whether it is the layer's to have one, and no entry is.
        lower_links: Hard links to files of lower layers: the path of each, and where it leads to; sorted.
        opaque_directories: Paths of directories with an extended attribute that says so, sorted.
        hiding_directories: Paths of directories with whiteouts that are devices, or that had some; sorted.
    """

    entries: int
    stored_bytes: int
    inodes: int
    whiteouts: WhiteoutFormat
    implicit_directories: tuple[bytes, ...]
    unset: Unset
    root_mode: int | None
    implicit_root: bool
    lower_links: tuple[tuple[bytes, bytes], ...]
    opaque_directories: tuple[bytes, ...]
    hiding_directories: tuple[bytes, ...]


class Extractor:
    """Unpacks entries below the directory ``root``, which is empty and belongs to nobody else.

    Args:
        leader: Hands files to peers; one without peers makes this process unpack all of them.
        replaced: Keeps what later entries replace.
        keep_root: Leave owner, mode and extended attributes of ``root`` as they are, whatever an entry says of it.
        keeps_lower_links: Whether a hard link to no file of this layer is one to a file of lower layers; else it is
            refused.

    Attributes:
        entries: How many were unpacked so far.

    Throughout, ``directory`` is the descriptor of an entry's parent, ``parent`` that parent's path without symlinks.
    """

    def __init__(
        self,
        root: int,
        leader: Leader,
        replaced: Replaced,
        limits: Limits = DEFAULT_LIMITS,
        *,
        keep_root: bool = False,
        keeps_lower_links: bool = False,
    ) -> None:
        self.entries = 0
        memory = MemoryLimit(limits.memory_bytes)
        self._lower_links = LowerLinks(memory)
        self._leader = leader
        self._pending = leader.pending
        self._replaced = replaced
        self._sparse = SparseWriter(limits.layer_bytes)
        self._attributes = Attributes()
        self._disk_use = DiskUse()
        self._hidden = HiddenFiles(root, replaced, self._attributes, self._disk_use, self._fill_file)
        self._directories = Directories(root, self._attributes, memory, keep_root=keep_root)
        self._whiteouts = WhiteoutWriter(root, replaced, self._disk_use, memory)
        self._tree = Tree(
            root,
            limits,
            lambda: self.entries,
            leader=leader,
            directories=self._directories,
            whiteouts=self._whiteouts,
            lower_links=self._lower_links,
            replaced=replaced,
            disk_use=self._disk_use,
        )
        self._links = HardLinks(
            self._tree,
            self._lower_links,
            hidden=self._hidden,
            attributes=self._attributes,
            replaced=replaced,
            keeps_lower=keeps_lower_links,
        )
        self._make: dict[int, Callable[[Entry, int, bytes, bytes], None]] = {
            DIRECTORY: self._make_directory,
            SYMLINK: self._make_symlink,
            HARD_LINK: self._links.make,
            CHARACTER_DEVICE: self._make_node,
            BLOCK_DEVICE: self._make_node,
            FIFO: self._make_node,
        }

    def extract(self, entry: Entry, stream: LayerStream) -> None:
        """Unpack one entry, and take its body from ``stream``.

        Raises:
            TarError: The entry is one that we refuse.
            OSError: The disk failed.
        """
        try:
            self._extract(entry, stream)
        except (OSError, OverflowError, ValueError) as error:
            refusal = entry_fault(error)
            if refusal is None:
                raise
            raise refusal from error
        self.entries += 1

    def finish(self) -> Extracted:
        """Give the directories their modes and times; return what became of the layer.

        Raises:
            TarError: A file that was handed over is one that we refuse.
            OSError: The disk failed.
        """
        self._leader.wait()
        self._hidden.set_aside()
        self._tree.close()
        for path in self._directories.deepest_first():
            self._tree.make_room()
            self._directories.finish(path, self._existing)
        unset = UnsetLog()
        unset.add_all(self._leader.take_unset())
        unset.add_all(self._attributes.take_unset())
        return Extracted(
            entries=self.entries,
            stored_bytes=self._disk_use.stored_bytes,
            inodes=self._disk_use.inodes,
            whiteouts=self._whiteouts.form,
            implicit_directories=self._directories.implicit(),
            unset=unset.take(),
            root_mode=self._directories.root_mode,
            implicit_root=self._directories.implicit_root,
            lower_links=self._lower_links.all(),
            opaque_directories=tuple(sorted(self._whiteouts.opaque)),
            hiding_directories=tuple(sorted(self._whiteouts.hiding)),
        )

    def first_fault(self, error: TarError) -> TarError:
        """Return the fault of the first entry that has one, given one that was found: peers may have met others."""
        faults = [error]
        while True:
            try:
                self._leader.wait()
            except TarError as other:
                faults.append(other)
            else:
                return min(faults, key=lambda fault: fault.where or _AT_HAND)

    def close(self) -> None:
        """Close all directories but the root."""
        self._hidden.close()
        self._tree.close()

    def _extract(self, entry: Entry, stream: LayerStream) -> None:
        above, _, name = entry.name.rpartition(b"/")
        found = self._tree.known(above)
        if found is None or name in NO_NAMES:
            found, name = self._tree.find_parent(entry)
        directory, parent, _ = found
        if self._pending:
            self._tree.settle(join(parent, name))
        is_whiteout_entry = name[:4] == WHITEOUT_PREFIX
        if self._lower_links and directory >= 0 and not is_whiteout_entry:
            self._links.replace_lower(entry, parent, name)
        if entry.kind == FILE and name and not is_whiteout_entry and directory >= 0:
            self._disk_use.add_file(entry, name)
            self._make_file(entry, directory, parent, name, stream)
            return
        if directory < 0:
            self._hidden.extract(entry, stream)
            return
        self._disk_use.add_name(name, entry.xattrs)
        if is_whiteout_entry:
            stream.skip(entry.size)
            self._apply_whiteout(directory, parent, name)
        elif name:
            self._make[entry.kind](entry, directory, parent, name)
        elif entry.kind == DIRECTORY:
            self._tree.note_if_explicit(b"")
            self._directories.add_root(entry)
        else:
            # By a symlink, through which all that follows would go (umoci, CVE-2021-29136).
            msg = "would replace the root directory"
            raise TarError(msg)

    # -- one method for each type

    def _make_file(self, entry: Entry, directory: int, parent: bytes, name: bytes, stream: LayerStream) -> None:
        if self._leader.has_peers:
            path = join(parent, name)
            if self._can_be_handed_over(entry, path) and self._leader.take(entry, parent, name, path, stream):
                return
        try:
            file = self._attributes.create_file(entry, directory, name)
        except FileExistsError:
            directory = self._tree.clear(directory, parent, name)
            file = self._attributes.create_file(entry, directory, name)
        self._fill_file(entry, parent, name, file, stream)

    def _fill_file(self, entry: Entry, parent: bytes, name: bytes, file: int, stream: LayerStream) -> None:
        """Write an open file's body, give it its attributes, and close it."""
        try:
            if entry.sparse is not None:
                self._sparse.write(entry.sparse, entry.size, file, stream)
            elif entry.size:
                stream.write_to(file, entry.size)
            self._attributes.finish_file(entry, parent, name, file)
        finally:
            os.close(file)

    def _can_be_handed_over(self, entry: Entry, path: bytes) -> bool:
        """Tell whether a peer, which knows no other entry, would make the same file."""
        return not (path in self._directories.late or path in self._tree.followed or entry.xattrs or entry.sparse)

    def _make_directory(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        path, existed = join(parent, name), False
        try:
            self._directories.make(name, entry.mode, directory)
        except FileExistsError:
            existed = stat.S_ISDIR(lstat(name, directory).st_mode)
            if not existed:
                self._replace_by_directory(entry, directory, parent, name)
        if existed:
            self._tree.note_if_explicit(path)
        else:
            self._disk_use.add_directory()
        self._directories.add(entry, path, existed=existed)
        if entry.xattrs:
            self._attributes.set_xattrs(entry, path, self._tree.directory(path).directory, is_directory=True)

    def _replace_by_directory(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        was_whiteout = is_whiteout(lstat(name, directory))
        directory = self._tree.clear(directory, parent, name)
        self._directories.make(name, entry.mode, directory)
        if was_whiteout:  # what lower layers have at this path stays hidden
            path = join(parent, name)
            self._whiteouts.make_opaque(path, self._tree.directory(path).directory)

    def _make_symlink(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        try:
            os.symlink(entry.link, name, dir_fd=directory)
        except FileExistsError:
            directory = self._tree.clear(directory, parent, name)
            os.symlink(entry.link, name, dir_fd=directory)
        self._disk_use.add_symlink(entry.link)
        self._attributes.finish_node(entry, join(parent, name), name, directory)

    def _make_node(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        if entry.kind == CHARACTER_DEVICE and entry.major == entry.minor == 0:
            self._apply_whiteout(directory, parent, WHITEOUT_PREFIX + name)  # overlayfs takes the device for one
            return
        path = join(parent, name)
        if _exists(name, directory):
            directory = self._tree.clear(directory, parent, name)
        try:
            mode = NODE_TYPES[entry.kind] | entry.mode & ~SET_ID
            os.mknod(name, mode, os.makedev(entry.major, entry.minor), dir_fd=directory)
        except PermissionError:
            self._attributes.leave_unset(path, "device")
            self._replaced.note(path)
            self._links.note_unmade(parent, name)
            return
        self._disk_use.add_inode()
        self._attributes.finish_node(entry, path, name, directory)

    def _apply_whiteout(self, directory: int, parent: bytes, name: bytes) -> None:
        if self._pending:
            self._tree.settle(join(parent, name.removeprefix(WHITEOUT_PREFIX)))
        self._whiteouts.apply(directory, parent, name)

    def _existing(self, path: bytes) -> int:
        return self._tree.directory(path, make=False).directory


def _exists(name: bytes, directory: int) -> bool:
    try:
        lstat(name, directory)
    except FileNotFoundError:
        return False
    return True
