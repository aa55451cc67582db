"""Finding directories below one that is held open, a component a call: whatever lies there, no call leads out of it.

A path of several components is resolved by the kernel, through whatever is on the way by then: so programs wrote
outside of a container whose owner exchanged a directory for a symlink after it was checked (runc, CVE-2021-30465;
docker cp, CVE-2018-15664). A path that is resolved by a library first may be too long for it (Python's tarfile,
CVE-2025-4517). Here each call names one component, in an open directory, and does not follow it; a symlink is read, and
resolved by hand as if the directory were ``/``, where ``..`` goes no higher.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS

MAX_OPEN_DIRECTORIES = 128
MAX_SYMLINKS = 40  # as the kernel has it
MAX_PATHS_BYTES = 1 << 20
FREE_LOOKUPS = 1_000_000  # of directories in one layer, whatever its entries are


class Found(NamedTuple):
    """A directory that was found.

    Attributes:
        directory: Its descriptor.
        path: Its path below the root, without symlinks.
        symlinks: How many were followed on the way.
    """

    directory: int
    path: bytes
    symlinks: int = 0


def _nothing(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a walk does besides. Each may raise what ends it.

    Attributes:
        visit: Called with each path that is looked up, of which all but the last component is known.
        follow: Called before a symlink is followed.
        make: Called where a directory is to be made and there is nothing, with the directory it is to be made in, that
            one's path, and its name.
        make_way: Called where a directory is to be made and there is something else, with the same and what that is.
    """

    visit: Callable[[bytes], object] = _nothing
    follow: Callable[[], object] = _nothing
    make: Callable[[int, bytes, bytes], object] = _nothing
    make_way: Callable[[int, bytes, bytes, os.stat_result], object] = _nothing


class SymlinkLoopError(OSError):
    """More symlinks are on a way than are followed."""

    def __init__(self) -> None:
        super().__init__(errno.ELOOP, f"more than {MAX_SYMLINKS} symlinks")


class Walk:
    """Finds directories below ``root``, a descriptor that it does not close, and remembers a bounded number of them.

    Args:
        policy: What to do besides.
        follows: Whether symlinks are resolved; else they are in the way, as files are.

    Attributes:
        known: Returns the place of a path that is remembered; else None.
        followed: The paths of the symlinks by which it was reached.
    """

    def __init__(self, root: int, policy: Policy | None = None, *, follows: bool = True) -> None:
        self._root = Found(root, b"")
        self._policy = policy or Policy()
        self._follows = follows
        self._places: dict[bytes, Found] = {b"": self._root}
        self._open = {root}
        self._paths_bytes = 0
        self._hops = 0
        self.known = self._places.get
        self.followed: set[bytes] = set()

    def directory(self, path: bytes, *, make: bool = False) -> Found:
        """Return a directory; its descriptor is good until something is forgotten.

        Args:
            path: Names and ``/`` between them; empty for the root.
            make: Whether the policy is asked to make what is missing.

        Raises:
            FileNotFoundError: There is none.
            NotADirectoryError: Something else is there, or on the way.
            SymlinkLoopError: Too many symlinks are on the way.
            OSError: It cannot be opened.
        """
        self._hops = 0
        return self._find(path, make=make)

    def open(self, path: bytes, *, make: bool = False) -> int:
        """Return the descriptor of a directory, good until the next call.

        Args:
            make: As for ``directory``, and so are the errors.
        """
        self.make_room()
        return self.directory(path, make=make).directory

    def resolve(self, path: bytes) -> bytes:
        """Return a path without symlinks, the last one resolved too; as far as it is there, and the rest as it is.

        Raises:
            SymlinkLoopError, OSError: As ``directory``.
        """
        self._hops = 0
        real, symlinks = self._resolve(self._root, path.split(b"/")[::-1])
        if symlinks:
            self._policy.follow()
        return real

    @property
    def remembered_bytes(self) -> int:
        """How long all the paths are that are remembered."""
        return self._paths_bytes

    def remember(self, spelled: bytes, place: Found) -> None:
        """Remember a place by another path, too, which need not be a clean one."""
        self._places[spelled] = place
        self._paths_bytes += len(spelled)

    def make_room(self) -> None:
        """Forget all if it has become much: directories take descriptors, and paths through symlinks memory."""
        many = len(self._open) > MAX_OPEN_DIRECTORIES or len(self._places) > 2 * MAX_OPEN_DIRECTORIES
        if many or self._paths_bytes > MAX_PATHS_BYTES:
            self.forget()

    def forget(self) -> None:
        """Close all directories but the root.

        Called after something else was put in the place of a directory or a symlink: what is remembered would lead
        to where it led before (node-tar, CVE-2021-32803).
        """
        self._open.discard(self._root.directory)
        for directory in self._open:
            os.close(directory)
        self._open = {self._root.directory}
        self._places.clear()
        self._places[b""] = self._root
        self.followed.clear()
        self._paths_bytes = 0

    # -- down

    def _find(self, path: bytes, *, make: bool) -> Found:
        ancestor, missing = path, []
        while ancestor not in self._places:
            ancestor, _, name = ancestor.rpartition(b"/")
            missing.append(name)
        place = self._places[ancestor]
        while missing:
            try:
                below = self._step(place, missing[-1], make=make)
            finally:
                if place.directory not in self._open:
                    os.close(place.directory)
            ancestor, place = join(ancestor, missing.pop()), below
            if len(missing) < MAX_OPEN_DIRECTORIES // 2:  # of a long way, only the end
                self._keep(ancestor, place)
        return place

    def _step(self, place: Found, name: bytes, *, make: bool) -> Found:
        path = join(place.path, name)
        known = self._places.get(path)
        if known is not None:
            return self._after(place.symlinks, known)
        self._policy.visit(path)
        try:
            directory = os.open(name, DIRECTORY_FLAGS, dir_fd=place.directory)
        except FileNotFoundError:
            if not make:
                raise
            self._policy.make(place.directory, place.path, name)
        except NotADirectoryError:  # a symlink too: the kernel looks at O_DIRECTORY first, and says ELOOP of no other
            if not self._follows:
                raise
            status = os.stat(name, dir_fd=place.directory, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return self._follow(place, name, make=make)
            if not make:
                raise
            self._policy.make_way(place.directory, place.path, name, status)
        else:
            return Found(directory, path, place.symlinks)
        return Found(os.open(name, DIRECTORY_FLAGS, dir_fd=place.directory), path, place.symlinks)

    def _keep(self, spelled: bytes, place: Found) -> None:
        self._open.add(place.directory)
        self.remember(spelled, place)
        if spelled != place.path and place.path not in self._places:
            self.remember(place.path, place._replace(symlinks=0))

    # -- through symlinks

    def _follow(self, place: Found, name: bytes, *, make: bool) -> Found:
        self._policy.follow()
        self._hops += 1
        if self._hops > MAX_SYMLINKS:  # somebody puts them in our way
            raise SymlinkLoopError
        path, symlinks = self._resolve(place, [name])
        return self._after(symlinks, self._find(path, make=make))

    def _resolve(self, place: Found, left: list[bytes]) -> tuple[bytes, int]:
        """Return where a path leads, as far as that is there, and how many symlinks are on the way.

        Args:
            left: Its parts, the last one first; they are used up.
        """
        real, symlinks = place.path, place.symlinks
        while left:
            part = left.pop()
            if part in (b"", b".", b".."):
                self._policy.visit(real)  # a symlink may hold two thousand of them
                real = real.rpartition(b"/")[0] if part == b".." else real
                continue
            path = join(real, part)
            known = self._places.get(path)
            target = self._target(real, part) if known is None else None
            if known is not None:
                real, symlinks = known.path, self._after(symlinks, known).symlinks
            elif target is None:
                real = path
            else:
                self._note_symlink(path)
                symlinks = self._after(symlinks, self._root._replace(symlinks=1)).symlinks
                real = b"" if target.startswith(b"/") else real
                left += target.split(b"/")[::-1]
        return real, symlinks

    def _target(self, parent: bytes, name: bytes) -> bytes | None:
        """Return where a symlink leads; None if there is none."""
        self._policy.visit(join(parent, name))
        try:
            return os.readlink(name, dir_fd=self._find(parent, make=False).directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # it is something else
                return None
            raise

    def _note_symlink(self, path: bytes) -> None:
        self.followed.add(path)
        self._paths_bytes += len(path)

    def _after(self, symlinks: int, place: Found) -> Found:
        """Return a place that was found behind some symlinks more."""
        # Of each path as of one that is walked anew: what is remembered must not decide whether it is too long.
        if symlinks + place.symlinks > MAX_SYMLINKS:
            raise SymlinkLoopError
        return place._replace(symlinks=symlinks + place.symlinks) if symlinks else place
