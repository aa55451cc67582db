"""The deep check of a layer: its tar put together again and hashed, and its tree compared with its entries.

One pass over the tar-split. Each entry's header is parsed as it was when the layer was unpacked; a file's body comes
from the tree, or from ``replaced/`` if a later entry took it away. What an entry made that no later one undid must lie
in the tree as the entry says. Paths are not remembered but counted, and the hashes of them added up, so memory does not
grow with the layer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from pykka_imagestore._proto import layer_pb2
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.paths import REPLACED, TAR_SPLIT
from pykka_imagestore.core.tar import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    Entry,
    OverLimitError,
    TarError,
    clean_path,
    read_entries,
)
from pykka_imagestore.errors import shown
from pykka_imagestore.fs.attributes import SET_ID, join, sees_trusted_xattrs
from pykka_imagestore.fs.holes import has_only_holes
from pykka_imagestore.fs.whiteouts import (
    OPAQUE_WHITEOUT,
    OPAQUE_XATTRS,
    WHITEOUT_META_PREFIX,
    WHITEOUT_PREFIX,
    is_whiteout,
)
from pykka_imagestore.jobs.extractor import IMPLICIT_MODE
from pykka_imagestore.jobs.findings import Findings
from pykka_imagestore.jobs.layer_tree import LayerTree, Names
from pykka_imagestore.jobs.replaced import Undone
from pykka_imagestore.jobs.streams import BLOCK_BYTES
from pykka_imagestore.jobs.tar_split import TarSplitReader

_TYPES = {
    FILE: (stat.S_IFREG, "file"),
    DIRECTORY: (stat.S_IFDIR, "folder"),
    SYMLINK: (stat.S_IFLNK, "symlink"),
    CHARACTER_DEVICE: (stat.S_IFCHR, "character device"),
    BLOCK_DEVICE: (stat.S_IFBLK, "block device"),
    FIFO: (stat.S_IFIFO, "fifo"),
}
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Others may say something else when they are read: the kernel rewrites ACLs, and capabilities in a user namespace.
_PLAIN_XATTRS = (b"user.", b"trusted.")


class DeepCheck:
    """Checks one layer.

    Throughout, ``folder`` is the descriptor of an entry's parent, and ``path`` a path without symlinks.

    Args:
        directory: The layer's.
        root: Descriptor of its root folder.
        split: Descriptor of its tar-split.
        record: Its record.
        limits: As when it was put.
        findings: Where to say what is wrong.
        tick: Called now and then with the number of bytes that were hashed.
    """

    def __init__(
        self,
        directory: Path,
        root: int,
        split: int,
        record: layer_pb2.LayerRecord,
        limits: Limits,
        findings: Findings,
        tick: Callable[[int], object],
    ) -> None:
        self._directory = directory
        self._root = root
        self._record = record
        self._limits = limits
        self._findings = findings
        self._tree = LayerTree(root)
        self._tar = TarSplitReader(split, lambda: tick(self._tar.size_bytes))
        self._unset = {(unset.path, unset.what) for unset in record.unset}
        self._whole = True  # all bodies were there to be hashed
        self._names = Names()

    def run(self) -> None:
        """Check the layer."""
        try:
            undone = Undone(self._directory / REPLACED)
        except OSError as error:
            self._findings.add_fault(f"has a folder {REPLACED} that cannot be read: {error.strerror}")
            return
        with closing(self._tree), closing(undone):
            self._undone = undone
            if self._check_entries():
                self._check_digest()
                self._check_implicit_folders()
                self._check_names()

    def _check_entries(self) -> bool:
        entries, name = 0, b""
        try:
            for entry in read_entries(self._tar, self._limits):
                name = entry.name
                self._check_entry(entry)
                entries += 1
            self._tar.drain()
        except OverLimitError as error:
            self._findings.add_unchecked(f"has an entry {entries} that {error}; its bytes cannot be checked")
            return False
        except TarError as error:
            self._findings.add_fault(f"has a damaged {TAR_SPLIT}: after {entries} entries, {shown(name)} {error}")
            return False
        if entries != self._record.entries:
            self._findings.add_fault(f"has {entries} entries, not {self._record.entries} as its record says")
        return True

    def _check_digest(self) -> None:
        if not self._whole:
            return
        found = self._tar.diff_id()
        if found != self._record.diff_id:
            self._findings.add_fault(
                f"has other bytes than it was put with, in a file or in {TAR_SPLIT}: together they are {found}"
            )
        elif self._tar.size_bytes != self._record.size_bytes:
            size = f"{self._tar.size_bytes} bytes, not {self._record.size_bytes}"
            self._findings.add_fault(f"has {size} as its record says")

    # -- entries

    def _check_entry(self, entry: Entry) -> None:
        parent, _, name = clean_path(entry.name).rpartition(b"/")
        if parent.startswith(WHITEOUT_META_PREFIX):
            self._tar.skip(entry.size)
        elif name.startswith(WHITEOUT_PREFIX):
            self._tar.skip(entry.size)
            self._check_whiteout(parent, name)
        elif entry.kind == CHARACTER_DEVICE and entry.major == entry.minor == 0:
            self._check_whiteout(parent, WHITEOUT_PREFIX + name)
        else:
            self._check_node(entry, parent, name)

    def _check_node(self, entry: Entry, parent: bytes, name: bytes) -> None:
        if entry.kind == HARD_LINK and self._is_link_to_itself(entry, join(parent, name)):
            return
        number = self._undone.take(join(parent, name))
        if number is None:
            try:
                folder, real = self._tree.folder(parent)
            except OSError as error:
                self._findings.add_error(parent, error)
                self._whole = self._whole and entry.kind != FILE
                return
            path = join(real, name)
            number = self._undone.take(path) if real != parent else None
        if number is None:
            self._check_made(entry, folder, path, name)
        elif entry.kind == FILE and entry.size:
            self._add_body(entry, self._undone.folder, b"%d" % number, f"{REPLACED}/{number}".encode())

    def _check_made(self, entry: Entry, folder: int, path: bytes, name: bytes) -> None:
        """Compare what lies in the tree with the entry that made it."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False) if path else os.fstat(self._root)
            if path:
                self._names.add(path)
            if entry.kind == HARD_LINK:
                self._check_hard_link(entry, path, status)
            elif self._has_type(entry, path, status):
                self._check_content(entry, folder, path, name, status)
                self._check_attributes(entry, path, status)
                self._check_xattrs(entry, folder, path, name)
            else:
                self._whole = self._whole and entry.kind != FILE
        except OSError as error:
            self._findings.add_error(path, error)
            self._whole = self._whole and entry.kind != FILE

    def _has_type(self, entry: Entry, path: bytes, status: os.stat_result) -> bool:
        kind, word = _TYPES[entry.kind]
        if stat.S_IFMT(status.st_mode) != kind:
            self._findings.add_fault(f"has {shown(path)} that is no {word}")
            return False
        return True

    def _check_content(self, entry: Entry, folder: int, path: bytes, name: bytes, status: os.stat_result) -> None:
        if entry.kind == FILE:
            self._add_body(entry, folder, name, path)
        elif entry.kind == SYMLINK:
            target = os.readlink(name, dir_fd=folder)
            if target != entry.link:
                self._findings.add_fault(f"has a symlink {shown(path)} to {shown(target)}, not to {shown(entry.link)}")
        elif entry.kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
            found, wanted = (os.major(status.st_rdev), os.minor(status.st_rdev)), (entry.major, entry.minor)
            if found != wanted:
                self._findings.add_fault(f"has {shown(path)} for device {_pair(found)}, not {_pair(wanted)}")

    def _check_attributes(self, entry: Entry, path: bytes, status: os.stat_result) -> None:
        found, wanted = (status.st_uid, status.st_gid), (entry.uid, entry.gid)
        if found != wanted and not self._may_lack(path, "owner"):
            self._findings.add_fault(f"has {shown(path)} owned by {_pair(found)}, not {_pair(wanted)}")
        mode = stat.S_IMODE(status.st_mode)
        if entry.kind == SYMLINK or mode == entry.mode:
            return
        if mode != entry.mode & ~SET_ID or not self._may_lack(path, "mode"):
            self._findings.add_fault(f"has {shown(path)} with mode {mode:04o}, not {entry.mode:04o}")

    def _check_xattrs(self, entry: Entry, folder: int, path: bytes, name: bytes) -> None:
        for key, value in entry.xattrs.items():
            shown_key = key.decode("utf-8", "backslashreplace")
            if not key.startswith(_PLAIN_XATTRS) or self._may_lack(path, f"xattr {shown_key}"):
                continue
            place = b"/proc/self/fd/%d/%s" % (folder, name) if path else self._root
            try:
                same = os.getxattr(place, key, follow_symlinks=not path) == value
            except OSError as error:
                if error.errno != errno.ENODATA or (key.startswith(b"trusted.") and not sees_trusted_xattrs()):
                    continue  # not ours to read
                same = False
            if not same:
                self._findings.add_fault(f"has {shown(path)} with another extended attribute {shown(shown_key)}")

    def _may_lack(self, path: bytes, what: str) -> bool:
        """Tell whether the record says that something could not be set; it lists the first 1000 only."""
        return (path, what) in self._unset or self._record.unset_count > len(self._record.unset)

    # -- bodies

    def _add_body(self, entry: Entry, folder: int, name: bytes, path: bytes) -> None:
        """Hash the body of a file."""
        segments = ((0, entry.size),) if entry.sparse is None else entry.sparse.segments
        size = entry.size if entry.sparse is None else entry.sparse.size_bytes
        try:
            file = os.open(name, _READ, dir_fd=folder)
        except OSError as error:
            self._findings.add_error(path, error)
            self._whole = False
            return
        try:
            found = os.fstat(file).st_size
            if found != size:
                self._findings.add_fault(f"has {shown(path)} of {found} bytes, not {size}")
                self._whole = False
                return
            for segment in segments:
                self._add_segment(file, path, *segment)
            if entry.sparse is not None and not has_only_holes(file, entry.sparse):
                self._findings.add_fault(f"has {shown(path)} with bytes where it should have a hole")
        finally:
            os.close(file)

    def _add_segment(self, file: int, path: bytes, offset: int, size: int) -> None:
        while size:
            try:
                data = os.pread(file, min(size, BLOCK_BYTES), offset)
            except OSError as error:
                self._findings.add_error(path, error)
                data = b""
            if not data:
                self._whole = False
                return
            self._tar.add(data)
            offset += len(data)
            size -= len(data)

    # -- hard links

    def _is_link_to_itself(self, entry: Entry, path: bytes) -> bool:
        return self._real(path) == self._real(clean_path(entry.link))

    def _real(self, path: bytes) -> bytes:
        """Return a path with the symlinks resolved that lead to its parent; as it is if there is no such folder."""
        parent, _, name = path.rpartition(b"/")
        try:
            return join(self._tree.folder(parent)[1], name)
        except OSError:
            return path

    def _check_hard_link(self, entry: Entry, path: bytes, status: os.stat_result) -> None:
        target = self._find_target(clean_path(entry.link))
        if target is not None and not os.path.samestat(status, target):
            self._findings.add_fault(f"has {shown(path)} that is no hard link to {shown(entry.link)}")

    def _find_target(self, link: bytes) -> os.stat_result | None:
        """Return what the entry found that is a link to ``link``; None if that is not kept."""
        number = self._undone.find(link)
        if number is None:
            number = self._undone.find(self._real(link))
        try:
            if number is not None:
                return os.stat(b"%d" % number, dir_fd=self._undone.folder, follow_symlinks=False)
            parent, _, name = link.rpartition(b"/")
            return os.stat(name, dir_fd=self._tree.folder(parent)[0], follow_symlinks=False)
        except OSError:
            return None  # if it should be there, its own entry says so

    # -- whiteouts

    def _check_whiteout(self, parent: bytes, name: bytes) -> None:
        if name.startswith(WHITEOUT_META_PREFIX):
            if name == OPAQUE_WHITEOUT and not self._undone:  # its folder may have been replaced by another
                self._check_mark(parent)
            return
        if self._undone.take(join(parent, name)) is not None:
            return
        try:
            folder, real = self._tree.folder(parent)
            if real != parent and self._undone.take(join(real, name)) is not None:
                return
            is_there = self._is_hidden(folder, real, name)
        except OSError as error:
            self._findings.add_error(parent, error)
            return
        if not is_there:
            self._findings.add_fault(f"lacks the whiteout {shown(join(real, name))}")

    def _check_mark(self, parent: bytes) -> None:
        try:
            folder, real = self._tree.folder(parent)
            is_there = self._is_opaque(folder)
        except OSError as error:
            self._findings.add_error(parent, error)
            return
        if not is_there:
            self._findings.add_fault(f"lacks the whiteout {shown(join(real, OPAQUE_WHITEOUT))}")

    def _is_hidden(self, folder: int, parent: bytes, name: bytes) -> bool:
        if self._record.whiteouts != layer_pb2.FILES:
            name = name.removeprefix(WHITEOUT_PREFIX)
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        self._names.add(join(parent, name))
        return self._record.whiteouts == layer_pb2.FILES or is_whiteout(status)

    def _is_opaque(self, folder: int) -> bool:
        form = WhiteoutFormat(self._record.whiteouts)
        if form == WhiteoutFormat.FILES:
            return os.access(OPAQUE_WHITEOUT, os.F_OK, dir_fd=folder, follow_symlinks=False)
        try:
            return form in OPAQUE_XATTRS and os.getxattr(folder, OPAQUE_XATTRS[form]) == b"y"
        except OSError as error:
            # Who may not see the attribute is told that there is none.
            is_hidden = form == WhiteoutFormat.OVERLAY_TRUSTED and not sees_trusted_xattrs()
            return error.errno != errno.ENODATA or is_hidden

    # -- what no entry made

    def _check_implicit_folders(self) -> None:
        for path in self._record.implicit_directories:
            parent, _, name = path.rpartition(b"/")
            try:
                status = os.stat(name, dir_fd=self._tree.folder(parent)[0], follow_symlinks=False)
            except OSError as error:
                self._findings.add_error(path, error)
                continue
            self._names.add(path)
            if status.st_mode != stat.S_IFDIR | IMPLICIT_MODE:
                self._findings.add_fault(f"has {shown(path)} that is no folder with mode {IMPLICIT_MODE:04o}")

    def _check_names(self) -> None:
        """Find what no entry made."""
        if self._findings.has_unchecked:
            return
        found = Names()
        try:
            for path in self._own_names():
                found.add(path)
        except OSError as error:
            self._findings.add_error(b"", error)
            return
        more = found.count - self._names.count
        if more == 1:
            stranger = next((path for path in self._own_names() if found.is_without(path, self._names)), b"")
            self._findings.add_fault(f"has {shown(stranger)}, which no entry made")
        elif more > 1:
            self._findings.add_fault(f"has {more} files or folders that no entry made")

    def _own_names(self) -> Iterator[bytes]:
        """Yield all paths but those of marks, which say that a folder is opaque and may be no entry's."""
        for path in self._tree.walk():
            if self._record.whiteouts != layer_pb2.FILES or path.rpartition(b"/")[2] != OPAQUE_WHITEOUT:
                yield path


def _pair(numbers: tuple[int, int]) -> str:
    return "{}:{}".format(*numbers)
