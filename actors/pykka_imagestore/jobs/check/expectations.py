"""What a layer's record says of how its tree may differ from its entries."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.time_range import TimeRange
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.layer_tree import LayerTree
from pykka_imagestore.jobs.unpack.replaced import Undone

_OLD = (
    "was put by an older version that recorded less, so its record, its times, and the attributes of what no entry "
    "names cannot be checked"
)


class Expectations:
    """What a record says of the differences between tree and entries.

    Args:
        record: The layer's.
        status: Of the record's file, which belongs to the user who put the layer.

    Attributes:
        is_complete: Whether the record says everything that is needed here; records of older versions do not.
        ids_compare: Whether users and groups have the same numbers here as for the user who put the layer.
        owner: The user and group who put the layer, and so own what no entry gave away. None if the record does not
            say, or if numbers cannot be compared.
    """

    def __init__(self, record: LayerRecord, status: os.stat_result, findings: Findings) -> None:
        self._unset = {(unset.path, unset.what) for unset in record.unset}
        self._lists_all_unset = record.unset_count == len(record.unset)
        self._times = _time_range(record)
        self.is_complete = record.HasField("checksum")
        self.ids_compare = True
        self.owner: tuple[int, int] | None = None
        if not self.is_complete:
            findings.add_unchecked(_OLD)
            return
        seen = status.st_uid, status.st_gid
        if seen == (record.uid, record.gid):
            self.owner = seen
            return
        self.ids_compare = False
        was = f"was put by {record.uid}:{record.gid}, who is {seen[0]}:{seen[1]} here"
        findings.add_unchecked(
            f"{was}, so owners cannot be checked: this is another user namespace, or its record was given another owner"
        )

    def may_lack(self, path: bytes, what: str) -> bool:
        """Tell whether ``what`` of the node that was made at ``path`` may not have been set.

        A record lists a limited number of these; where there were more, any node may lack anything.
        """
        return not self._lists_all_unset or (path, what) in self._unset

    def stored_time(self, time_ns: int) -> int | None:
        """Return a time as the file system keeps it; None if that is not known."""
        return None if self._times is None else self._times.kept(time_ns)


@dataclass(frozen=True, slots=True)
class OpenedLayer:
    """A stored layer that is open to be checked.

    Attributes:
        root: Descriptor of its root directory.
        split: Descriptor of its tar-split.
        record: Its record.
        expected: What the record says of the tree.
        tree: The tree below ``root``.
        undone: The entries whose work a later entry undid.
    """

    root: int
    split: int
    record: LayerRecord
    expected: Expectations
    tree: LayerTree
    undone: Undone

    @property
    def whiteouts(self) -> WhiteoutFormat:
        """The form of its whiteouts."""
        return WhiteoutFormat(self.record.whiteouts)


def _time_range(record: LayerRecord) -> TimeRange | None:
    return TimeRange(record.earliest, record.latest, record.time_step_ns) if record.HasField("latest") else None
