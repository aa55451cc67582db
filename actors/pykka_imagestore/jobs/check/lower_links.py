"""The hard links of a layer to files of the layers below: those that its record names, compared with their entries."""

from __future__ import annotations

from pykka_imagestore.core.tar.format import Entry, clean_path
from pykka_imagestore.jobs.check.expectations import OpenedLayer
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.text import shown


class LowerLinkCheck:
    """Compares these links as their entries are met, and looks once, at the end, for those that no entry made."""

    def __init__(self, layer: OpenedLayer, findings: Findings) -> None:
        self._tree = layer.tree
        self._findings = findings
        self._targets = {link.path: link.target for link in layer.record.lower_links}
        self._unmet = set(self._targets)

    def has(self, path: bytes) -> bool:
        """Tell whether the record has a link at a path."""
        return path in self._targets

    def check(self, entry: Entry, path: bytes) -> None:
        """Compare where a link leads to."""
        self._unmet.discard(path)
        target = self._real(self._targets[path])
        link = self._real(clean_path(entry.link))
        if target not in (link, self._real(self._targets.get(link, link))):
            self._findings.add_fault(
                f"has a record of a hard link {shown(path)} to {shown(self._targets[path])}, not to {shown(entry.link)}"
            )

    def check_all_met(self) -> None:
        """Note the links that no entry made."""
        for path in sorted(self._unmet):
            self._findings.add_fault(f"has a record of a hard link {shown(path)}, which no entry made")

    def _real(self, path: bytes) -> bytes:
        """Return a path as the tree resolves it now: a symlink may have come since the link was made."""
        try:
            return self._tree.resolve(path)
        except OSError:
            return path
