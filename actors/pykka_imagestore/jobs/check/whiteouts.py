"""The whiteouts of a layer, compared with the entries that made them, and the directories that are opaque by them."""

from __future__ import annotations

import os
import stat

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.whiteout_format import OPAQUE_WHITEOUT, WHITEOUT_META_PREFIX, WHITEOUT_PREFIX, is_whiteout
from pykka_imagestore.jobs.check.directory_marks import DirectoryMarks
from pykka_imagestore.jobs.check.expectations import OpenedLayer
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.hiding_directories import HidingCheck
from pykka_imagestore.jobs.check.layer_tree import get_node
from pykka_imagestore.jobs.check.names import NameCheck
from pykka_imagestore.jobs.check.nodes import NodeCheck
from pykka_imagestore.jobs.check.replaced_files import ReplacedCheck
from pykka_imagestore.jobs.check.xattrs import XattrCheck
from pykka_imagestore.text import shown


class WhiteoutCheck:
    """Compares whiteouts as their entries are met, and what the record says of them once, at the end."""

    def __init__(
        self,
        layer: OpenedLayer,
        nodes: NodeCheck,
        xattrs: XattrCheck,
        replaced: ReplacedCheck,
        marks: DirectoryMarks,
        names: NameCheck,
        findings: Findings,
    ) -> None:
        self._form = layer.whiteouts
        self._record = layer.record
        self._is_new = layer.record.HasField("implicit_root")
        self._tree = layer.tree
        self._undone = layer.undone
        self._nodes = nodes
        self._xattrs = xattrs
        self._replaced = replaced
        self._marks = marks
        self._names = names
        self._findings = findings
        self._hiding = HidingCheck(layer, findings)
        self._unsure: set[bytes] = set()  # directories that may be opaque

    def check(self, parent: bytes, name: bytes) -> None:
        """Compare what the whiteout ``name`` in the directory ``parent`` made."""
        is_mark = name.startswith(WHITEOUT_META_PREFIX)
        is_undone = not is_mark and self._undone.take(join(parent, name)) is not None
        try:
            directory, real = self._tree.directory(parent)
        except OSError as error:
            if not self._undone:  # else the directory may have been replaced
                self._findings.add_error(parent, error)
            return
        if is_mark:
            if name == OPAQUE_WHITEOUT:
                self._make_opaque(real, parent, real)
        elif is_undone or (real != parent and self._undone.take(join(real, name)) is not None):
            self._check_undone(join(real, name.removeprefix(WHITEOUT_PREFIX)), parent, real)
        else:
            self._check_made(directory, real, name)

    def check_all_met(self) -> None:
        """Compare what the record says of whiteouts, and which directories are opaque."""
        self._hiding.check_all_met()
        self._check_opaque()

    def _check_opaque(self) -> None:
        """Compare the directories that are marked as opaque with those that whiteouts made opaque."""
        if self._marks.forgot:
            self._findings.add_unchecked("gives directories that it names again more attributes than can be remembered")
            return
        if self._form == WhiteoutFormat.OVERLAY_TRUSTED and not self._xattrs.sees_trusted:
            self._findings.add_unchecked("has opaque directories, whose marks are shown with CAP_SYS_ADMIN only")
            return
        wanted = {path for path in self._marks.opaque() if path not in self._unsure and self._is_directory(path)}
        self._check_recorded(wanted)
        for path in wanted:
            if self._form == WhiteoutFormat.FILES:
                self._check_mark_file(path)
            elif path not in self._xattrs.opaque:
                self._findings.add_fault(f"lacks the whiteout {shown(join(path, OPAQUE_WHITEOUT))}")
        for path in self._xattrs.opaque - wanted - self._unsure:
            self._findings.add_fault(f"has {shown(path)} that is opaque, which no entry made it")

    def _check_recorded(self, wanted: set[bytes]) -> None:
        """Compare what the record says of opaque directories; those of older versions say nothing."""
        if not self._is_new:
            return
        recorded = set(self._record.opaque_directories)
        for path in (recorded ^ (set() if self._form == WhiteoutFormat.FILES else wanted)) - self._unsure:
            self._findings.add_fault(f"has a record that is wrong about whether {shown(path)} is opaque")

    def _check_undone(self, path: bytes, parent: bytes, real: bytes) -> None:
        """Note what is left of a whiteout that made nothing, or that was replaced: an opaque directory."""
        self._hiding.check(real, is_there=False)
        number = self._undone.find(path)
        is_file_now = number is not None and not self._replaced.is_directory(number)
        if self._form != WhiteoutFormat.FILES and not is_file_now:
            self._make_opaque(path, parent, real)

    def _make_opaque(self, path: bytes, parent: bytes, real: bytes) -> None:
        """Note that a directory is opaque, by an entry in ``parent``, which is now the directory ``real``."""
        if real != parent and self._undone.was_removed(parent):
            self._unsure.add(path)  # a symlink may have come later to where a directory was
        else:
            self._marks.make_opaque(path)

    def _check_made(self, directory: int, parent: bytes, whiteout: bytes) -> None:
        is_file = self._form == WhiteoutFormat.FILES
        name = whiteout if is_file else whiteout.removeprefix(WHITEOUT_PREFIX)
        path, lack = join(parent, name), f"lacks the whiteout {shown(join(parent, whiteout))}"
        self._hiding.check(parent, is_there=False)
        try:
            node = get_node(path, directory, name)
        except FileNotFoundError:
            self._findings.add_fault(lack)
            return
        except OSError as error:
            self._findings.add_error(path, error)
            return
        self._names.add(path)
        self._names.add_file(node.status.st_nlink)
        if _is_mark(node.status) if is_file else is_whiteout(node.status):
            self._nodes.check_whiteout(node)
            self._hiding.check(parent, is_there=True)
        else:
            self._findings.add_fault(lack)

    def _check_mark_file(self, path: bytes) -> None:
        mark = join(path, OPAQUE_WHITEOUT)
        try:
            directory, _ = self._tree.directory(path)
            node = get_node(mark, directory, OPAQUE_WHITEOUT)
            self._names.add(mark)
            self._names.add_file(node.status.st_nlink)
            if _is_mark(node.status):
                self._nodes.check_whiteout(node)
                return
        except FileNotFoundError:
            pass
        self._findings.add_fault(f"lacks the whiteout {shown(mark)}")

    def _is_directory(self, path: bytes) -> bool:
        try:
            return self._tree.directory(path)[1] == path
        except OSError:
            return False  # the check of its own entry says so


def _is_mark(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and not status.st_size
