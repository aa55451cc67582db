from __future__ import annotations

import itertools

import pytest
from support import tars

from pykka_imagestore._proto.layer_pb2 import NONE, OVERLAY_TRUSTED

root = pytest.mark.root
TRUSTED_OPAQUE = ("trusted.overlay.opaque", b"y")


@root
def test_whiteout_is_a_device_that_overlay_knows(unpack):
    unpacked = unpack(tars.directory(b"d"), tars.whiteout(b"d/gone"), tars.whiteout(b"too"))

    for path in (b"d/gone", b"too"):
        assert (unpacked.nodes[path].kind, unpacked.nodes[path].content) == ("c", b"0:0")
    assert unpacked.record.whiteouts == OVERLAY_TRUSTED
    assert unpacked.kinds == {b"d": "d", b"d/gone": "c", b"too": "c"}


@root
@pytest.mark.parametrize(
    "entries", [[tars.directory(b"d"), tars.opaque(b"d")], [tars.opaque(b"d"), tars.directory(b"d")]]
)
def test_opaque_mark_is_an_attribute_that_overlay_knows(unpack, entries):
    unpacked = unpack(*entries, tars.file(b"d/f"))

    assert unpacked.nodes[b"d"].xattrs == (TRUSTED_OPAQUE,)
    assert unpacked.kinds == {b"d": "d", b"d/f": "f"}
    assert unpacked.record.whiteouts == OVERLAY_TRUSTED


@root
def test_opaque_mark_alone_makes_its_directory(unpack):
    unpacked = unpack(tars.opaque(b"a/b"))

    assert unpacked.kinds == {b"a": "[d]", b"a/b": "[d]"}
    assert unpacked.nodes[b"a/b"].xattrs == (TRUSTED_OPAQUE,)
    assert unpacked.nodes[b"a"].xattrs == ()


@root
def test_root_may_be_opaque(unpack):
    unpacked = unpack(tars.opaque(b""), tars.file(b"f"))

    assert unpacked.nodes[b""].xattrs == (TRUSTED_OPAQUE,)


def test_layer_without_whiteouts_is_recorded_as_such(unpack):
    unpacked = unpack(tars.file(b"f"), tars.file(b".who"), tars.file(b"x.wh.y"))

    assert unpacked.record.whiteouts == NONE
    assert unpacked.kinds == {b"f": "f", b".who": "f", b"x.wh.y": "f"}


@root
@pytest.mark.parametrize(
    "whiteout", [tars.whiteout(b"foo"), tars.directory(b".wh.foo"), tars.hard_link(b".wh.foo", b"x")]
)
@pytest.mark.parametrize("real", [tars.file(b"foo", b"x"), tars.symlink(b"foo", b"x"), tars.hard_link(b"foo", b"x")])
@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_beside_the_real_thing_changes_nothing(unpack, whiteout, real, order):
    unpacked = unpack(tars.file(b"x"), *[whiteout, real][::order])

    assert unpacked.nodes[b"foo"] == unpack(tars.file(b"x"), real).nodes[b"foo"]
    assert b".wh.foo" not in unpacked.nodes


@root
@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_whiteout_beside_a_directory_makes_it_opaque(unpack, order):
    parts = [tars.whiteout(b"foo"), tars.directory(b"foo", mode=0o711, mtime=5), tars.file(b"foo/f", b"x")]

    unpacked = unpack(*(parts[number] for number in order))

    assert unpacked.kinds == {b"foo": "d", b"foo/f": "f"}
    node = unpacked.nodes[b"foo"]
    assert (node.mode, node.mtime_ns, node.xattrs) == (0o711, 5 * 10**9, (TRUSTED_OPAQUE,))


@root
def test_file_below_a_whiteout_makes_an_opaque_directory(unpack):
    unpacked = unpack(tars.whiteout(b"a"), tars.file(b"a/b/f"))

    assert unpacked.kinds == {b"a": "[d]", b"a/b": "[d]", b"a/b/f": "f"}
    assert unpacked.nodes[b"a"].xattrs == (TRUSTED_OPAQUE,)
    assert unpacked.nodes[b"a/b"].xattrs == ()


@root
def test_symlink_that_leads_below_a_whiteout_makes_an_opaque_directory(unpack):
    unpacked = unpack(tars.whiteout(b"a"), tars.symlink(b"s", b"a/b"), tars.file(b"s/f"))

    assert unpacked.kinds == {b"s": "l", b"a": "[d]", b"a/b": "[d]", b"a/b/f": "f"}
    assert unpacked.nodes[b"a"].xattrs == (TRUSTED_OPAQUE,)


@root
def test_whiteouts_twice_are_whiteouts_once(unpack):
    unpacked = unpack(tars.whiteout(b"a"), tars.whiteout(b"a"), tars.opaque(b"d"), tars.opaque(b"d"))

    assert unpacked.kinds == {b"a": "c", b"d": "[d]"}


@root
def test_hard_link_to_what_is_deleted_here_leads_to_the_file_below(unpack):
    unpacked = unpack(tars.whiteout(b"gone"), tars.hard_link(b"link", b"gone"))

    assert unpacked.kinds == {b"gone": "c"}
    assert unpacked.lower_links == {b"link": b"gone"}


@root
def test_device_that_overlay_takes_for_a_whiteout_is_recorded_as_one(unpack):
    unpacked = unpack(tars.header(b"gone", tars.CHARACTER_DEVICE))

    assert unpacked.kinds == {b"gone": "c"}
    assert unpacked.record.whiteouts == OVERLAY_TRUSTED


@root
def test_record_names_the_directories_that_hide_something(unpack):
    link = tars.symlink(b"s", b"e")
    unpacked = unpack(
        tars.whiteout(b"d/a"), tars.whiteout(b"d/b"), link, tars.whiteout(b"s/f"), tars.opaque(b"o"), tars.file(b"n/f")
    )

    assert unpacked.record.hiding_directories == [b"d", b"e"]


@root
def test_whiteout_in_a_directory_that_is_replaced_goes_with_it(unpack):
    unpacked = unpack(
        tars.whiteout(b"d/a"), tars.opaque(b"d"), tars.file(b"d"), tars.directory(b"d"), tars.file(b"d/a/f")
    )

    assert unpacked.kinds == {b"d": "d", b"d/a": "[d]", b"d/a/f": "f"}
    assert {node.xattrs for node in unpacked.nodes.values()} == {()}


@root
def test_whiteout_through_a_symlink_is_where_the_symlink_leads(unpack):
    unpacked = unpack(tars.symlink(b"s", b"real"), tars.whiteout(b"s/gone"), tars.opaque(b"s"))

    assert unpacked.kinds == {b"s": "l", b"real": "[d]", b"real/gone": "c"}
    assert unpacked.nodes[b"real"].xattrs == (TRUSTED_OPAQUE,)


def test_bookkeeping_of_aufs_is_left_out(unpack):
    unpacked = unpack(
        tars.directory(b".wh..wh.plnk"),
        tars.file(b".wh..wh.plnk/123.456", b"x" * 700),
        tars.directory(b".wh..wh.orph"),
        tars.file(b".wh..wh.aufs", b"x" * 700),
        tars.file(b"f"),
    )

    assert unpacked.kinds == {b"f": "f"}


def test_body_of_a_whiteout_is_passed_over(unpack):
    unpacked = unpack(tars.file(b".wh.gone", b"x" * 70_000), tars.file(b"f", b"y"))

    assert (unpacked.rootfs / "f").read_bytes() == b"y"
