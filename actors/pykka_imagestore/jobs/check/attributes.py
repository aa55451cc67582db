"""Owner, mode and time of a node of a layer, compared with those that its entry gives.

Of a layer whose record an older version wrote, times and what no entry names are not compared.
"""

from __future__ import annotations

import stat

from pykka_imagestore.core.tar.format import SYMLINK, Entry
from pykka_imagestore.fs.attributes import SET_ID
from pykka_imagestore.jobs.check.expectations import Expectations
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.layer_tree import Node
from pykka_imagestore.jobs.unpack.directories import IMPLICIT_MODE
from pykka_imagestore.text import shown

_SECOND = 1_000_000_000


class AttributeCheck:
    """Compares owners, modes and times."""

    def __init__(self, expected: Expectations, findings: Findings) -> None:
        self._expected = expected
        self._findings = findings
        self._uids, self._gids = _Ids("uid"), _Ids("gid")

    def check(self, entry: Entry, node: Node) -> None:
        """Compare a node with the entry that made it."""
        status = node.status
        if status.st_uid != entry.uid or status.st_gid != entry.gid:
            self._judge_owner(node, (entry.uid, entry.gid))
        if status.st_mtime_ns != entry.mtime_ns and self._expected.is_complete:
            self._judge_time(node, entry.mtime_ns)
        mode = stat.S_IMODE(status.st_mode)
        if mode != entry.mode and entry.kind != SYMLINK and not self._may_lack_set_id(node, mode, entry.mode):
            self._add_mode(node.path, mode, entry.mode)

    def check_implicit(self, node: Node) -> None:
        """Compare a directory that no entry names with how a put makes one."""
        if not node.path and not self._expected.is_complete:
            return
        mode = stat.S_IMODE(node.status.st_mode)
        if mode != IMPLICIT_MODE:
            self._add_mode(node.path, mode, IMPLICIT_MODE)
        self.check_default_owner(node)
        if node.status.st_mtime_ns and self._expected.is_complete:
            self._judge_time(node, 0)

    def check_default_owner(self, node: Node) -> None:
        """Compare the owner of a node that no entry gave an owner: it must be the user who put the layer."""
        owner = self._expected.owner
        if owner is not None and (node.status.st_uid, node.status.st_gid) != owner:
            self._add_owner(node, owner)

    def _judge_owner(self, node: Node, wanted: tuple[int, int]) -> None:
        expected, found = self._expected, (node.status.st_uid, node.status.st_gid)
        if not expected.ids_compare:
            return
        if expected.may_lack(node.made_at, "owner") and expected.owner in (None, found):
            return
        if self._uids.may_be(found[0], wanted[0]) and self._gids.may_be(found[1], wanted[1]):
            self._findings.add_unchecked("has owners who have no number in this user namespace")
        else:
            self._add_owner(node, wanted)

    def _judge_time(self, node: Node, wanted: int) -> None:
        stored, found = self._expected.stored_time(wanted), node.status.st_mtime_ns
        if stored is None:
            self._findings.add_unchecked("has times that its file system may not keep, so they cannot be checked")
        elif found != stored:
            self._findings.add_fault(f"has {shown(node.path)} of time {_time(found)}, not {_time(stored)}")

    def _may_lack_set_id(self, node: Node, mode: int, wanted: int) -> bool:
        return mode == wanted & ~SET_ID and self._expected.may_lack(node.made_at, "mode")

    def _add_mode(self, path: bytes, mode: int, wanted: int) -> None:
        self._findings.add_fault(f"has {shown(path)} with mode {mode:04o}, not {wanted:04o}")

    def _add_owner(self, node: Node, wanted: tuple[int, int]) -> None:
        found = f"{node.status.st_uid}:{node.status.st_gid}"
        self._findings.add_fault(f"has {shown(node.path)} owned by {found}, not {pair(wanted)}")


class _Ids:
    """Which users, or which groups, have a number in the user namespace of this process."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._ranges: list[tuple[int, int]] | None = None
        self._nobody = -1

    def may_be(self, found: int, wanted: int) -> bool:
        """Tell whether the owner ``found`` may be ``wanted``; the kernel shows one without a number as nobody."""
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


def _time(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, _SECOND)
    return f"{seconds}.{fraction:09d}".rstrip("0").rstrip(".") if fraction else str(seconds)


def pair(numbers: tuple[int, int]) -> str:
    """Return a user and group, or a device's numbers, joined by a colon."""
    return "{}:{}".format(*numbers)
