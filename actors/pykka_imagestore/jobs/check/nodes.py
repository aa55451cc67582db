"""A node of a layer, compared with the entry that made it: type, content, owner, mode, time and extended attributes."""

from __future__ import annotations

import os
import stat

from pykka_imagestore.core.tar.format import BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, FIFO, FILE, SYMLINK, Entry
from pykka_imagestore.fs.flags import FILE_FLAGS
from pykka_imagestore.jobs.check.attributes import AttributeCheck, pair
from pykka_imagestore.jobs.check.directory_marks import DirectoryMarks
from pykka_imagestore.jobs.check.expectations import Expectations
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.layer_tree import Node
from pykka_imagestore.jobs.check.rebuilt_tar import RebuiltTar
from pykka_imagestore.jobs.check.xattrs import XattrCheck
from pykka_imagestore.text import shown

_TYPES = {
    FILE: (stat.S_IFREG, "file"),
    DIRECTORY: (stat.S_IFDIR, "directory"),
    SYMLINK: (stat.S_IFLNK, "symlink"),
    CHARACTER_DEVICE: (stat.S_IFCHR, "character device"),
    BLOCK_DEVICE: (stat.S_IFBLK, "block device"),
    FIFO: (stat.S_IFIFO, "fifo"),
}
_MARK_MODE = 0o600  # at most, of a whiteout that is a file; one that is a device has no mode


class NodeCheck:
    """Compares nodes, and adds the bodies of files to the tar.

    Args:
        tar: Gets the bodies.
        marks: What became of directories that several entries name.
        xattrs: Compares extended attributes.
    """

    def __init__(
        self, expected: Expectations, tar: RebuiltTar, marks: DirectoryMarks, xattrs: XattrCheck, findings: Findings
    ) -> None:
        self._expected = expected
        self._tar = tar
        self._marks = marks
        self._xattrs = xattrs
        self._attributes = AttributeCheck(expected, findings)
        self._findings = findings

    def check(self, entry: Entry, node: Node) -> None:
        """Compare a node with the entry that made it.

        Raises:
            OSError: It cannot be looked at.
        """
        kind, word = _TYPES[entry.kind]
        if stat.S_IFMT(node.status.st_mode) != kind:
            self._findings.add_fault(f"has {shown(node.path)} that is no {word}")
            self._tar.miss_body(entry)
            return
        if entry.kind == FILE:
            self._check_file(entry, node)
        elif entry.kind == DIRECTORY:
            self._check_directory(entry, node)
        else:
            self._check_target(entry, node)
            self._xattrs.check(node, node.place, entry.xattrs, entry.mode)
        self._attributes.check(entry, node)

    def check_implicit(self, node: Node) -> None:
        """Compare a directory that no entry names with how a put makes one.

        Raises:
            OSError: It cannot be looked at.
        """
        mode = node.status.st_mode
        if not stat.S_ISDIR(mode):
            self._findings.add_fault(f"has {shown(node.path)} that is no directory")
            return
        self._attributes.check_implicit(node)
        if not self._marks.forgot:
            xattrs = self._marks.xattrs(node.path, {})
            self._xattrs.check(node, node.place, xattrs, stat.S_IMODE(mode), is_directory=True)

    def check_whiteout(self, node: Node) -> None:
        """Compare a whiteout, a device or a file, with how a put makes one.

        Raises:
            OSError: It cannot be looked at.
        """
        if not self._expected.is_complete:
            return
        self._attributes.check_default_owner(node)
        mode = stat.S_IMODE(node.status.st_mode)
        if mode & ~(_MARK_MODE if stat.S_ISREG(node.status.st_mode) else 0):
            self._findings.add_fault(f"has a whiteout {shown(node.path)} with mode {mode:04o}")
        self._xattrs.check(node, node.place, {}, mode)

    def _check_file(self, entry: Entry, node: Node) -> None:
        try:
            file = os.open(node.name, FILE_FLAGS, dir_fd=node.directory)
        except OSError as error:
            self._findings.add_error(node.path, error)
            self._tar.miss_body(entry)
            return
        try:
            self._tar.add_body(entry, file, node.path, node.status.st_size)
            self._xattrs.check(node, file, entry.xattrs, entry.mode)
        finally:
            os.close(file)

    def _check_directory(self, entry: Entry, node: Node) -> None:
        if self._marks.forgot:
            return
        # The root gets its attributes last, so it has only those of the last entry that names it.
        adds_up = node.path or not self._expected.is_complete
        xattrs = self._marks.xattrs(node.path, entry.xattrs) if adds_up else entry.xattrs
        self._xattrs.check(node, node.place, xattrs, entry.mode, is_directory=True)

    def _check_target(self, entry: Entry, node: Node) -> None:
        """Compare what a symlink or a device leads to."""
        path, status = shown(node.path), node.status
        if entry.kind == SYMLINK:
            target = os.readlink(node.name, dir_fd=node.directory)
            if target != entry.link:
                self._findings.add_fault(f"has a symlink {path} to {shown(target)}, not to {shown(entry.link)}")
        elif entry.kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
            found, wanted = (os.major(status.st_rdev), os.minor(status.st_rdev)), (entry.major, entry.minor)
            if found != wanted:
                self._findings.add_fault(f"has {path} for device {pair(found)}, not {pair(wanted)}")
