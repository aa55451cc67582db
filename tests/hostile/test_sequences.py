"""Entries at random, in any order: nothing outside changes, and the outcome is a layer or a sentence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from support import tars
from support.layers import unpack_layer
from support.trees import describe

from pykka_imagestore.errors import LayerError

names = st.sampled_from(
    [b"a", b"b", b"..", b".", b"", b".wh.a", b".wh.b", b".wh..wh..opq", b".wh..", b"outside", b"secret"]
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
targets = paths | st.sampled_from([b"../../outside", b"/outside", b"../outside/secret", b"/", b"..", b"a/b", b"b/a"])
# An ordinary user could not look at what lies in directories without permissions.
modes = st.sampled_from([0, 0o644, 0o755, 0o7777] if os.geteuid() == 0 else [0o700, 0o7777])
owners = st.sampled_from([0, 1000])
entries = st.one_of(
    st.builds(tars.file, paths, st.binary(max_size=3), mode=modes, uid=owners),
    st.builds(tars.directory, paths, mode=modes, uid=owners),
    st.builds(tars.symlink, paths, targets),
    st.builds(tars.symlink, paths, targets),
    st.builds(tars.hard_link, paths, targets),
    st.builds(tars.header, paths, st.just(tars.FIFO), mode=modes),
    st.builds(tars.header, paths, st.just(tars.CHARACTER_DEVICE)),
    st.builds(
        lambda path, entry: tars.pax({b"path": path, b"SCHILY.xattr.trusted.overlay.opaque": b"y"}) + entry,
        paths,
        st.just(tars.file(b"x")),
    ),
)


def outcome(data, place):
    """Return what a layer becomes: nodes, without times that none of its entries gives; or a sentence."""
    try:
        unpacked = unpack_layer(data, place)
    except LayerError as error:
        assert not (place / "layer").exists()
        return str(error)
    implicit = set(unpacked.record.implicit_directories)
    assert implicit <= {path for path, node in unpacked.nodes.items() if node.kind == "d"}
    return {
        path: (node.kind, node.mode, node.owner, node.content, node.xattrs, node.same_as)
        for path, node in unpacked.nodes.items()
    }


@settings(max_examples=250)
@given(st.lists(entries, min_size=1, max_size=8))
def test_entries_at_random_change_nothing_outside_and_give_the_same_layer_twice(parts):
    with tempfile.TemporaryDirectory() as directory:
        place, outside = Path(directory, "place"), Path(directory, "outside")
        place.mkdir()
        for witness in (outside, place / "outside"):
            (witness / "a").mkdir(parents=True)
            (witness / "secret").write_bytes(b"unchanged")
        before = describe(outside), describe(place / "outside")
        data = tars.tar(*parts)

        first, second = outcome(data, place), outcome(data, place)

        assert first == second
        assert (describe(outside), describe(place / "outside")) == before
        assert set(os.listdir(place)) <= {"layer", "layer.tar", "outside"}
