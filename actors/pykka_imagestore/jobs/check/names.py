"""The names in a layer, compared with those that its entries gave.

Names are not remembered: they are counted, and their hashes added up, so memory does not grow with the layer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from pykka_imagestore.core.paths import REPLACED
from pykka_imagestore.jobs.check.expectations import OpenedLayer
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.inodes import Inodes
from pykka_imagestore.text import shown


class NameCheck:
    """Finds names that no entry gave, and files that entries made apart and that are one now.

    The caller adds each name as it meets the entry that gave it, and calls ``check`` once at the end.

    Attributes:
        has_root: Whether an entry names the root.
    """

    def __init__(self, layer: OpenedLayer, findings: Findings) -> None:
        self._tree = layer.tree
        self._undone = layer.undone
        self._findings = findings
        self._inodes = Inodes()
        self._names = _NameSum()
        self._replaced: int | None = 0
        self.has_root = False

    def add(self, path: bytes) -> None:
        """Add a path in the tree that something gave."""
        if path:
            self._names.add(path)
        else:
            self.has_root = True

    def add_file(self, links: int) -> None:
        """Add a file, or anything else that is no directory, by its first name; ``links`` is its link count."""
        self._inodes.add_file(links)

    def add_link(self) -> None:
        """Add one more name of a file."""
        self._inodes.add_name()

    def add_replaced(self) -> None:
        """Add a file that lies in ``replaced/``."""
        if self._replaced is not None:
            self._replaced += 1

    def allow_more_replaced(self) -> None:
        """Allow any number of files in ``replaced/``: how many entries put there is not known."""
        self._replaced = None

    def check(self) -> None:
        """Compare the names, unless something could not be looked at."""
        if self._findings.has_unread:
            return
        found = _NameSum()
        try:
            for path in self._tree.walk():
                found.add(path)
            self._check_replaced()
            joined = self._inodes.find_joined(self._statuses) if not self._findings.has_faults else 0
        except OSError as error:
            self._findings.add_error(b"", error)
            return
        added = found.count - self._names.count
        if added == 1:
            stranger = next((path for path in self._tree.walk() if found.is_without(path, self._names)), b"")
            self._findings.add_fault(f"has {shown(stranger)}, which no entry made")
        elif added > 1:
            self._findings.add_fault(f"has {added} files or directories that no entry made")
        elif joined > 0:
            self._findings.add_fault(f"has {joined} files that are hard links to others, though no entry links them")

    def _check_replaced(self) -> None:
        added = 0 if self._replaced is None else len(self._undone.names()) - self._replaced
        if added > 0:
            self._findings.add_fault(f"has {added} files in {REPLACED} that nothing replaced")

    def _statuses(self) -> Iterator[os.stat_result]:
        """Yield the status behind each name of what is no directory."""
        for path in self._tree.walk():
            parent, _, name = path.rpartition(b"/")
            status = os.stat(name, dir_fd=self._tree.directory(parent)[0], follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                yield status
        for name in self._undone.names():
            yield os.stat(name, dir_fd=self._undone.directory, follow_symlinks=False)


class _NameSum:
    """The number of some paths, and the sum of their hashes."""

    def __init__(self) -> None:
        self.count = self._sum = 0

    def add(self, path: bytes) -> None:
        self.count += 1
        self._sum += hash(path)

    def is_without(self, path: bytes, others: _NameSum) -> bool:
        """Tell whether these paths but ``path`` are the others."""
        return self._sum - hash(path) == others._sum
