"""Makes what is like something that a layer has: its contents, its attributes, all that this process may give it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pykka_imagestore.core.tar.format import SYMLINK, Entry
from pykka_imagestore.fs.attributes import DEFAULT_ACL, NODE_TYPES, SET_ID, Attributes, disown, join
from pykka_imagestore.fs.contents import Contents
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.flags import CREATE_FLAGS, FILE_FLAGS
from pykka_imagestore.fs.likeness import entry_like, xattrs_of

T = TypeVar("T")

EARLY_MODE = stat.S_IRWXU


class Copies:
    """Makes copies in open directories; ``parent`` is the path of the one that a copy is made in.

    What is there of a copy's name is replaced.
    """

    def __init__(self) -> None:
        self.attributes = Attributes()
        self._contents = Contents()
        self._read_flags = FILE_FLAGS | os.O_NOATIME

    def open(self, name: bytes, directory: int) -> int:
        """Open a layer's file, without a trace in its times if that is permitted."""
        try:
            return os.open(name, self._read_flags, dir_fd=directory)
        except PermissionError:
            if not self._read_flags & os.O_NOATIME:
                raise
            self._read_flags &= ~os.O_NOATIME  # which only a file's owner may ask for
            return self.open(name, directory)

    def make_file(self, file: int, status: os.stat_result, directory: int, parent: bytes, name: bytes) -> None:
        """Make a file like an open one, of that status."""
        mode, xattrs = stat.S_IMODE(status.st_mode), xattrs_of(file)
        if xattrs or not self.attributes.are_as_made(mode, (status.st_uid, status.st_gid)):
            self._make_special_file(entry_like(status, xattrs), file, status, directory, parent, name)
            return
        made = anew(name, directory, partial(os.open, name, CREATE_FLAGS, mode, dir_fd=directory))
        try:
            self._contents.copy(file, made, status)
            os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(made)

    def make_node(self, about: Entry, directory: int, parent: bytes, name: bytes) -> None:
        """Make a symlink, device or fifo; a device that this process may not make is left out."""
        path = join(parent, name)
        try:
            anew(name, directory, partial(_make, about, directory, name))
        except PermissionError:
            if about.kind == SYMLINK:
                raise
            self.attributes.leave_unset(path, "device")
            return
        self.attributes.finish_node(about, path, name, directory)

    def _make_special_file(
        self, about: Entry, file: int, status: os.stat_result, directory: int, parent: bytes, name: bytes
    ) -> None:
        made = anew(name, directory, partial(self.attributes.create_file, about, directory, name))
        try:
            self._contents.copy(file, made, status)
            self.attributes.finish_file(about, parent, name, made)
        finally:
            os.close(made)

    # -- directories

    def make_directory(self, name: bytes, directory: int) -> None:
        """Make a directory that nobody else may enter yet; what is there stays.

        Raises:
            FileExistsError: There is something of that name.
        """
        if self.attributes.umask & EARLY_MODE:
            make_directory(name, EARLY_MODE, directory)
        else:
            os.mkdir(name, EARLY_MODE, dir_fd=directory)

    def open_up(self, directory: int, about: Entry) -> None:
        """Undo what ``finish_directory`` may have done, if that would keep us out, or be handed on to what is made."""
        is_open = about.mode & (EARLY_MODE | SET_ID) == EARLY_MODE
        if not is_open or (about.uid, about.gid) != self.attributes.owner or DEFAULT_ACL in about.xattrs:
            disown(directory)
            os.fchmod(directory, EARLY_MODE)

    def finish_directory(self, directory: int, about: Entry, path: bytes) -> None:
        """Give an open directory what it gets last; nothing more may come into it."""
        if about.xattrs:
            self.attributes.set_xattrs(about, path, directory, is_directory=True)
            if DEFAULT_ACL in about.xattrs:
                self.attributes.set_xattr(path, directory, DEFAULT_ACL, about.xattrs[DEFAULT_ACL])
        os.fchmod(directory, about.mode)
        os.utime(directory, ns=(about.mtime_ns, about.mtime_ns))
        owner = about.uid, about.gid
        if owner == self.attributes.owner or self.attributes.chown(owner, path, directory):
            return
        if about.mode & SET_ID:  # these bits speak of the owner
            os.fchmod(directory, about.mode & ~SET_ID)


def anew(name: bytes, directory: int, make: Callable[[], T]) -> T:
    """Make something; in place of what has its name in a directory, which somebody who was cut off has made."""
    try:
        return make()
    except FileExistsError:
        os.unlink(name, dir_fd=directory)
        return make()


def _make(about: Entry, directory: int, name: bytes) -> None:
    if about.kind == SYMLINK:
        os.symlink(about.link, name, dir_fd=directory)
    else:
        mode = NODE_TYPES[about.kind] | about.mode & ~SET_ID
        os.mknod(name, mode, os.makedev(about.major, about.minor), dir_fd=directory)
