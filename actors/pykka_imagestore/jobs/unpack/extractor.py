"""Writes a layer's entries below one directory, and nowhere else.

Works on directory descriptors, one path component a call, and follows no symlink: what a name, a link or a replaced
directory says, no call can reach outside. A parent that is a symlink is resolved by hand, as if the directory were
``/``.

System calls an entry: a file is opened with its final mode, written, dated and closed; ownership is set only where
it differs. Directories get their modes, times and owners last, when nothing more comes into them: until then they are
ours, and whoever may give them away could perhaps not write into them any more.

Spec:
    OCI image-spec v1.1, layer.md, "Applying Changesets" and "Whiteouts"; Linux, filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
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
    OverLimitError,
    SparseMap,
    TarError,
    clean_path,
)
from pykka_imagestore.fs.attributes import (
    ACL,
    DEFAULT_ACL,
    NODE_TYPES,
    SET_ID,
    Attributes,
    Outcome,
    check_owner,
    entry_fault,
    join,
)
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.made import make_directory
from pykka_imagestore.fs.remove_tree import remove_directory
from pykka_imagestore.fs.walk import FREE_LOOKUPS, Found, Policy, SymlinkLoopError, Walk
from pykka_imagestore.fs.whiteouts import (
    OPAQUE_WHITEOUT,
    OPAQUE_XATTRS,
    WHITEOUT_DEVICE,
    WHITEOUT_META_PREFIX,
    WHITEOUT_PREFIX,
    choose_whiteout_format,
    is_whiteout,
    whiteout_of,
)
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream
from pykka_imagestore.jobs.unpack.leader import Helpers
from pykka_imagestore.jobs.unpack.replaced import Replaced

IMPLICIT_MODE = 0o755

_DISK_BLOCK = 4096
_INODE_BYTES = 256  # of ext4, by default; it has no more of them for the disk's size than it was made with
_NAME_BYTES = 12  # of a name in a directory of ext4, beside it: its head, and what it is rounded up by
_XATTR_BYTES = 22  # of an attribute, beside name and value
_INODE_XATTR_BYTES = 92  # of attributes, which ext4 has room for in an inode
_EXTENTS_IN_INODE, _EXTENTS_IN_BLOCK = 4, 170  # of a file; a block is half full where a tree of them was split
_LONGEST_INLINE_TARGET = 59  # bytes of a symlink's; ext4 has them in the inode
_DIRECTORY_BYTES = 248  # of memory, beside the path
_OWNER_BYTES = 120
_NOWHERE = Found(-1, b"")


@dataclass(slots=True)
class _DirectoryTimes:
    """What a directory gets last.

    Attributes:
        mode: None if it was made with it.
        owner: None if that is whoever made it.
        implicit: No entry named it.
        default_acl: None if it has none.
    """

    mode: int | None
    mtime_ns: int
    owner: tuple[int, int] | None = None
    implicit: bool = False
    default_acl: bytes | None = None


class Extractor:
    """Unpacks entries below the directory ``root``, which is empty and belongs to nobody else.

    Args:
        keep_root: Leave owner, mode and extended attributes of ``root`` as they are, whatever an entry says of it.

    Throughout, ``directory`` is the descriptor of an entry's parent, ``parent`` that parent's path without symlinks.
    """

    def __init__(
        self,
        root: int,
        outcome: Outcome,
        limits: Limits = DEFAULT_LIMITS,
        helpers: Helpers | None = None,
        replaced: Replaced | None = None,
        *,
        keep_root: bool = False,
    ) -> None:
        self.outcome = outcome
        self._keep_root = keep_root
        self._root_entry: Entry | None = None
        self._replaced = Replaced(None, outcome) if replaced is None else replaced
        self._helpers = helpers
        self._pending: AbstractSet[bytes] = frozenset() if helpers is None else helpers.pending
        self._root = root
        self._limits = limits
        self._blocks = self._inodes = 1  # of disk; the root directory's
        self._names_bytes = 0
        self._lookups = self._memory_bytes = self._hole_bytes = 0
        self._walk = Walk(root, Policy(self._visit, self._note_symlink, self._make_implicit_directory, self._make_way))
        self._times: dict[bytes, _DirectoryTimes] = {}
        self._attributes = Attributes(self.outcome)
        self._make: dict[int, Callable[[Entry, int, bytes, bytes], None]] = {
            DIRECTORY: self._make_directory,
            SYMLINK: self._make_symlink,
            HARD_LINK: self._make_hard_link,
            CHARACTER_DEVICE: self._make_node,
            BLOCK_DEVICE: self._make_node,
            FIFO: self._make_node,
        }
        if not keep_root:
            self._remember(b"", _DirectoryTimes(None, 0, implicit=True))

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
        self.outcome.entries += 1

    def finish(self) -> Outcome:
        """Give the directories their modes and times, deepest first; return what became of the layer."""
        self._wait()
        self._walk.forget()
        for path in sorted(self._times, reverse=True):
            self._finish_directory(path, self._times[path])
        self.outcome.inodes = self._inodes
        self.outcome.stored_bytes = self._blocks * _DISK_BLOCK + self._inodes * _INODE_BYTES + self._directory_bytes()
        self.outcome.implicit_directories = sorted(
            path for path, times in self._times.items() if times.implicit and path
        )
        return self.outcome

    def first_fault(self, error: TarError) -> TarError:
        """Return what is wrong with the layer, given what was found wrong: earlier entries may be in other hands."""
        faults = [error]
        while True:
            try:
                self._wait()
            except TarError as other:
                faults.append(other)
            else:
                return min(faults, key=lambda fault: fault.where or _LAST)

    def close(self) -> None:
        """Close all directories but the root."""
        self._walk.forget()

    def _extract(self, entry: Entry, stream: LayerStream) -> None:
        above, _, name = entry.name.rpartition(b"/")
        found = self._walk.known(above)
        if found is None or name in _NO_NAMES:
            found, name = self._find_parent(entry)
        directory, parent, _ = found
        if self._pending:
            self._settle(join(parent, name))
        self._names_bytes += len(name)
        if entry.xattrs:
            self._blocks += _xattr_blocks(entry.xattrs)
        if directory < 0:
            stream.skip(entry.size)
        elif name[:4] == WHITEOUT_PREFIX:
            stream.skip(entry.size)
            self._apply_whiteout(directory, parent, name)
        elif entry.kind == FILE and name:
            self._make_file(entry, directory, parent, name, stream)
        elif name:
            self._make[entry.kind](entry, directory, parent, name)
        elif entry.kind == DIRECTORY:
            self._take_root_entry(entry)
        else:
            # By a symlink, through which all that follows would go (umoci, CVE-2021-29136).
            msg = "would replace the root directory"
            raise TarError(msg)

    def _find_parent(self, entry: Entry) -> tuple[Found, bytes]:
        """Return an entry's parent, and its name in there; the name of the root is empty."""
        self._walk.make_room()
        parent, _, name = clean_path(entry.name).rpartition(b"/")
        if parent.startswith(WHITEOUT_META_PREFIX):
            return _NOWHERE, name
        found = self._directory(parent)
        above, _, last = entry.name.rpartition(b"/")
        if last not in _NO_NAMES:
            self._walk.remember(above, found)
        return found, name

    # -- one method for each type

    def _make_file(self, entry: Entry, directory: int, parent: bytes, name: bytes, stream: LayerStream) -> None:
        self._inodes += 1
        self._blocks += -(-entry.size // _DISK_BLOCK) if entry.sparse is None else _sparse_blocks(entry.sparse)
        if self._helpers is not None and self._helpers.have_come:
            path = join(parent, name)
            if self._can_be_handed_on(entry, path) and self._helpers.take(entry, parent, name, path, stream):
                return
        try:
            file = self._attributes.create_file(entry, directory, name)
        except FileExistsError:
            directory = self._clear(directory, parent, name)
            file = self._attributes.create_file(entry, directory, name)
        try:
            if entry.sparse is not None:
                self._count_sparse(entry.sparse, entry.size, stream)
                _write_sparse(entry.sparse, file, stream)
            elif entry.size:
                stream.write_to(file, entry.size)
            self._attributes.finish_file(entry, parent, name, file)
        finally:
            os.close(file)

    def _can_be_handed_on(self, entry: Entry, path: bytes) -> bool:
        """Tell whether a helper, who knows no other entry, would make the same file."""
        return not (path in self._times or path in self._walk.followed or entry.xattrs or entry.sparse)

    def _make_directory(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        existed = False
        try:
            self._mkdir(name, _directory_mode(entry.mode), directory)
        except FileExistsError:
            existed = stat.S_ISDIR(_lstat(name, directory).st_mode)
            if not existed:
                self._replace_by_directory(directory, parent, name, _directory_mode(entry.mode))
        if not existed:
            self._blocks += 1
            self._inodes += 1
        self._set_directory_metadata(entry, join(parent, name), existed=existed)

    def _make_symlink(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        try:
            os.symlink(entry.link, name, dir_fd=directory)
        except FileExistsError:
            directory = self._clear(directory, parent, name)
            os.symlink(entry.link, name, dir_fd=directory)
        self._inodes += 1
        if len(entry.link) > _LONGEST_INLINE_TARGET:
            self._blocks += 1
        self._attributes.finish_node(entry, join(parent, name), name, directory)

    def _make_hard_link(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        target_parent, _, target = clean_path(entry.link).rpartition(b"/")
        path = join(parent, name)
        try:
            target_directory, real_parent, _ = self._directory(target_parent, make=False)
            source = join(real_parent, target)
            self._settle(source)
            if not target or _is_whiteout_or_directory(_lstat(target, target_directory)):
                raise FileNotFoundError
            if source == path:
                return
            if _exists(name, directory):
                directory = self._clear(directory, parent, name)
                target_directory = self._directory(target_parent, make=False).directory
            self._attributes.link(target, target_directory, name, directory)
        except (FileNotFoundError, NotADirectoryError) as error:
            msg = f"is a hard link to {entry.link.decode('utf-8', 'backslashreplace')!r}, no file of this layer"
            raise TarError(msg) from error
        self._walk.make_room()  # links in one directory may lead to files in as many others

    def _make_node(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        if entry.kind == CHARACTER_DEVICE and entry.major == entry.minor == 0:
            self._apply_whiteout(directory, parent, WHITEOUT_PREFIX + name)  # which is what overlayfs takes it for
            return
        if _exists(name, directory):
            directory = self._clear(directory, parent, name)
        try:
            mode = NODE_TYPES[entry.kind] | entry.mode & ~SET_ID
            os.mknod(name, mode, os.makedev(entry.major, entry.minor), dir_fd=directory)
        except PermissionError:
            self.outcome.leave_unset(join(parent, name), "device")
            self._replaced.note(join(parent, name))
            return
        self._inodes += 1
        self._attributes.finish_node(entry, join(parent, name), name, directory)

    # -- metadata

    def _directory_bytes(self) -> int:
        """Return what names take in directories, of which ext4 leaves up to a half empty."""
        return 2 * (self._names_bytes + self.outcome.entries * _NAME_BYTES)

    def _take_root_entry(self, entry: Entry) -> None:
        # Its attributes come last too, since an access control list would let others in before.
        check_owner(entry)
        self._note_if_explicit(b"")
        owner = None if self._keep_root or (entry.uid, entry.gid) == self._attributes.owner else (entry.uid, entry.gid)
        acl = None if self._keep_root else entry.xattrs.get(DEFAULT_ACL)
        mode = None if self._keep_root else entry.mode
        self._remember(b"", _DirectoryTimes(mode, entry.mtime_ns, owner, default_acl=acl))
        self.outcome.root_mode, self._root_entry = entry.mode, entry

    def _set_directory_metadata(self, entry: Entry, path: bytes, *, existed: bool) -> None:
        if existed:
            self._note_if_explicit(path)
        owner = entry.uid, entry.gid
        is_ours = owner == self._attributes.owner
        if not is_ours:
            check_owner(entry)
        if entry.xattrs:
            self._attributes.set_xattrs(entry, path, self._directory(path).directory, is_directory=True)
        made_with = _directory_mode(entry.mode) & ~self._attributes.umask
        mode = entry.mode if existed or entry.mode != made_with or ACL in entry.xattrs else None
        times = _DirectoryTimes(mode, entry.mtime_ns, None if is_ours else owner)
        if existed or entry.xattrs:
            before = self._times.get(path)
            times.default_acl = entry.xattrs.get(DEFAULT_ACL, None if before is None else before.default_acl)
        self._remember(path, times)

    def _remember(self, path: bytes, times: _DirectoryTimes) -> None:
        self._forget_directory(path)
        self._times[path] = times
        self._memory_bytes += _memory_of(path, times)
        if self._memory_bytes > self._limits.memory_bytes:
            count = f"{len(self._times)} directories and their paths"
            msg = f"is one directory too many: {count} take all of {self._limits.memory_bytes} bytes of memory"
            raise OverLimitError(msg, "memory_bytes")

    def _count_sparse(self, sparse: SparseMap, body_bytes: int, stream: LayerStream) -> None:
        self._hole_bytes += sparse.size_bytes - body_bytes
        total = self._hole_bytes + stream.size_bytes
        if total > self._limits.layer_bytes:
            msg = f"brings the layer to {total} bytes, holes included; {self._limits.layer_bytes} is the limit"
            raise OverLimitError(msg, "layer_bytes")

    def _finish_directory(self, path: bytes, times: _DirectoryTimes) -> None:
        self._walk.make_room()
        parent, _, name = path.rpartition(b"/")
        mode = times.mode
        if not path and self._root_entry is not None and not self._keep_root:
            self._attributes.set_xattrs(self._root_entry, b"", self._root, is_directory=True)
        if times.default_acl is not None:
            self._attributes.set_xattr(
                path, self._directory(path, make=False).directory, DEFAULT_ACL, times.default_acl
            )
        if mode is not None:
            os.fchmod(self._directory(path, make=False).directory, mode)
        where = self._directory(parent, make=False).directory if path else None
        date = (times.mtime_ns, times.mtime_ns)
        if where is None:
            os.utime(self._root, ns=date)
        else:
            os.utime(name, ns=date, dir_fd=where, follow_symlinks=False)
        if times.owner is None or self._attributes.chown(times.owner, path, name if path else self._root, where):
            return
        if mode is not None and mode & SET_ID:
            os.fchmod(self._directory(path, make=False).directory, mode & ~SET_ID)
            self.outcome.leave_unset(path, "mode")

    # -- whiteouts

    def _apply_whiteout(self, directory: int, parent: bytes, name: bytes) -> None:
        if self.outcome.whiteouts == WhiteoutFormat.NONE:
            self.outcome.whiteouts = choose_whiteout_format(self._root)
        if name == OPAQUE_WHITEOUT:
            self._make_opaque(directory)
        elif not name.startswith(WHITEOUT_META_PREFIX):
            self._hide(directory, parent, name.removeprefix(WHITEOUT_PREFIX))

    def _hide(self, directory: int, parent: bytes, name: bytes) -> None:
        if name in (b"", b".", b".."):
            msg = "is a whiteout of nothing"
            raise TarError(msg)
        self._settle(join(parent, name))
        self._inodes += 1
        try:
            if self.outcome.whiteouts == WhiteoutFormat.FILES:
                _touch(WHITEOUT_PREFIX + name, directory)
            else:
                os.mknod(name, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=directory)
        except FileExistsError:
            self._replaced.note(whiteout_of(join(parent, name)))
            # A whiteout speaks of lower layers only. A file of this layer hides what was there; a directory must say
            # so.
            if self.outcome.whiteouts != WhiteoutFormat.FILES and stat.S_ISDIR(_lstat(name, directory).st_mode):
                self._make_opaque(self._directory(join(parent, name)).directory)

    def _make_opaque(self, directory: int) -> None:
        if self.outcome.whiteouts == WhiteoutFormat.FILES:
            self._inodes += 1
            with suppress(FileExistsError):
                _touch(OPAQUE_WHITEOUT, directory)
        else:
            os.setxattr(directory, OPAQUE_XATTRS[self.outcome.whiteouts], b"y")

    # -- what is there already

    def _settle(self, path: bytes) -> None:
        """Have a file that was handed over made before something else is done with its path."""
        if path in self._pending:
            self._wait()

    def _wait(self) -> None:
        if self._helpers is not None:
            self._helpers.wait()

    def _clear(self, directory: int, parent: bytes, name: bytes) -> int:
        """Take out what an earlier entry put there, since the last wins; return ``directory``, perhaps opened anew."""
        kind = stat.S_IFMT(_lstat(name, directory).st_mode)
        if kind in (stat.S_IFDIR, stat.S_IFLNK):
            self._wait()
            self._walk.forget()  # some directories may lie below it, or be reached through it
            directory = self._directory(parent).directory
            if self._helpers is not None:
                self._helpers.forget_directories()
        if kind == stat.S_IFDIR:
            self._clear_directory(directory, parent, name)
        else:
            self._replaced.take_out(join(parent, name), name, directory)
        return directory

    def _clear_directory(self, directory: int, parent: bytes, name: bytes) -> None:
        def forget(below: bytes) -> None:
            self._note_if_explicit(join(parent, below))
            self._forget_directory(join(parent, below))

        def take_out(below: bytes, name: bytes, directory: int) -> None:
            self._replaced.take_out(join(parent, below), name, directory)

        self._replaced.note_directory(join(parent, name))
        remove_directory(name, directory, forget, take_out)

    def _note_if_explicit(self, path: bytes) -> None:
        """Note that a directory is not any more what the entry said that named it, if one did."""
        times = self._times.get(path)
        if times is not None and not times.implicit:
            self._replaced.note(path)

    def _replace_by_directory(self, directory: int, parent: bytes, name: bytes, mode: int) -> None:
        hidden = is_whiteout(_lstat(name, directory))
        directory = self._clear(directory, parent, name)
        self._mkdir(name, mode, directory)
        if hidden:
            self._make_opaque(self._directory(join(parent, name)).directory)

    # -- directories

    def _directory(self, path: bytes, *, make: bool = True) -> Found:
        """Return a directory, by default made if it is missing; its descriptor is good until the next entry."""
        self._refuse_depth(path)
        try:
            return self._walk.directory(path, make=make)
        except SymlinkLoopError as error:
            msg = f"has a parent behind {error.strerror}"
            raise TarError(msg) from error

    def _refuse_depth(self, path: bytes) -> None:
        if path.count(b"/") >= self._limits.depth:
            msg = f"lies below {path.count(b'/') + 1} directories; {self._limits.depth} is the limit"
            raise OverLimitError(msg, "depth")

    def _visit(self, path: bytes) -> None:
        self._count_lookup()
        self._refuse_depth(path)  # which a symlink makes of a short path, too
        self._settle(path)

    def _note_symlink(self) -> None:
        if not self._replaced.followed:
            self._wait()  # what these replace was there before
            self._replaced.followed = True

    def _make_way(self, directory: int, parent: bytes, name: bytes, there: os.stat_result) -> None:
        """Make an implicit directory where a whiteout is; nothing else of this layer becomes one."""
        path = join(parent, name)
        _refuse_whiteout(name)
        if not is_whiteout(there):
            msg = f"has a parent {path.decode('utf-8', 'backslashreplace')!r} that is no directory"
            raise TarError(msg)
        self._replaced.take_out(path, name, directory)
        self._make_implicit_directory(directory, parent, name)
        below = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
        try:
            self._make_opaque(below)
        finally:
            os.close(below)

    def _make_implicit_directory(self, directory: int, parent: bytes, name: bytes) -> None:
        _refuse_whiteout(name)
        self._blocks += 1
        self._inodes += 1
        self._names_bytes += len(name) + _NAME_BYTES
        self._mkdir(name, IMPLICIT_MODE, directory)
        mode = IMPLICIT_MODE if IMPLICIT_MODE & self._attributes.umask else None
        self._remember(join(parent, name), _DirectoryTimes(mode, 0, implicit=True))

    def _mkdir(self, name: bytes, mode: int, directory: int) -> None:
        if self._attributes.umask & stat.S_IRWXU:
            make_directory(name, mode, directory)  # or we could not put anything into it
        else:
            os.mkdir(name, mode, dir_fd=directory)

    def _count_lookup(self) -> None:
        """Bound how long it takes to find parents: what is far apart, or behind symlinks, is found anew each time."""
        self._lookups += 1
        if self._lookups > FREE_LOOKUPS + self._limits.lookups * self.outcome.entries:
            msg = f"is one of {self.outcome.entries} entries whose parents took {self._lookups} directories to find"
            raise OverLimitError(f"{msg}; {self._limits.lookups} for each is the limit", "lookups")

    def _forget_directory(self, path: bytes) -> None:
        times = self._times.pop(path, None)
        if times is not None:
            self._memory_bytes -= _memory_of(path, times)


_NO_NAMES = (b"", b".", b"..")
_LAST = (sys.maxsize, b"")  # where the entry at hand is, seen from those that were handed on


def _memory_of(path: bytes, times: _DirectoryTimes) -> int:
    # The path of an implicit directory goes into the layer's record too, as it is and serialized.
    owner = 0 if times.owner is None else _OWNER_BYTES
    acl = 0 if times.default_acl is None else len(times.default_acl)
    return _DIRECTORY_BYTES + owner + acl + len(path) * (4 if times.implicit else 1)


def _sparse_blocks(sparse: SparseMap) -> int:
    """Return the blocks that a sparse file takes, one for a segment of a byte, and for the list of its extents."""
    blocks = sum(
        (offset + size - 1) // _DISK_BLOCK - offset // _DISK_BLOCK + 1 for offset, size in sparse.segments if size
    )
    extents = len(sparse.segments)
    return blocks + (-(-extents // _EXTENTS_IN_BLOCK) if extents > _EXTENTS_IN_INODE else 0)


def _xattr_blocks(xattrs: Mapping[bytes, bytes]) -> int:
    size = sum(_XATTR_BYTES + len(key) + len(value) for key, value in xattrs.items())
    return -(-size // _DISK_BLOCK) if size > _INODE_XATTR_BYTES else 0


def _write_sparse(sparse: SparseMap, file: int, stream: LayerStream) -> None:
    """Write a body where it belongs; what is never written are holes, the last of them too."""
    for offset, size in sparse.segments:
        os.lseek(file, offset, os.SEEK_SET)
        stream.write_to(file, size)
    os.ftruncate(file, sparse.size_bytes)


def _refuse_whiteout(directory: bytes) -> None:
    if directory.startswith(WHITEOUT_PREFIX):
        msg = "lies below a whiteout"
        raise TarError(msg)


def _directory_mode(mode: int) -> int:
    """Return what a directory is made with: passable until the end, without set-group-ID, which its files inherit."""
    return mode & 0o777 | stat.S_IRWXU


def _lstat(name: bytes, directory: int) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _is_whiteout_or_directory(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) or is_whiteout(status)


def _exists(name: bytes, directory: int) -> bool:
    try:
        _lstat(name, directory)
    except FileNotFoundError:
        return False
    return True


def _touch(name: bytes, directory: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o600, dir_fd=directory))
