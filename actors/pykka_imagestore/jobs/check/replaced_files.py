"""What later entries of a layer replaced, as far as it is kept, compared with the entries that made it."""

from __future__ import annotations

from pykka_imagestore.core.paths import REPLACED
from pykka_imagestore.core.tar.format import DIRECTORY, FILE, HARD_LINK, Entry
from pykka_imagestore.jobs.check.directory_marks import DirectoryMarks
from pykka_imagestore.jobs.check.expectations import OpenedLayer
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.hard_links import HardLinkCheck
from pykka_imagestore.jobs.check.layer_tree import get_node
from pykka_imagestore.jobs.check.names import NameCheck
from pykka_imagestore.jobs.check.nodes import NodeCheck
from pykka_imagestore.jobs.check.rebuilt_tar import RebuiltTar, size_of


class ReplacedCheck:
    """Compares what is left of entries whose work was undone. Each has a number: its position in ``replaced/paths``."""

    def __init__(
        self,
        layer: OpenedLayer,
        tar: RebuiltTar,
        nodes: NodeCheck,
        links: HardLinkCheck,
        marks: DirectoryMarks,
        names: NameCheck,
        findings: Findings,
    ) -> None:
        self._directory = layer.undone.directory
        self._tar = tar
        self._nodes = nodes
        self._links = links
        self._marks = marks
        self._names = names
        self._findings = findings
        self._directories: set[int] = set()

    def check(self, entry: Entry, path: bytes, number: int) -> None:
        """Compare what is left of an entry's work with the entry."""
        if entry.kind == DIRECTORY:
            self._directories.add(number)
            self._marks.add_xattrs(path, entry.xattrs)
        elif entry.kind == HARD_LINK:
            self._links.check_replaced(entry, number)
        elif entry.kind == FILE and size_of(entry):
            self._check_kept(entry, path, number)
        else:
            self._links.add_origin(number, entry, path)

    def is_directory(self, number: int) -> bool:
        """Tell whether an entry that was undone named a directory."""
        return number in self._directories

    def _check_kept(self, entry: Entry, path: bytes, number: int) -> None:
        kept_as = f"{REPLACED}/{number}".encode()
        try:
            node = get_node(kept_as, self._directory, b"%d" % number, path)
            self._names.add_file(node.status.st_nlink)
            self._names.add_replaced()
            self._nodes.check(entry, node)
        except OSError as error:
            self._findings.add_error(kept_as, error)
            self._tar.miss_body(entry)
