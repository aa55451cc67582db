"""The tree that a layer is unpacked into: finds an entry's parent in it, and clears what stands in an entry's way.

A parent that is missing is made. A parent that is a symlink is resolved by hand, as if the root directory were ``/``.
Files that peers are still making are pending; before anything is done at the path of one, they are waited for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.tar.format import Entry, OverLimitError, TarError, clean_path
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.remove_tree import remove_directory
from pykka_imagestore.fs.walk import FREE_LOOKUPS, Found, Policy, SymlinkLoopError, Walk
from pykka_imagestore.fs.whiteout_format import WHITEOUT_META_PREFIX, WHITEOUT_PREFIX, is_whiteout
from pykka_imagestore.jobs.unpack.directories import IMPLICIT_MODE, Directories
from pykka_imagestore.jobs.unpack.disk_use import DiskUse
from pykka_imagestore.jobs.unpack.leader import Leader
from pykka_imagestore.jobs.unpack.lower_links import LowerLinks
from pykka_imagestore.jobs.unpack.replaced import Replaced
from pykka_imagestore.jobs.unpack.whiteout_writer import WhiteoutWriter

NO_NAMES = (b"", b".", b"..")

_NOWHERE = Found(-1, b"")


class Tree:
    """A layer's tree below ``root``, a descriptor that it does not close.

    Throughout, ``directory`` is the descriptor of an entry's parent, ``parent`` that parent's path without symlinks.

    Args:
        count_entries: Returns how many entries were unpacked.
        lower_links: Those of the layer; where one is, no directory can be made.

    Attributes:
        known: Returns the place of a directory that is remembered by that path; else None.
        followed: The paths of the symlinks that lead to what is remembered.
    """

    def __init__(
        self,
        root: int,
        limits: Limits,
        count_entries: Callable[[], int],
        *,
        leader: Leader,
        directories: Directories,
        whiteouts: WhiteoutWriter,
        lower_links: LowerLinks,
        replaced: Replaced,
        disk_use: DiskUse,
    ) -> None:
        self._limits = limits
        self._count_entries = count_entries
        self._leader = leader
        self._directories = directories
        self._whiteouts = whiteouts
        self._lower_links = lower_links
        self._replaced = replaced
        self._disk_use = disk_use
        self._walk = Walk(root, Policy(self._visit, self._follow, self._make_implicit, self._make_way))
        self._lookups = 0
        self.known = self._walk.known
        self.followed = self._walk.followed

    def close(self) -> None:
        """Close all directories but the root."""
        self._walk.forget()

    def make_room(self) -> None:
        """Close directories if many are open: a descriptor that was returned before is good no more."""
        self._walk.make_room()

    def find_parent(self, entry: Entry) -> tuple[Found, bytes]:
        """Return an entry's parent, made if it is missing, and the entry's name in there.

        The name of the root is empty. The descriptor of a parent of what is no content is negative.
        """
        self._walk.make_room()
        parent, _, name = clean_path(entry.name).rpartition(b"/")
        if parent.startswith(WHITEOUT_META_PREFIX):
            return _NOWHERE, name
        found = self.directory(parent)
        spelled, _, last = entry.name.rpartition(b"/")
        if last not in NO_NAMES:
            self._walk.remember(spelled, found)
        return found, name

    def directory(self, path: bytes, *, make: bool = True) -> Found:
        """Return a directory, by default made if it is missing; its descriptor is good until the next entry."""
        self._refuse_depth(path)
        try:
            return self._walk.directory(path, make=make)
        except SymlinkLoopError as error:
            msg = f"has a parent behind {error.strerror}"
            raise TarError(msg) from error

    def resolve(self, path: bytes) -> bytes:
        """Return a path without symlinks, as far as it is there, and the rest as it is."""
        self._refuse_depth(path)
        try:
            return self._walk.resolve(path)
        except SymlinkLoopError as error:
            msg = f"leads behind {error.strerror}"
            raise TarError(msg) from error

    def settle(self, path: bytes) -> None:
        """Have a file that was handed over made before something else is done at its path."""
        if path in self._leader.pending:
            self._leader.wait()

    def clear(self, directory: int, parent: bytes, name: bytes) -> int:
        """Remove what an earlier entry made, since the last wins; return ``directory``, perhaps opened anew."""
        kind = stat.S_IFMT(lstat(name, directory).st_mode)
        if kind in (stat.S_IFDIR, stat.S_IFLNK):
            self._leader.wait()
            # Some directories may lie below it, or be reached through it.
            self._walk.forget()
            self._leader.forget_directories()
            directory = self.directory(parent).directory
        if kind == stat.S_IFDIR:
            self._clear_directory(directory, parent, name)
        else:
            self._replaced.set_aside(join(parent, name), name, directory)
        return directory

    def note_if_explicit(self, path: bytes) -> None:
        """Note that a directory is not what the entry said that named it any more, if one did."""
        if self._directories.is_explicit(path):
            self._replaced.note(path)

    def _clear_directory(self, directory: int, parent: bytes, name: bytes) -> None:
        def forget(below: bytes) -> None:
            path = join(parent, below)
            self.note_if_explicit(path)
            self._directories.forget(path)
            self._whiteouts.forget(path)
            if self._lower_links.drop_all_in(path):
                self._replaced.lose()

        def set_aside(below: bytes, name: bytes, directory: int) -> None:
            self._replaced.set_aside(join(parent, below), name, directory)

        self._replaced.note_directory(join(parent, name))
        remove_directory(name, directory, forget, set_aside)

    # -- what happens on the way to a directory

    def _visit(self, path: bytes) -> None:
        self._count_lookup()
        self._refuse_depth(path)  # a symlink may make a deep path of a short one
        self.settle(path)

    def _follow(self) -> None:
        if not self._replaced.has_followed:
            self._leader.wait()  # what pending files replace was there before
            self._replaced.follow()

    def _make_implicit(self, directory: int, parent: bytes, name: bytes) -> None:
        _refuse_whiteout(name)
        if self._lower_links.find(join(parent, name)) is not None:
            raise _no_directory(join(parent, name))
        self._disk_use.add_directory()
        self._disk_use.add_name(name, {})
        self._directories.make(name, IMPLICIT_MODE, directory)
        self._directories.add_implicit(join(parent, name))

    def _make_way(self, directory: int, parent: bytes, name: bytes, there: os.stat_result) -> None:
        """Make an implicit directory where a whiteout is; nothing else of this layer becomes one."""
        path = join(parent, name)
        _refuse_whiteout(name)
        if not is_whiteout(there):
            raise _no_directory(path)
        self._replaced.set_aside(path, name, directory)
        self._make_implicit(directory, parent, name)
        below = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
        try:
            self._whiteouts.make_opaque(path, below)
        finally:
            os.close(below)

    # -- limits

    def _refuse_depth(self, path: bytes) -> None:
        if path.count(b"/") >= self._limits.depth:
            msg = f"lies below {path.count(b'/') + 1} directories; {self._limits.depth} is the limit"
            raise OverLimitError(msg, "depth")

    def _count_lookup(self) -> None:
        """Bound how long it takes to find parents: one far from the last, or behind symlinks, is walked to anew."""
        self._lookups += 1
        entries = self._count_entries()
        if self._lookups > FREE_LOOKUPS + self._limits.lookups * entries:
            msg = f"is one of {entries} entries whose parents took {self._lookups} directories to find"
            raise OverLimitError(f"{msg}; {self._limits.lookups} for each is the limit", "lookups")


def lstat(name: bytes, directory: int) -> os.stat_result:
    """Return the status of what has that name, a symlink's its own."""
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _no_directory(path: bytes) -> TarError:
    return TarError(f"has a parent {path.decode('utf-8', 'backslashreplace')!r} that is no directory")


def _refuse_whiteout(directory: bytes) -> None:
    if directory.startswith(WHITEOUT_PREFIX):
        msg = "lies below a whiteout"
        raise TarError(msg)
