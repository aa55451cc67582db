"""What directories get when a layer is complete: modes, times, owners, default ACLs.

Until then a directory is ours and passable: a process that may give directories away could perhaps not write into them
any more, each new file changes the time, and files inherit a default ACL and a set-group-ID bit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pykka_imagestore.core.tar.format import Entry
from pykka_imagestore.fs.attributes import ACL, DEFAULT_ACL, SET_ID, Attributes, check_owner
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.jobs.unpack.memory_limit import MemoryLimit

IMPLICIT_MODE = 0o755

_DIRECTORY_BYTES = 248  # of memory, beside the path
_OWNER_BYTES = 120


@dataclass(frozen=True, slots=True)
class LateMetadata:
    """What a directory gets last.

    Attributes:
        mode: None if the directory was made with it.
        owner: None if it is this process.
        implicit: No entry named the directory.
        default_acl: None if it has none.
    """

    mode: int | None
    mtime_ns: int
    owner: tuple[int, int] | None = None
    implicit: bool = False
    default_acl: bytes | None = None


class Directories:
    """Makes directories, remembers what each is to get, and gives it to them at the end.

    Args:
        root: Descriptor of the root directory.
        memory: What it remembers counts there.
        keep_root: Leave owner, mode and extended attributes of the root as they are, whatever an entry says of it.

    Attributes:
        late: What each directory gets last, by path.
        root_mode: The mode that the root's entry says; None if no entry is the root's.
    """

    def __init__(self, root: int, attributes: Attributes, memory: MemoryLimit, *, keep_root: bool) -> None:
        self.root_mode: int | None = None
        self._late: dict[bytes, LateMetadata] = {}
        self.late: Mapping[bytes, LateMetadata] = self._late
        self._root = root
        self._attributes = attributes
        self._memory = memory
        self._keep_root = keep_root
        self._root_entry: Entry | None = None
        if not keep_root:
            self._remember(b"", LateMetadata(None, 0, implicit=True))

    def make(self, name: bytes, mode: int, parent: int) -> None:
        """Make a directory that is passable for now."""
        if self._attributes.umask & stat.S_IRWXU:
            make_directory(name, early_mode(mode), parent)  # or nothing could be put into it
        else:
            os.mkdir(name, early_mode(mode), dir_fd=parent)

    def add(self, entry: Entry, path: bytes, *, existed: bool) -> None:
        """Remember what an entry says of a directory; the last entry of a path wins.

        Args:
            existed: Whether the entry did not make it.

        Raises:
            TarError: The entry has an owner that there cannot be.
            OverLimitError: There are too many directories.
        """
        owner = entry.uid, entry.gid
        is_ours = owner == self._attributes.owner
        if not is_ours:
            check_owner(entry)
        made_with = early_mode(entry.mode) & ~self._attributes.umask
        mode = entry.mode if existed or entry.mode != made_with or ACL in entry.xattrs else None
        acl = None
        if existed or entry.xattrs:
            before = self._late.get(path)
            acl = entry.xattrs.get(DEFAULT_ACL, None if before is None else before.default_acl)
        self._remember(path, LateMetadata(mode, entry.mtime_ns, None if is_ours else owner, default_acl=acl))

    def add_implicit(self, path: bytes) -> None:
        """Remember a directory that was made because entries lie below it."""
        mode = IMPLICIT_MODE if IMPLICIT_MODE & self._attributes.umask else None
        self._remember(path, LateMetadata(mode, 0, implicit=True))

    def add_root(self, entry: Entry) -> None:
        """Remember what an entry says of the root directory."""
        # Its attributes come last too, since an access control list would let others in before.
        check_owner(entry)
        self.root_mode, self._root_entry = entry.mode, entry
        if self._keep_root:
            self._remember(b"", LateMetadata(None, entry.mtime_ns))
            return
        owner = entry.uid, entry.gid
        others = None if owner == self._attributes.owner else owner
        self._remember(b"", LateMetadata(entry.mode, entry.mtime_ns, others, default_acl=entry.xattrs.get(DEFAULT_ACL)))

    def forget(self, path: bytes) -> None:
        """Forget a directory that is gone."""
        late = self._late.pop(path, None)
        if late is not None:
            self._memory.give_back(_memory_of(path, late))

    def is_explicit(self, path: bytes) -> bool:
        """Tell whether a directory is one that an entry named."""
        late = self._late.get(path)
        return late is not None and not late.implicit

    @property
    def implicit_root(self) -> bool:
        """Whether no entry named the root."""
        return self._late[b""].implicit if b"" in self._late else False

    def implicit(self) -> tuple[bytes, ...]:
        """Return the paths of all directories that no entry named, but the root's."""
        return tuple(sorted(path for path, late in self._late.items() if late.implicit and path))

    def deepest_first(self) -> list[bytes]:
        """Return the paths of all directories in the order in which they are finished."""
        return sorted(self._late, reverse=True)

    def finish(self, path: bytes, find: Callable[[bytes], int]) -> None:
        """Give a directory what it gets last; nothing more may come into it.

        Args:
            find: Returns the descriptor of a directory that is there.
        """
        late = self._late[path]
        if not path and self._root_entry is not None and not self._keep_root:
            self._attributes.set_xattrs(self._root_entry, b"", self._root, is_directory=True)
        if late.default_acl is not None:
            self._attributes.set_xattr(path, find(path), DEFAULT_ACL, late.default_acl)
        if late.mode is not None:
            os.fchmod(find(path), late.mode)
        parent, _, name = path.rpartition(b"/")
        where = find(parent) if path else None
        date = (late.mtime_ns, late.mtime_ns)
        if where is None:
            os.utime(self._root, ns=date)
        else:
            os.utime(name, ns=date, dir_fd=where, follow_symlinks=False)
        if late.owner is None or self._attributes.chown(late.owner, path, name if path else self._root, where):
            return
        if late.mode is not None and late.mode & SET_ID:  # these bits speak of the owner
            os.fchmod(find(path), late.mode & ~SET_ID)
            self._attributes.leave_unset(path, "mode")

    def _remember(self, path: bytes, late: LateMetadata) -> None:
        self.forget(path)
        self._late[path] = late
        self._memory.take(_memory_of(path, late), "directory")


def early_mode(mode: int) -> int:
    """Return what a directory is made with: passable, and without set-group-ID, which its files would inherit."""
    return mode & 0o777 | stat.S_IRWXU


def _memory_of(path: bytes, late: LateMetadata) -> int:
    # The path of an implicit directory goes into the layer's record too, as it is and serialized.
    owner = 0 if late.owner is None else _OWNER_BYTES
    acl = 0 if late.default_acl is None else len(late.default_acl)
    return _DIRECTORY_BYTES + owner + acl + len(path) * (4 if late.implicit else 1)
