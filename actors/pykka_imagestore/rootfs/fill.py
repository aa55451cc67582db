"""Fills a directory with the merged tree of some layers, alone or with others who do their shares.

Each walks the whole tree, which is quick, and draws the numbers of the directories that are its own to make, or of the
pieces of large ones. It makes all that is directly in such a directory, and then gives that its attributes, or whoever
ends the last piece does so: nothing comes into it any more, so no time is changed again.

A share that was cut off may be done again: it makes anew what it had begun with, and nothing else comes of it.
"""

from __future__ import annotations

import errno
import os
from contextlib import closing, suppress
from functools import partial
from itertools import groupby

from pykka_imagestore.core.rootfs import FillPart
from pykka_imagestore.fs.likeness import node_like, open_like
from pykka_imagestore.fs.merged_tree import DIRECTORY, FILE, MergedDirectory, MergedEntry, MergedTree
from pykka_imagestore.fs.open_directories import opened_directory
from pykka_imagestore.fs.walk import Policy, Walk
from pykka_imagestore.rootfs.copies import Copies, anew
from pykka_imagestore.rootfs.tickets import Tickets

# Another file system or project, too many links, or a file that this user may not link.
_NO_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP})

_PIECE = 1000  # entries of a directory


def fill(part: FillPart) -> None:
    """Do one share.

    Raises:
        OSError: A layer cannot be read, or the disk failed or is full.
    """
    with (
        opened_directory(part.directory) as root,
        opened_directory(part.scratch) as scratch,
        MergedTree(part.layers) as tree,
        closing(Tickets(scratch, part.number, part.of)) as tickets,
        closing(_Share(root, scratch, tree, tickets, links=part.link)) as share,
    ):
        try:
            share.make()
        except OSError as error:
            if not isinstance(error.filename, str):  # a name in the directory at hand, or nothing
                error.filename = os.path.join(part.directory, os.fsdecode(share.path))
            raise


class _Share:
    def __init__(self, root: int, scratch: int, tree: MergedTree, tickets: Tickets, *, links: bool) -> None:
        self._scratch = scratch
        self._tree = tree
        self._tickets = tickets
        self._links = links
        self._copies = Copies()
        self._made = Walk(root, Policy(make=self._make_directory), follows=False)
        self._here = root
        self.path = b""

    def close(self) -> None:
        self._made.forget()

    def make(self) -> None:
        own, number = self._tickets.begin(), 0
        for directory in self._tree.walk():
            pieces = range(number, number + 1 + len(directory) // _PIECE)
            while own in pieces:
                self._fill(directory, own, pieces)
                own = self._tickets.draw()
            number = pieces.stop

    def _fill(self, directory: MergedDirectory, own: int, pieces: range) -> None:
        self.path = directory.path
        self._here = self._made.open(self.path, make=True)
        source = self._tree.open(directory.layers[0], self.path)
        about = open_like(source)
        self._copies.open_up(self._here, about)
        begin = (own - pieces.start) * _PIECE
        for layer, entries in groupby(directory.entries[begin : begin + _PIECE], _layer_of):
            source = self._tree.open(layer, self.path)
            for entry in entries:
                self._make(source, entry)
        if len(pieces) == 1 or self._tickets.finish(own, pieces):
            self._copies.finish_directory(self._here, about, self.path)

    def _make(self, source: int, entry: MergedEntry) -> None:
        if entry.kind == DIRECTORY:
            self._make_directory(self._here, self.path, entry.name)
        elif self._links and self._link(source, entry.name):
            pass
        elif entry.kind == FILE:
            self._copy_file(source, entry)
        else:
            self._copy_node(source, entry)

    def _make_directory(self, above: int, _: bytes, name: bytes) -> None:
        with suppress(FileExistsError):  # another share came by, or this one was here before
            self._copies.make_directory(name, above)

    def _link(self, source: int, name: bytes) -> bool:
        """Link what a layer has; tell whether that can be done."""
        link = partial(os.link, name, name, src_dir_fd=source, dst_dir_fd=self._here, follow_symlinks=False)
        try:
            anew(name, self._here, link)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        return True

    def _copy_file(self, source: int, entry: MergedEntry) -> None:
        file = self._copies.open(entry.name, source)
        try:
            status = os.stat(file)
            if status.st_nlink == 1:
                self._copies.make_file(file, status, self._here, self.path, entry.name)
            elif not self._is_linked(entry, status):
                self._copies.make_file(file, status, self._here, self.path, entry.name)
                self._offer(entry, status)
        finally:
            os.close(file)

    def _copy_node(self, source: int, entry: MergedEntry) -> None:
        status = os.stat(entry.name, dir_fd=source, follow_symlinks=False)
        if status.st_nlink > 1 and self._is_linked(entry, status):
            return
        about = node_like(status, entry.name, source)
        self._copies.make_node(about, self._here, self.path, entry.name)
        if status.st_nlink > 1:
            self._offer(entry, status)

    # -- hard links: the first name that some share makes is found by the others in the scratch directory

    def _is_linked(self, entry: MergedEntry, status: os.stat_result) -> bool:
        """Link what another name of the same file made already; tell whether there was one, and room for a link."""
        link = partial(self._copies.attributes.link, _key(entry, status), self._scratch, entry.name, self._here)
        try:
            anew(entry.name, self._here, link)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.EMLINK:
                return False
            raise
        return True

    def _offer(self, entry: MergedEntry, status: os.stat_result) -> None:
        """Let other names of the same file be links to the one that was made."""
        try:
            self._copies.attributes.link(entry.name, self._here, _key(entry, status), self._scratch)
        except FileNotFoundError:  # a device that this process may not make
            pass
        except FileExistsError:  # another share was quicker
            self._is_linked(entry, status)


def _layer_of(entry: MergedEntry) -> int:
    return entry.layers[0]


def _key(entry: MergedEntry, status: os.stat_result) -> bytes:
    return b"%d-%d" % (entry.layers[0], status.st_ino)
