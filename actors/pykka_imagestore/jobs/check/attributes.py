"""Owner, mode and time of what lies in a layer's tree, compared with what its entry says.

A record of an older version says less: then times are not compared, nor what no entry names.
"""

from __future__ import annotations

import os
import stat

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.tar.format import SYMLINK, Entry
from pykka_imagestore.core.time_range import TimeRange
from pykka_imagestore.fs.attributes import SET_ID
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.unpack.extractor import IMPLICIT_MODE
from pykka_imagestore.text import shown

_SECOND = 1_000_000_000
_OLD = "was put by a version that kept less of it: times and what no entry names cannot be checked, nor can its record"


class Expectations:
    """What a layer's record says of how its tree differs from its entries.

    Args:
        record: The layer's.
        status: Of its file, which belongs to who put the layer.

    Attributes:
        is_exact: Whether the record says all that it takes; those of older versions do not.
        ids_compare: Whether users and groups have the numbers here that they had for who put the layer.
        owner: Of what was not given away; None if the record does not say, or numbers cannot be compared.
    """

    def __init__(self, record: LayerRecord, status: os.stat_result, findings: Findings) -> None:
        self._unset = {(unset.path, unset.what) for unset in record.unset}
        self._unset_is_whole = record.unset_count == len(record.unset)
        self._times = _time_range(record)
        self.is_exact = record.HasField("checksum")
        self.ids_compare = True
        self.owner: tuple[int, int] | None = None
        if not self.is_exact:
            findings.add_unchecked(_OLD)
            return
        seen = status.st_uid, status.st_gid
        if seen == (record.uid, record.gid):
            self.owner = seen
            return
        self.ids_compare = False
        was = f"was put by {record.uid}:{record.gid}, who is {seen[0]}:{seen[1]} here"
        findings.add_unchecked(
            f"{was}, so owners cannot be checked: this is another user namespace, or its owner was changed"
        )

    def may_lack(self, path: bytes, what: str) -> bool:
        """Tell whether something of what was made at ``path`` could not be set; a record lists the first ones only."""
        return not self._unset_is_whole or (path, what) in self._unset

    def kept(self, time_ns: int) -> int | None:
        """Return what becomes of a time here; None if nobody knows."""
        return None if self._times is None else self._times.kept(time_ns)


class AttributeCheck:
    """Compares owners, modes and times."""

    def __init__(self, expected: Expectations, findings: Findings) -> None:
        self._expected = expected
        self._findings = findings
        self._uids, self._gids = _Ids("uid"), _Ids("gid")

    def check(self, entry: Entry, path: bytes, status: os.stat_result, made_at: bytes | None = None) -> None:
        """Compare what an entry made, at ``made_at`` if that is not ``path``."""
        made_at = path if made_at is None else made_at
        if status.st_uid != entry.uid or status.st_gid != entry.gid:
            self._judge_owner(path, status, (entry.uid, entry.gid), made_at)
        if status.st_mtime_ns != entry.mtime_ns and self._expected.is_exact:
            self._judge_time(path, status, entry.mtime_ns)
        mode = stat.S_IMODE(status.st_mode)
        if mode != entry.mode and entry.kind != SYMLINK:
            self._judge_mode(path, mode, entry.mode, made_at)

    def check_implicit(self, path: bytes, status: os.stat_result) -> None:
        """Compare a directory that no entry names."""
        if not path and not self._expected.is_exact:
            return
        if stat.S_IMODE(status.st_mode) != IMPLICIT_MODE:
            self._judge_mode(path, stat.S_IMODE(status.st_mode), IMPLICIT_MODE, None)
        self.check_owner_of_ours(path, status)
        if status.st_mtime_ns and self._expected.is_exact:
            self._judge_time(path, status, 0)

    def check_owner_of_ours(self, path: bytes, status: os.stat_result) -> None:
        """Compare the owner of what was not given away."""
        owner = self._expected.owner
        if owner is not None and (status.st_uid, status.st_gid) != owner:
            self._add_owner(path, status, owner)

    def _judge_owner(self, path: bytes, status: os.stat_result, wanted: tuple[int, int], made_at: bytes) -> None:
        expected, found = self._expected, (status.st_uid, status.st_gid)
        if not expected.ids_compare:
            return
        if expected.may_lack(made_at, "owner") and expected.owner in (None, found):
            return
        if self._uids.may_be(found[0], wanted[0]) and self._gids.may_be(found[1], wanted[1]):
            self._findings.add_unchecked("has owners who have no number in this user namespace")
        else:
            self._add_owner(path, status, wanted)

    def _judge_time(self, path: bytes, status: os.stat_result, wanted: int) -> None:
        kept = self._expected.kept(wanted)
        if kept is None:
            self._findings.add_unchecked("has times that its file system may not keep, so they cannot be checked")
        elif status.st_mtime_ns != kept:
            self._findings.add_fault(f"has {shown(path)} of time {_time(status.st_mtime_ns)}, not {_time(kept)}")

    def _judge_mode(self, path: bytes, mode: int, wanted: int, made_at: bytes | None) -> None:
        is_less = made_at is not None and mode == wanted & ~SET_ID and self._expected.may_lack(made_at, "mode")
        if not is_less:
            self._findings.add_fault(f"has {shown(path)} with mode {mode:04o}, not {wanted:04o}")

    def _add_owner(self, path: bytes, status: os.stat_result, wanted: tuple[int, int]) -> None:
        self._findings.add_fault(f"has {shown(path)} owned by {status.st_uid}:{status.st_gid}, not {pair(wanted)}")


class _Ids:
    """Which users, or groups, have a number in this process' user namespace."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._ranges: list[tuple[int, int]] | None = None
        self._nobody = -1

    def may_be(self, found: int, wanted: int) -> bool:
        """Tell whether somebody who is shown as ``found`` may be ``wanted``: the kernel shows strangers as nobody."""
        if found == wanted:
            return True
        if self._ranges is None:
            self._ranges = [_range(line) for line in _read(f"/proc/self/{self._kind}_map").splitlines()]
            self._nobody = int(_read(f"/proc/sys/kernel/overflow{self._kind}"))
        return found == self._nobody and not any(first <= wanted < end for first, end in self._ranges)


def _range(line: str) -> tuple[int, int]:
    first, _, count = map(int, line.split())
    return first, first + count


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _time_range(record: LayerRecord) -> TimeRange | None:
    return TimeRange(record.earliest, record.latest, record.time_step_ns) if record.HasField("latest") else None


def _time(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, _SECOND)
    return f"{seconds}.{fraction:09d}".rstrip("0").rstrip(".") if fraction else str(seconds)


def pair(numbers: tuple[int, int]) -> str:
    """Return two numbers as owners and devices have them, with a colon."""
    return "{}:{}".format(*numbers)
