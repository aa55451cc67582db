from __future__ import annotations

import os

import pytest
from support import seams, tars
from support.layers import refusal, unpack_with_peers

from pykka_imagestore.core.limits import Limits
from pykka_imagestore.errors import LayerError

PLNK = b".wh..wh.plnk/7.1"
BODY = b"x" * 5000


def test_hard_links_into_the_bookkeeping_of_aufs_are_one_file(unpack):
    unpacked = unpack(
        tars.directory(b".wh..wh.plnk"),
        tars.file(PLNK, BODY, mode=0o755, mtime=7),
        tars.hard_link(b"bin/a", PLNK),
        tars.hard_link(b"b", b"/./" + PLNK),
    )

    assert unpacked.kinds == {b"bin": "[d]", b"bin/a": "f", b"b": "f"}
    assert (unpacked.rootfs / "b").read_bytes() == BODY
    assert (unpacked.rootfs / "b").samefile(unpacked.rootfs / "bin/a")
    assert (unpacked.nodes[b"b"].mode, unpacked.nodes[b"b"].mtime_ns) == (0o755, 7 * 10**9)


@pytest.mark.root
def test_file_of_the_bookkeeping_has_its_attributes(unpack):
    xattr = tars.pax({b"SCHILY.xattr.user.a": b"b"})

    unpacked = unpack(xattr + tars.file(PLNK, BODY, mode=0o4755, uid=5, gid=6), tars.hard_link(b"a", PLNK))

    node = unpacked.nodes[b"a"]
    assert (node.mode, node.owner, node.xattrs) == (0o4755, (5, 6), (("user.a", b"b"),))


def test_empty_file_and_one_without_links_are_sound(unpack):
    unpacked = unpack(
        tars.file(b".wh..wh.plnk/empty"),
        tars.file(b".wh..wh.orph/alone", BODY),
        tars.hard_link(b"a", b".wh..wh.plnk/empty"),
        tars.hard_link(b"b", b".wh..wh.plnk/empty"),
    )

    assert unpacked.kinds == {b"a": "f", b"b": "f"}
    assert (unpacked.rootfs / "a").samefile(unpacked.rootfs / "b")


def test_sparse_file_of_the_bookkeeping_has_its_holes(unpack):
    unpacked = unpack(tars.gnu_sparse(PLNK, 1 << 20, [(4096, 5)], b"hello"), tars.hard_link(b"a", PLNK))

    assert (unpacked.rootfs / "a").stat().st_size == 1 << 20
    assert (unpacked.rootfs / "a").stat().st_blocks <= 16


def test_link_is_to_the_latest_file_of_the_name(unpack):
    unpacked = unpack(
        tars.file(PLNK, b"first"),
        tars.hard_link(b"a", PLNK),
        tars.file(PLNK, b"second"),
        tars.hard_link(b"b", PLNK),
    )

    assert [(unpacked.rootfs / name).read_bytes() for name in "ab"] == [b"first", b"second"]


@pytest.mark.parametrize("what", [tars.file(b"a", b"old"), tars.directory(b"a") + tars.file(b"a/f", b"old")])
def test_link_replaces_what_is_there_and_is_replaced(unpack, what):
    unpacked = unpack(
        tars.file(PLNK, BODY), what, tars.hard_link(b"a", PLNK), tars.hard_link(b"b", PLNK), tars.file(b"b", b"new")
    )

    assert (unpacked.rootfs / "a").read_bytes() == BODY
    assert (unpacked.rootfs / "b").read_bytes() == b"new"


def test_peers_change_nothing(tmp_path):
    files = [tars.file(b"d/%d" % number, BODY) for number in range(50)]
    links = [tars.hard_link(b"d/%d" % number, PLNK) for number in range(0, 50, 2)]

    unpacked = unpack_with_peers(tars.tar(*files[:25], tars.file(PLNK, b"plnk"), *files[25:], *links), tmp_path)

    assert (unpacked.rootfs / "d/48").read_bytes() == b"plnk"
    assert (unpacked.rootfs / "d/48").stat().st_nlink == 26  # one lies in replaced/


def test_damage_is_found(unpack):
    unpacked = unpack(tars.file(PLNK, BODY), tars.hard_link(b"a", PLNK))
    (unpacked.rootfs / "a").write_bytes(b"y" * len(BODY))
    os.utime(unpacked.rootfs / "a", ns=(0, 0))

    assert unpacked.check().faults


def test_link_that_was_exchanged_for_a_copy_is_found(unpack):
    unpacked = unpack(tars.file(PLNK, BODY), tars.hard_link(b"a", PLNK))
    (unpacked.rootfs / "a").unlink()
    (unpacked.rootfs / "a").write_bytes(BODY)

    assert any("no hard link to '.wh..wh.plnk/7.1'" in fault for fault in unpacked.check().faults)


@pytest.mark.parametrize(
    "entries",
    [
        [tars.hard_link(b"a", PLNK)],
        [tars.hard_link(b"a", PLNK), tars.file(PLNK, BODY)],
        [tars.file(PLNK, BODY), tars.hard_link(b"a", b".wh..wh.plnk")],
        [tars.file(PLNK, BODY), tars.hard_link(b"a", b"x/" + PLNK)],
        [tars.symlink(PLNK, b"/etc/passwd"), tars.hard_link(b"a", PLNK)],
        [tars.file(PLNK, BODY), tars.symlink(PLNK, b"/etc/passwd"), tars.hard_link(b"a", PLNK)],
        [tars.hard_link(PLNK, b"/etc/passwd"), tars.hard_link(b"a", PLNK)],
        [tars.symlink(b"s", b".wh..wh.plnk"), tars.file(PLNK, BODY), tars.hard_link(b"a", b"s/7.1")],
    ],
)
def test_link_to_no_file_of_the_bookkeeping_is_refused(unpack, entries):
    with pytest.raises(LayerError, match="no file of this layer"):
        unpack(*entries)


@pytest.mark.parametrize(("limit", "value"), [(seams.HIDDEN_FILES, 2), (seams.HIDDEN_PATHS_BYTES, 2 * len(PLNK))])
def test_what_is_too_much_is_left_out_and_links_to_it_are_refused(unpack, monkeypatch, limit, value):
    monkeypatch.setattr(limit, value)
    files = [tars.file(b".wh..wh.plnk/7.%d" % number, BODY) for number in range(4)]

    unpacked = unpack(*files, tars.file(b".wh..wh.plnk/7.1", b"later"), tars.hard_link(b"a", b".wh..wh.plnk/7.0"))

    assert unpacked.kinds == {b"a": "f"}
    for number in (1, 3):
        with pytest.raises(LayerError, match="no file of this layer"):
            unpack(*files, files[1], tars.hard_link(b"a", b".wh..wh.plnk/7.%d" % number))


def test_holes_of_hidden_files_count(tmp_path):
    layer = tars.tar(tars.gnu_sparse(PLNK, 1 << 30, [], b""))

    assert "layer_bytes" in refusal(layer, tmp_path, Limits(layer_bytes=1 << 20))
