"""The hard links of a layer, compared with what their entries say that they lead to.

What a link led to may have lost the name that its entry gave it since. A file with content is kept in ``replaced/``. Of
anything else only the links are left, so the first of them is compared with the entry that made it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from pykka_imagestore.core.paths import REPLACED
from pykka_imagestore.core.tar.format import Entry, clean_path
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.jobs.check.expectations import OpenedLayer
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.layer_tree import Node
from pykka_imagestore.jobs.check.names import NameCheck
from pykka_imagestore.jobs.check.nodes import NodeCheck
from pykka_imagestore.text import shown

_MAX_BYTES = 8 << 20  # of entries in memory


@dataclass(frozen=True, slots=True)
class _Origin:
    """What has lost the name that its entry gave it, and is not kept.

    Attributes:
        number: The number of its entry among those whose work was undone.
        entry: The entry.
        path: Where it made it.
    """

    number: int
    entry: Entry
    path: bytes


class HardLinkCheck:
    """Compares hard links."""

    def __init__(self, layer: OpenedLayer, nodes: NodeCheck, names: NameCheck, findings: Findings) -> None:
        self._tree = layer.tree
        self._undone = layer.undone
        self._nodes = nodes
        self._names = names
        self._findings = findings
        self._origins: dict[int, _Origin | os.stat_result] = {}  # by number of the entry that was undone
        self._origin_bytes = 0
        self._met: dict[int, os.stat_result] = {}  # origins, by their number, that a link was compared with

    def leads_to_itself(self, entry: Entry, path: bytes) -> bool:
        """Tell whether a link at ``path`` leads to its own path, and so makes nothing."""
        return self._real(path) == self._real(clean_path(entry.link))

    def check(self, entry: Entry, node: Node) -> None:
        """Compare a link in the tree.

        Raises:
            OSError: It cannot be looked at.
        """
        target = self._find_target(clean_path(entry.link))
        if isinstance(target, _Origin):
            if target.number not in self._met:
                self._met[target.number] = node.status
                self._names.add_file(node.status.st_nlink)
                self._nodes.check(target.entry, node._replace(made_at=target.path))
                return
            target = self._met[target.number]
        self._names.add_link()
        if target is not None:
            self._compare(entry, node.path, node.status, target)

    def check_replaced(self, entry: Entry, number: int) -> None:
        """Compare a link whose name something else has now."""
        target = self._find_target(clean_path(entry.link))
        if target is None:
            self._names.allow_more_replaced()
            return
        if isinstance(target, _Origin) or not (stat.S_ISREG(target.st_mode) and target.st_size):
            self._origins[number] = target
            return
        self._names.add_replaced()
        self._names.add_link()
        path = f"{REPLACED}/{number}".encode()
        try:
            status = os.stat(b"%d" % number, dir_fd=self._undone.directory, follow_symlinks=False)
        except OSError as error:
            self._findings.add_error(path, error)
            return
        self._compare(entry, path, status, target)

    def add_origin(self, number: int, entry: Entry, path: bytes) -> None:
        """Add what lost its name and is not kept: links may lead to it."""
        sizes = (len(key) + len(value) for key, value in entry.xattrs.items())
        self._origin_bytes += len(path) + len(entry.link) + sum(sizes)
        if self._origin_bytes <= _MAX_BYTES:
            self._origins[number] = _Origin(number, entry, path)
        else:
            self._findings.add_unchecked("has hard links to what it replaced itself, too much to be compared")

    def _real(self, path: bytes) -> bytes:
        """Return a path with the symlinks on the way to its parent resolved; as it is if there is no such directory."""
        parent, _, name = path.rpartition(b"/")
        try:
            return join(self._tree.directory(parent)[1], name)
        except OSError:
            return path

    def _find_target(self, link: bytes) -> _Origin | os.stat_result | None:
        """Return what lay at ``link`` when its link was made; None if it is not there."""
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
            return None  # if it should be there, the check of its own entry says so

    def _compare(self, entry: Entry, path: bytes, status: os.stat_result, target: os.stat_result) -> None:
        if not os.path.samestat(status, target):
            self._findings.add_fault(f"has {shown(path)} that is no hard link to {shown(entry.link)}")
