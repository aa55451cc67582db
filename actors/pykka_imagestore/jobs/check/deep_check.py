"""The deep check of a layer: its tar put together again and hashed, and its tree compared with its entries.

One pass over the tar-split. Each entry's header is parsed as it was when the layer was unpacked; a file's body comes
from the tree, or from ``replaced/`` if a later entry replaced the file. What an entry made must lie in the tree as the
entry says, unless a later one undid it; then what is left of it, in ``replaced/`` or as hard links, must.

    expectations.py      what the record says of the differences between tree and entries
    rebuilt_tar.py       the tar, and the bodies of the files
    nodes.py             a node and the entry that made it; attributes.py, xattrs.py
    hard_links.py        hard links and what they lead to; lower_links.py, those to files of lower layers
    replaced_files.py    what later entries replaced
    whiteouts.py         whiteouts and opaque directories; directory_marks.py, hiding_directories.py
    names.py             names that no entry gave; inodes.py
    checksums.py         digest and checksums
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.paths import RECORD, REPLACED, ROOTFS, TAR_SPLIT
from pykka_imagestore.core.tar.format import (
    CHARACTER_DEVICE,
    DIRECTORY,
    FILE,
    HARD_LINK,
    Entry,
    OverLimitError,
    TarError,
    clean_path,
)
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS, FILE_FLAGS
from pykka_imagestore.fs.walk import FREE_LOOKUPS
from pykka_imagestore.fs.whiteout_format import WHITEOUT_META_PREFIX, WHITEOUT_PREFIX
from pykka_imagestore.jobs.check.checksums import check_checksums, check_digest
from pykka_imagestore.jobs.check.directory_marks import DirectoryMarks
from pykka_imagestore.jobs.check.expectations import Expectations, OpenedLayer
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.hard_links import HardLinkCheck
from pykka_imagestore.jobs.check.layer_tree import LayerTree, TooManyLookupsError, get_node
from pykka_imagestore.jobs.check.lower_links import LowerLinkCheck
from pykka_imagestore.jobs.check.names import NameCheck
from pykka_imagestore.jobs.check.nodes import NodeCheck
from pykka_imagestore.jobs.check.rebuilt_tar import RebuiltTar
from pykka_imagestore.jobs.check.replaced_files import ReplacedCheck
from pykka_imagestore.jobs.check.whiteouts import WhiteoutCheck
from pykka_imagestore.jobs.check.xattrs import XattrCheck
from pykka_imagestore.jobs.unpack.replaced import Undone
from pykka_imagestore.text import shown

# Lookups that an entry may take, as a multiple of those that the extractor may make for one: both paths of a link are
# resolved twice, and the names are counted afterwards.
_LOOKUPS = 4


def check_deeply(
    stored: Path, record: LayerRecord, limits: Limits, findings: Findings, tick: Callable[[int], object]
) -> None:
    """Check every byte of a stored layer, whose parts are all there.

    Args:
        stored: Its directory.
        record: Its record.
        limits: As when it was put.
        findings: Gets what is wrong, and what could not be checked.
        tick: Called now and then with the number of bytes that were hashed.

    Raises:
        OSError: A part is gone.
    """
    try:
        expected = Expectations(record, (stored / RECORD).lstat(), findings)
        with (
            _closing(os.open(stored / ROOTFS, DIRECTORY_FLAGS)) as root,
            _closing(os.open(stored / TAR_SPLIT, FILE_FLAGS)) as split,
        ):
            undone = _find_undone(stored, findings)
            if undone is None:
                return
            max_lookups = FREE_LOOKUPS + _LOOKUPS * limits.lookups * record.entries
            with closing(undone), closing(LayerTree(root, max_lookups)) as tree:
                layer = OpenedLayer(root, split, record, expected, tree, undone)
                DeepCheck(layer, limits, findings, tick).run()
    except PermissionError as error:
        findings.add_unchecked(f"cannot be read by this user: {error.strerror}")
    except TooManyLookupsError as error:
        findings.add_unchecked(f"has entries whose directories took more than {error} lookups to find")


class DeepCheck:
    """Goes through the entries of one layer, and has each compared with what it made."""

    def __init__(self, layer: OpenedLayer, limits: Limits, findings: Findings, tick: Callable[[int], object]) -> None:
        self._layer = layer
        self._limits = limits
        self._findings = findings
        self._tree = layer.tree
        self._undone = layer.undone
        self._tar = RebuiltTar(layer.split, findings, tick)
        self._names = NameCheck(layer, findings)
        self._marks = DirectoryMarks()
        xattrs = XattrCheck(layer.whiteouts, layer.expected, findings)
        self._nodes = NodeCheck(layer.expected, self._tar, self._marks, xattrs, findings)
        self._links = HardLinkCheck(layer, self._nodes, self._names, findings)
        self._lower_links = LowerLinkCheck(layer, findings)
        self._replaced = ReplacedCheck(layer, self._tar, self._nodes, self._links, self._marks, self._names, findings)
        self._whiteouts = WhiteoutCheck(layer, self._nodes, xattrs, self._replaced, self._marks, self._names, findings)

    def run(self) -> None:
        """Check the layer.

        Raises:
            TooManyLookupsError: Finding the directories of its entries takes too long.
        """
        if not self._check_entries():
            return
        check_digest(self._tar, self._layer, self._findings)
        self._check_implicit_directories()
        self._lower_links.check_all_met()
        self._whiteouts.check_all_met()
        self._names.check()
        check_checksums(self._layer, self._findings)

    def _check_entries(self) -> bool:
        """Return whether the tar could be read to its end."""
        entries, name = 0, b""
        try:
            for entry in read_entries(self._tar.source, self._limits):
                name = entry.name
                self._check_entry(entry)
                entries += 1
            self._tar.source.drain()
        except OverLimitError as error:
            self._findings.add_unchecked(f"has an entry {entries} that {error}; its bytes cannot be checked")
            return False
        except TarError as error:
            self._findings.add_fault(f"has a damaged {TAR_SPLIT}: after {entries} entries, {shown(name)} {error}")
            return False
        if entries != self._layer.record.entries:
            self._findings.add_fault(f"has {entries} entries, not {self._layer.record.entries} as its record says")
        return True

    def _check_entry(self, entry: Entry) -> None:
        parent, _, name = clean_path(entry.name).rpartition(b"/")
        if parent.startswith(WHITEOUT_META_PREFIX):
            self._check_hidden(entry, join(parent, name))
        elif name.startswith(WHITEOUT_PREFIX):
            self._tar.source.skip(entry.size)
            self._whiteouts.check(parent, name)
        elif entry.kind == CHARACTER_DEVICE and entry.major == entry.minor == 0:
            self._whiteouts.check(parent, WHITEOUT_PREFIX + name)
        elif entry.kind != HARD_LINK or not self._links.leads_to_itself(entry, join(parent, name)):
            self._check_work(entry, parent, name)

    def _check_hidden(self, entry: Entry, path: bytes) -> None:
        """Compare a file of aufs' bookkeeping, if it was kept for hard links."""
        number = self._undone.take(path) if entry.kind == FILE else None
        if number is None:
            self._tar.source.skip(entry.size)
        else:
            self._replaced.check(entry, path, number)

    def _check_work(self, entry: Entry, parent: bytes, name: bytes) -> None:
        """Compare what an entry made with the entry, wherever that lies now."""
        path = join(parent, name)
        number = self._undone.take(path)
        directory = -1
        if number is None:
            try:
                directory, real = self._tree.directory(parent)
            except OSError as error:
                self._findings.add_error(parent, error)
                self._tar.miss_body(entry)
                return
            path = join(real, name)
            number = self._undone.take(path) if real != parent else None
        if self._undone and entry.kind != DIRECTORY:
            self._marks.drop(path)
        if number is None and entry.kind == HARD_LINK and self._lower_links.has(path):
            self._lower_links.check(entry, path)
        elif number is None:
            self._check_made(entry, directory, path, name)
        else:
            self._replaced.check(entry, path, number)

    def _check_made(self, entry: Entry, directory: int, path: bytes, name: bytes) -> None:
        """Compare what lies in the tree with the entry that made it."""
        try:
            node = get_node(path, directory, name)
            self._names.add(path)
            if entry.kind == HARD_LINK:
                self._links.check(entry, node)
                return
            if entry.kind != DIRECTORY:
                self._names.add_file(node.status.st_nlink)
            self._nodes.check(entry, node)
        except OSError as error:
            self._findings.add_error(path, error)
            self._tar.miss_body(entry)

    def _check_implicit_directories(self) -> None:
        record = self._layer.record
        if record.HasField("implicit_root") and record.implicit_root == self._names.has_root:
            self._findings.add_fault("has a record that is wrong about whether an entry names the root")
        if not self._names.has_root:
            self._nodes.check_implicit(get_node(b"", self._layer.root, b""))
        for path in self._layer.record.implicit_directories:
            parent, _, name = path.rpartition(b"/")
            try:
                node = get_node(path, self._tree.directory(parent)[0], name)
                self._names.add(path)
                self._nodes.check_implicit(node)
            except OSError as error:
                self._findings.add_error(path, error)


def _find_undone(stored: Path, findings: Findings) -> Undone | None:
    """Return what a layer keeps of entries whose work was undone; None if that cannot be read."""
    try:
        return Undone(stored / REPLACED)
    except PermissionError as error:
        findings.add_unchecked(f"has a directory {REPLACED} that this user cannot read: {error.strerror}")
    except OSError as error:
        findings.add_fault(f"has a directory {REPLACED} that cannot be read: {error.strerror}")
    return None


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
