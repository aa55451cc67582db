"""The deep check of a layer: its tar put together again and hashed, and its tree compared with its entries.

One pass over the tar-split. Each entry's header is parsed as it was when the layer was unpacked; a file's body comes
from the tree, or from ``replaced/`` if a later entry took it away. What an entry made that no later one undid must lie
in the tree as the entry says; what was undone, where hard links to it lie. Paths are not remembered but counted, and
their hashes added up, so memory does not grow with the layer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore._proto import layer_pb2
from pykka_imagestore.core.byte_source import BLOCK_BYTES
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.paths import REPLACED, REPLACED_PATHS, TAR_SPLIT
from pykka_imagestore.core.tar.format import (
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
)
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.flags import FILE_FLAGS
from pykka_imagestore.fs.holes import has_only_holes
from pykka_imagestore.fs.walk import FREE_LOOKUPS
from pykka_imagestore.fs.whiteouts import OPAQUE_WHITEOUT, WHITEOUT_META_PREFIX, WHITEOUT_PREFIX, is_whiteout
from pykka_imagestore.jobs.check.attributes import AttributeCheck, Expectations, pair
from pykka_imagestore.jobs.check.directory_marks import DirectoryMarks
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.inodes import Inodes
from pykka_imagestore.jobs.check.layer_tree import LayerTree, Names, TooManyLookupsError
from pykka_imagestore.jobs.check.xattrs import XattrCheck, place_of
from pykka_imagestore.jobs.unpack.replaced import Undone
from pykka_imagestore.jobs.unpack.tar_split import TarSplitReader, checksum_of
from pykka_imagestore.text import shown

_TYPES = {
    FILE: (stat.S_IFREG, "file"),
    DIRECTORY: (stat.S_IFDIR, "directory"),
    SYMLINK: (stat.S_IFLNK, "symlink"),
    CHARACTER_DEVICE: (stat.S_IFCHR, "character device"),
    BLOCK_DEVICE: (stat.S_IFBLK, "block device"),
    FIFO: (stat.S_IFIFO, "fifo"),
}
_MAX_BYTES = 8 << 20  # of entries in memory
# Times as many for each entry as the extractor makes: a link's paths are resolved twice, and names are counted after.
_LOOKUPS = 4


@dataclass(slots=True)
class _Origin:
    """What hard links lead to that has lost the name that its entry gave it, and is not kept by itself.

    Attributes:
        entry: The one that made it.
        path: Where.
        status: Once a link was met.
    """

    entry: Entry
    path: bytes
    status: os.stat_result | None = None


class DeepCheck:
    """Checks one layer.

    Throughout, ``directory`` is the descriptor of an entry's parent, and ``path`` a path without symlinks.

    Args:
        directory: The layer's.
        root: Descriptor of its root directory.
        split: Descriptor of its tar-split.
        record: Its record.
        expected: What that says of the tree.
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
        expected: Expectations,
        limits: Limits,
        findings: Findings,
        tick: Callable[[int], object],
    ) -> None:
        self._directory = directory
        self._root = root
        self._split = split
        self._record = record
        self._limits = limits
        self._findings = findings
        self._tree = LayerTree(root, FREE_LOOKUPS + _LOOKUPS * limits.lookups * record.entries)
        self._tar = TarSplitReader(split, lambda: tick(self._tar.size_bytes))
        self._expected = expected
        self._attributes = AttributeCheck(expected, findings)
        self._form = WhiteoutFormat(record.whiteouts)
        self._xattrs = XattrCheck(self._form, expected, findings)
        self._marks = DirectoryMarks()
        self._inodes = Inodes()
        self._whole = True  # all bodies were there to be hashed
        self._names, self._kept = Names(), Names()
        self._origins: dict[int, _Origin | os.stat_result] = {}
        self._origin_bytes = 0
        self._undone_directories: set[int] = set()
        self._unsure: set[bytes] = set()  # directories that may be opaque
        self._kept_is_sure = True
        self._root_is_named = False

    def run(self) -> None:
        """Check the layer."""
        try:
            undone = Undone(self._directory / REPLACED)
        except PermissionError as error:
            self._findings.add_unchecked(f"has a directory {REPLACED} that this user cannot read: {error.strerror}")
            return
        except OSError as error:
            self._findings.add_fault(f"has a directory {REPLACED} that cannot be read: {error.strerror}")
            return
        with closing(self._tree), closing(undone):
            self._undone = undone
            try:
                self._check_all()
            except TooManyLookupsError as error:
                self._findings.add_unchecked(f"has entries whose directories took more than {error} lookups to find")

    def _check_all(self) -> None:
        if self._check_entries():
            self._check_digest()
            self._check_implicit_directories()
            self._check_marks()
            self._check_names()
            self._check_sums()

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

    def _check_sums(self) -> None:
        """Compare what says the same of the layer as before, and is not the same."""
        if not self._expected.is_exact or self._findings.has_faults:
            return
        if checksum_of(self._split) != self._record.split_checksum:
            self._findings.add_fault(f"has another {TAR_SPLIT} than it was put with")
        if self._undone.checksum != self._record.replaced_checksum:
            self._findings.add_fault(f"has another {REPLACED}/{REPLACED_PATHS} than it was put with")

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
        path = join(parent, name)
        if entry.kind == HARD_LINK and self._is_link_to_itself(entry, path):
            return
        number = self._undone.take(path)
        if number is None:
            try:
                directory, real = self._tree.directory(parent)
            except OSError as error:
                self._findings.add_error(parent, error)
                self._whole = self._whole and entry.kind != FILE
                return
            path = join(real, name)
            number = self._undone.take(path) if real != parent else None
        if self._undone and entry.kind != DIRECTORY:
            self._marks.drop(path)
        if number is None:
            self._check_made(entry, directory, path, name)
        else:
            self._check_undone(entry, path, number)

    def _check_made(self, entry: Entry, directory: int, path: bytes, name: bytes) -> None:
        """Compare what lies in the tree with the entry that made it."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False) if path else os.fstat(self._root)
            if path:
                self._names.add(path)
            else:
                self._root_is_named = True
            if entry.kind == HARD_LINK:
                self._check_hard_link(entry, directory, path, name, status)
            else:
                if entry.kind != DIRECTORY:
                    self._inodes.add_file(status.st_nlink)
                self._check_as(entry, directory, path, name, status)
        except OSError as error:
            self._findings.add_error(path, error)
            self._whole = self._whole and entry.kind != FILE

    def _check_as(
        self,
        entry: Entry,
        directory: int,
        path: bytes,
        name: bytes,
        status: os.stat_result,
        made_at: bytes | None = None,
    ) -> None:
        """Compare something with the entry that made it, at ``made_at`` if that is not ``path``."""
        if not self._has_type(entry, path, status):
            self._whole = self._whole and entry.kind != FILE
            return
        if entry.kind == FILE:
            self._check_file(entry, directory, path, name, status, made_at)
        else:
            self._check_content(entry, directory, path, name, status)
            is_directory = entry.kind == DIRECTORY
            # A root whose attributes are set last has those of its last entry alone.
            adds_up = is_directory and (path or not self._expected.is_exact)
            xattrs = self._marks.xattrs(path, entry.xattrs) if adds_up else entry.xattrs
            place = place_of(name, directory) if path else self._root
            if not (is_directory and self._marks.forgot):
                self._xattrs.check(path, place, xattrs, entry.mode, made_at=made_at, is_directory=is_directory)
        self._attributes.check(entry, path, status, made_at)

    def _has_type(self, entry: Entry, path: bytes, status: os.stat_result) -> bool:
        kind, word = _TYPES[entry.kind]
        if stat.S_IFMT(status.st_mode) != kind:
            self._findings.add_fault(f"has {shown(path)} that is no {word}")
            return False
        return True

    def _check_content(self, entry: Entry, directory: int, path: bytes, name: bytes, status: os.stat_result) -> None:
        if entry.kind == SYMLINK:
            target = os.readlink(name, dir_fd=directory)
            if target != entry.link:
                self._findings.add_fault(f"has a symlink {shown(path)} to {shown(target)}, not to {shown(entry.link)}")
        elif entry.kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
            found, wanted = (os.major(status.st_rdev), os.minor(status.st_rdev)), (entry.major, entry.minor)
            if found != wanted:
                self._findings.add_fault(f"has {shown(path)} for device {pair(found)}, not {pair(wanted)}")

    # -- files

    def _check_file(
        self, entry: Entry, directory: int, path: bytes, name: bytes, status: os.stat_result, made_at: bytes | None
    ) -> None:
        """Hash the body of a file, and compare what else can be told of an open one."""
        try:
            file = os.open(name, FILE_FLAGS, dir_fd=directory)
        except OSError as error:
            self._findings.add_error(path, error)
            self._whole = False
            return
        try:
            self._add_body(entry, file, path, status.st_size)
            self._xattrs.check(path, file, entry.xattrs, entry.mode, made_at=made_at)
        finally:
            os.close(file)

    def _add_body(self, entry: Entry, file: int, path: bytes, found: int) -> None:
        size = _size(entry)
        if found != size:
            self._findings.add_fault(f"has {shown(path)} of {found} bytes, not {size}")
            self._whole = False
        elif entry.sparse is None:
            self._add_segment(file, path, 0, size)
        else:
            for segment in entry.sparse.segments:
                self._add_segment(file, path, *segment)
            if not has_only_holes(file, entry.sparse):
                self._findings.add_fault(f"has {shown(path)} with bytes where it should have a hole")

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

    # -- what was undone

    def _check_undone(self, entry: Entry, path: bytes, number: int) -> None:
        """Compare what is left of an entry's work with the entry."""
        if entry.kind == DIRECTORY:
            self._undone_directories.add(number)
            self._marks.add_xattrs(path, entry.xattrs)
        elif entry.kind == HARD_LINK:
            self._check_undone_link(entry, number)
        elif entry.kind == FILE and _size(entry):
            self._check_kept(entry, path, number)
        else:
            self._add_origin(number, entry, path)

    def _check_kept(self, entry: Entry, path: bytes, number: int) -> None:
        name, directory = b"%d" % number, self._undone.directory
        shown_as = f"{REPLACED}/{number}".encode()
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            self._inodes.add_file(status.st_nlink)
            self._kept.add(name)
            self._check_as(entry, directory, shown_as, name, status, path)
        except OSError as error:
            self._findings.add_error(shown_as, error)
            self._whole = False

    def _add_origin(self, number: int, entry: Entry, path: bytes) -> None:
        sizes = (len(key) + len(value) for key, value in entry.xattrs.items())
        self._origin_bytes += len(path) + len(entry.link) + sum(sizes)
        if self._origin_bytes <= _MAX_BYTES:
            self._origins[number] = _Origin(entry, path)
        else:
            self._findings.add_unchecked("has hard links to what it replaced itself, too much to be compared")

    def _check_undone_link(self, entry: Entry, number: int) -> None:
        target = self._find_target(clean_path(entry.link))
        if target is None:
            self._kept_is_sure = False
            return
        if isinstance(target, _Origin) or not (stat.S_ISREG(target.st_mode) and target.st_size):
            self._origins[number] = target
            return
        self._kept.add(b"%d" % number)
        self._inodes.add_name()
        path = f"{REPLACED}/{number}".encode()
        try:
            status = os.stat(b"%d" % number, dir_fd=self._undone.directory, follow_symlinks=False)
        except OSError as error:
            self._findings.add_error(path, error)
            return
        self._compare_inodes(entry, path, status, target)

    # -- hard links

    def _is_link_to_itself(self, entry: Entry, path: bytes) -> bool:
        return self._real(path) == self._real(clean_path(entry.link))

    def _real(self, path: bytes) -> bytes:
        """Return a path with the symlinks resolved that lead to its parent; as it is if there is no such directory."""
        parent, _, name = path.rpartition(b"/")
        try:
            return join(self._tree.directory(parent)[1], name)
        except OSError:
            return path

    def _check_hard_link(self, entry: Entry, directory: int, path: bytes, name: bytes, status: os.stat_result) -> None:
        target = self._find_target(clean_path(entry.link))
        if isinstance(target, _Origin):
            if target.status is None:
                target.status = status
                self._inodes.add_file(status.st_nlink)
                self._check_as(target.entry, directory, path, name, status, target.path)
                return
            target = target.status
        self._inodes.add_name()
        if target is not None:
            self._compare_inodes(entry, path, status, target)

    def _compare_inodes(self, entry: Entry, path: bytes, status: os.stat_result, target: os.stat_result) -> None:
        if not os.path.samestat(status, target):
            self._findings.add_fault(f"has {shown(path)} that is no hard link to {shown(entry.link)}")

    def _find_target(self, link: bytes) -> _Origin | os.stat_result | None:
        """Return what the entry found that is a link to ``link``; None if that is not there."""
        number = self._undone.find(link)
        if number is None:
            number = self._undone.find(self._real(link))
        if number in self._origins:
            return self._origins[number]
        try:
            if number is not None:
                return os.stat(b"%d" % number, dir_fd=self._undone.directory, follow_symlinks=False)
            parent, _, name = link.rpartition(b"/")
            return os.stat(name, dir_fd=self._tree.directory(parent)[0], follow_symlinks=False)
        except OSError:
            return None  # if it should be there, its own entry says so

    # -- whiteouts

    def _check_whiteout(self, parent: bytes, name: bytes) -> None:
        is_undone = not name.startswith(WHITEOUT_META_PREFIX) and self._undone.take(join(parent, name)) is not None
        try:
            directory, real = self._tree.directory(parent)
        except OSError as error:
            if not self._undone:  # else it may have been taken out again
                self._findings.add_error(parent, error)
            return
        if name.startswith(WHITEOUT_META_PREFIX):
            if name == OPAQUE_WHITEOUT:
                self._make_opaque(real, parent, real)
        elif is_undone or (real != parent and self._undone.take(join(real, name)) is not None):
            self._note_undone_whiteout(join(real, name.removeprefix(WHITEOUT_PREFIX)), parent, real)
        else:
            self._check_hidden(directory, real, name)

    def _note_undone_whiteout(self, path: bytes, parent: bytes, real: bytes) -> None:
        """Note what a whiteout leaves that made nothing, or that something took the place of: an opaque directory."""
        number = self._undone.find(path)
        is_file_now = number is not None and number not in self._undone_directories
        if self._form != WhiteoutFormat.FILES and not is_file_now:
            self._make_opaque(path, parent, real)

    def _make_opaque(self, path: bytes, parent: bytes, real: bytes) -> None:
        """Note that a directory is opaque, by an entry whose parent is, or was then, ``real``."""
        if real != parent and self._undone.was_taken_out(parent):
            self._unsure.add(path)  # a symlink may have come later to where a directory was
        else:
            self._marks.make_opaque(path)

    def _check_hidden(self, directory: int, parent: bytes, whiteout: bytes) -> None:
        is_file = self._form == WhiteoutFormat.FILES
        name = whiteout if is_file else whiteout.removeprefix(WHITEOUT_PREFIX)
        path, lack = join(parent, name), f"lacks the whiteout {shown(join(parent, whiteout))}"
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            self._findings.add_fault(lack)
            return
        except OSError as error:
            self._findings.add_error(path, error)
            return
        self._names.add(path)
        self._inodes.add_file(status.st_nlink)
        if _is_mark(status) if is_file else is_whiteout(status):
            self._check_ours(directory, path, name, status)
        else:
            self._findings.add_fault(lack)

    def _check_ours(self, directory: int, path: bytes, name: bytes, status: os.stat_result) -> None:
        """Compare what is no entry's own with how it is always made: a whiteout, or a file that is a mark."""
        if not self._expected.is_exact:
            return
        self._attributes.check_owner_of_ours(path, status)
        mode = stat.S_IMODE(status.st_mode)
        if mode & ~(0o600 if stat.S_ISREG(status.st_mode) else 0):
            self._findings.add_fault(f"has a whiteout {shown(path)} with mode {mode:04o}")
        self._xattrs.check(path, place_of(name, directory), {}, mode)

    def _check_marks(self) -> None:
        """Compare the directories that say that they are opaque with those that whiteouts made so."""
        if self._marks.forgot:
            self._findings.add_unchecked("gives directories that it names again more attributes than can be remembered")
            return
        if self._form == WhiteoutFormat.OVERLAY_TRUSTED and not self._xattrs.sees_trusted:
            self._findings.add_unchecked("has opaque directories, which are told with CAP_SYS_ADMIN only")
            return
        wanted = {path for path in self._marks.opaque() if path not in self._unsure and self._is_directory(path)}
        for path in wanted:
            if self._form == WhiteoutFormat.FILES:
                self._check_mark_file(path)
            elif path not in self._xattrs.opaque:
                self._findings.add_fault(f"lacks the whiteout {shown(join(path, OPAQUE_WHITEOUT))}")
        for path in self._xattrs.opaque - wanted - self._unsure:
            self._findings.add_fault(f"has {shown(path)} that is opaque, which no entry made it")

    def _is_directory(self, path: bytes) -> bool:
        try:
            return self._tree.directory(path)[1] == path
        except OSError:
            return False  # its own entry tells

    def _check_mark_file(self, path: bytes) -> None:
        mark = join(path, OPAQUE_WHITEOUT)
        try:
            directory, _ = self._tree.directory(path)
            status = os.stat(OPAQUE_WHITEOUT, dir_fd=directory, follow_symlinks=False)
            self._names.add(mark)
            self._inodes.add_file(status.st_nlink)
            if _is_mark(status):
                self._check_ours(directory, mark, OPAQUE_WHITEOUT, status)
                return
        except FileNotFoundError:
            pass
        self._findings.add_fault(f"lacks the whiteout {shown(mark)}")

    # -- what no entry made

    def _check_implicit_directories(self) -> None:
        if not self._root_is_named:
            self._check_implicit(b"", os.fstat(self._root), self._root)
        for path in self._record.implicit_directories:
            parent, _, name = path.rpartition(b"/")
            try:
                directory, _ = self._tree.directory(parent)
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                self._names.add(path)
                self._check_implicit(path, status, place_of(name, directory))
            except OSError as error:
                self._findings.add_error(path, error)

    def _check_implicit(self, path: bytes, status: os.stat_result, place: int | bytes) -> None:
        if not stat.S_ISDIR(status.st_mode):
            self._findings.add_fault(f"has {shown(path)} that is no directory")
            return
        self._attributes.check_implicit(path, status)
        if not self._marks.forgot:
            self._xattrs.check(
                path, place, self._marks.xattrs(path, {}), stat.S_IMODE(status.st_mode), is_directory=True
            )

    def _check_names(self) -> None:
        """Find what no entry made, and what entries made apart that is one file now."""
        if self._findings.has_unread:
            return
        found = Names()
        try:
            for path in self._tree.walk():
                found.add(path)
            self._check_kept_names()
            joined = self._inodes.find_joined(self._look) if not self._findings.has_faults else 0
        except OSError as error:
            self._findings.add_error(b"", error)
            return
        more = found.count - self._names.count
        if more == 1:
            stranger = next((path for path in self._tree.walk() if found.is_without(path, self._names)), b"")
            self._findings.add_fault(f"has {shown(stranger)}, which no entry made")
        elif more > 1:
            self._findings.add_fault(f"has {more} files or directories that no entry made")
        elif joined > 0:
            self._findings.add_fault(f"has {joined} files that are hard links to others, which no entry made them")

    def _check_kept_names(self) -> None:
        found = Names()
        for name in self._undone.names():
            found.add(name)
        if found.count > self._kept.count and self._kept_is_sure:
            self._findings.add_fault(f"has {found.count - self._kept.count} files in {REPLACED} that nothing replaced")

    def _look(self) -> Iterator[os.stat_result]:
        """Yield what each name of a file, of all that is no directory, leads to."""
        for path in self._tree.walk():
            parent, _, below = path.rpartition(b"/")
            status = os.stat(below, dir_fd=self._tree.directory(parent)[0], follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                yield status
        for name in self._undone.names():
            yield os.stat(name, dir_fd=self._undone.directory, follow_symlinks=False)


def _size(entry: Entry) -> int:
    return entry.size if entry.sparse is None else entry.sparse.size_bytes


def _is_mark(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and not status.st_size
