"""The directories with whiteouts that are devices: those that a layer's record names, compared with the entries."""

from __future__ import annotations

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.jobs.check.expectations import OpenedLayer
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.text import shown


class HidingCheck:
    """Compares what the record says as whiteouts are met. A directory whose whiteouts were undone may be named."""

    def __init__(self, layer: OpenedLayer, findings: Findings) -> None:
        self._says_so = layer.record.HasField("implicit_root")  # those of older versions say nothing
        self._form = layer.whiteouts
        self._findings = findings
        self._recorded = frozenset(layer.record.hiding_directories)
        self._unmet = set(self._recorded)
        self._lacking: set[bytes] = set()

    def check(self, directory: bytes, *, is_there: bool) -> None:
        """Note a whiteout of an entry.

        Args:
            directory: The path of the directory that it is in.
            is_there: Whether it was found.
        """
        if self._form == WhiteoutFormat.FILES:
            return
        self._unmet.discard(directory)
        if is_there and directory not in self._recorded:
            self._lacking.add(directory)

    def check_all_met(self) -> None:
        """Note the directories that the record wrongly names, or does not name."""
        if self._says_so:
            for path in sorted(self._lacking | self._unmet):
                self._findings.add_fault(f"has a record that is wrong about whether {shown(path)} has whiteouts")
