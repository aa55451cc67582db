"""Entries at random against a model of what they mean: a dict, and the rules of the image specification."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tars
from support.layers import unpack_layer, unpack_with_peers

from pykka_imagestore.errors import LayerError

pytestmark = pytest.mark.root
OPAQUE = ("trusted.overlay.opaque", b"y")


class RefusedError(Exception):
    """The model refuses an entry."""


class Layer:
    """What a layer's entries mean, in their order.

    Each path has a kind (``f``, ``l``, ``d`` or ``w`` for a whiteout) and the number of its file; directories may be
    opaque, or implicit. Hard links to files of lower layers lie beside: where they are, there may be a whiteout.
    """

    def __init__(self):
        self.kinds, self.files = {}, {}
        self.opaque, self.implicit = set(), set()
        self.links = {}
        self._numbers = itertools.count()

    def add(self, action, path, target):
        self._make_parents(path)
        getattr(self, action)(path, target)

    def file(self, path, _):
        self._replace(path, "f")

    def symlink(self, path, _):
        self._replace(path, "l")

    def hard_link(self, path, target):
        if self.kinds.get(target) == "d":
            raise RefusedError
        if self.kinds.get(target) not in ("f", "l"):
            self._link_to_lower(path, target)
        elif path != target:
            kind, number = self.kinds[target], self.files[target]
            if target.startswith(path + b"/"):
                raise RefusedError
            self._replace(path, kind)
            self.files[path] = number

    def _link_to_lower(self, path, target):
        leads_to = self.links.get(target)
        if path == target:
            if leads_to is None:
                raise RefusedError
            return
        is_whiteout = self.kinds.get(path) == "w"
        self._remove(path)
        if is_whiteout:
            self.kinds[path] = "w"
        self.links[path] = leads_to or target

    def directory(self, path, _):
        kind = self.kinds.get(path)
        if kind != "d":
            self._replace(path, "d")
            if kind == "w":
                self.opaque.add(path)
        self.implicit.discard(path)

    def whiteout(self, path, _):
        if self.kinds.get(path) == "d":
            self.opaque.add(path)
        elif path not in self.kinds:
            self.kinds[path] = "w"

    def make_opaque(self, path, _):
        self._make_parents(path + b"/x")
        self.opaque.add(path)

    def _make_parents(self, path):
        parts = path.split(b"/")[:-1]
        for parent in itertools.accumulate(parts, lambda above, name: above + b"/" + name):
            kind = self.kinds.get(parent)
            if parent in self.links:
                raise RefusedError
            if kind in (None, "w"):
                self.kinds[parent] = "d"
                self.implicit.add(parent)
                if kind == "w":
                    self.opaque.add(parent)
            elif kind != "d":
                raise RefusedError

    def _replace(self, path, kind):
        self._remove(path)
        self.kinds[path] = kind
        if kind in ("f", "l"):
            self.files[path] = next(self._numbers)

    def _remove(self, path):
        self.links = {
            link: target for link, target in self.links.items() if link != path and not link.startswith(path + b"/")
        }
        for gone in [known for known in self.kinds if known == path or known.startswith(path + b"/")]:
            del self.kinds[gone]
            self.files.pop(gone, None)
            self.opaque.discard(gone)
            self.implicit.discard(gone)


WRITTEN: dict[str, Callable[[bytes, bytes], bytes]] = {
    "file": lambda path, _: tars.file(path, b"x"),
    "symlink": lambda path, _: tars.symlink(path, b"/nowhere"),
    "hard_link": tars.hard_link,
    "directory": lambda path, _: tars.directory(path),
    "whiteout": lambda path, _: tars.whiteout(path),
    "make_opaque": lambda path, _: tars.opaque(path),
}
# Symlinks, by whatever way, have names that are nobody's parent: where parents lead is for other tests.
paths = st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=3).map(b"/".join)
leaves = st.tuples(paths, st.sampled_from([b"s", b"t"])).map(b"/".join)
steps = st.one_of(
    st.tuples(st.sampled_from([action for action in WRITTEN if action != "symlink"]), paths, paths),
    st.tuples(st.sampled_from(["symlink", "file", "hard_link", "whiteout"]), leaves, paths | leaves),
)


def grouped(files):
    """Return files that are one, by their first path."""
    first = {}
    return {path: first.setdefault(number, path) for path, number in sorted(files.items())}


@settings(max_examples=150)
@given(st.lists(steps, min_size=1, max_size=10))
def test_layer_is_what_its_entries_mean(sequence):
    assert_is_what_its_entries_mean(sequence, unpack_layer)


@settings(max_examples=100)
@given(st.lists(steps, min_size=1, max_size=10))
def test_layer_that_peers_help_with_is_what_its_entries_mean(sequence):
    assert_is_what_its_entries_mean(sequence, unpack_with_peers)


def assert_is_what_its_entries_mean(sequence, unpack):
    data = tars.tar(*(WRITTEN[action](path, target) for action, path, target in sequence))
    shown = Layer()
    layer: Layer | None = shown
    try:
        for step in sequence:
            shown.add(*step)
    except RefusedError:
        layer = None

    with tempfile.TemporaryDirectory() as directory:
        if layer is None:
            with pytest.raises(LayerError):
                unpack(data, directory)
            return
        unpacked = unpack(data, directory)
        nodes = {path: node for path, node in unpacked.nodes.items() if path}
        record = unpacked.record

    assert {path: "w" if node.kind == "c" else node.kind for path, node in nodes.items()} == layer.kinds
    assert {path for path, node in nodes.items() if OPAQUE in node.xattrs} == layer.opaque
    assert {path: node.same_as for path, node in nodes.items() if node.kind in "fl"} == grouped(layer.files)
    assert set(record.implicit_directories) == layer.implicit
    assert set(record.opaque_directories) == layer.opaque
    hiding = {path.rpartition(b"/")[0] for path, kind in layer.kinds.items() if kind == "w"}
    directories = {path for path, kind in layer.kinds.items() if kind == "d"} | {b""}
    assert hiding <= set(record.hiding_directories) <= directories
    assert record.hiding_directories == sorted(set(record.hiding_directories))
    assert {link.path: link.target for link in record.lower_links} == layer.links
