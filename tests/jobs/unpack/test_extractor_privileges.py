from __future__ import annotations

import os
import stat

import pytest
from support import tars
from support.layers import unpack_and_look, unpack_layer
from support.privileges import as_ordinary_user, in_user_namespace, on_file_system

from pykka_imagestore._proto.layer_pb2 import FILES, OVERLAY_USER, LayerRecord
from pykka_imagestore.errors import LayerError
from pykka_imagestore.fs.remove_tree import remove_tree

root = pytest.mark.root
USER_OPAQUE = ("user.overlay.opaque", b"y")


EVERYTHING = tars.tar(
    tars.directory(b"./", mode=0o755, uid=7),
    tars.directory(b"d", mode=0o555, uid=7, mtime=1),
    tars.file(b"d/f", b"body", mode=0o644, uid=7, gid=8, mtime=2),
    tars.file(b"d/set-id", b"#!", mode=0o6755, uid=7, gid=8),
    tars.symlink(b"s", b"target", uid=7, mtime=3),
    tars.hard_link(b"l", b"d/f"),
    tars.header(b"null", tars.CHARACTER_DEVICE, mode=0o666, major=1, minor=3),
    tars.header(b"p", tars.FIFO, uid=7),
    tars.pax({b"SCHILY.xattr.user.a": b"1", b"SCHILY.xattr.trusted.a": b"2"}),
    tars.file(b"read-only", b"x", mode=0o444, uid=7),
    tars.whiteout(b"d/gone"),
    tars.opaque(b"d"),
)


def test_ordinary_user_gets_all_that_he_may_have(users_directory):
    unpacked = as_ordinary_user(unpack_layer, EVERYTHING, users_directory)

    nodes = unpacked.nodes
    assert {node.owner for node in nodes.values()} == {(users_directory.stat().st_uid, users_directory.stat().st_gid)}
    assert (nodes[b"d/f"].mode, nodes[b"d/f"].mtime_ns, nodes[b"d"].mode) == (0o644, 2 * 10**9, 0o555)
    assert nodes[b"s"].content == b"target"
    assert nodes[b"l"].same_as == nodes[b"d/f"].same_as
    assert nodes[b"p"].kind == "p"
    assert b"null" not in nodes
    assert (users_directory / "layer" / "rootfs" / "d" / "f").read_bytes() == b"body"


def test_ordinary_user_reads_in_the_record_what_he_did_not_get(users_directory):
    unpacked = as_ordinary_user(unpack_layer, EVERYTHING, users_directory)

    owners = {path for path, what in unpacked.unset if what == "owner"}
    assert owners == {b"", b"d", b"d/f", b"d/set-id", b"s", b"p", b"read-only"}
    assert (b"null", "device") in unpacked.unset
    assert (b"read-only", "xattr trusted.a") in unpacked.unset
    assert unpacked.record.unset_count == len(unpacked.unset)


def test_ordinary_user_gets_the_attributes_of_a_file_that_nobody_may_write(users_directory):
    unpacked = as_ordinary_user(unpack_layer, EVERYTHING, users_directory)

    node = unpacked.nodes[b"read-only"]
    if (b"read-only", "xattr user.a") not in unpacked.unset or node.xattrs:
        assert (node.mode, node.xattrs) == (0o444, (("user.a", b"1"),))
    else:
        pytest.skip("this file system has no user attributes")


def test_program_that_lost_its_owner_runs_with_nobodys_rights(users_directory):
    unpacked = as_ordinary_user(unpack_layer, EVERYTHING, users_directory)

    assert unpacked.nodes[b"d/set-id"].mode == 0o755
    assert (b"d/set-id", "mode") in unpacked.unset


def test_ordinary_user_gets_whiteouts_in_the_best_form_there_is(users_directory):
    unpacked = as_ordinary_user(unpack_layer, EVERYTHING, users_directory)

    form = unpacked.record.whiteouts
    assert form in (OVERLAY_USER, FILES)
    if form == OVERLAY_USER:
        assert (unpacked.nodes[b"d/gone"].kind, unpacked.nodes[b"d/gone"].content) == ("c", b"0:0")
        assert unpacked.nodes[b"d"].xattrs == (USER_OPAQUE,)
    else:
        assert {b"d/.wh.gone", b"d/.wh..wh..opq"} <= set(unpacked.nodes)


LOCKED = tars.tar(
    tars.directory(b"./", mode=0),
    tars.directory(b"a", mode=0, mtime=1),
    tars.directory(b"a/b", mode=0, mtime=2),
    tars.file(b"a/b/f", b"x", mode=0),
    tars.directory(b"c", mode=0o444),
    tars.file(b"c/f"),
)


def test_ordinary_user_gets_directories_that_he_may_not_enter(users_directory):
    unpacked = as_ordinary_user(unpack_layer, LOCKED, users_directory)

    assert stat.S_IMODE(unpacked.rootfs.stat().st_mode) == 0
    if os.geteuid() == 0:
        assert {path: oct(node.mode) for path, node in unpacked.nodes.items()} == {
            b"": "0o0",
            b"a": "0o0",
            b"a/b": "0o0",
            b"a/b/f": "0o0",
            b"c": "0o444",
            b"c/f": "0o644",
        }


def test_ordinary_user_can_remove_directories_that_he_may_not_enter(users_directory):
    unpacked = as_ordinary_user(unpack_layer, LOCKED, users_directory)

    as_ordinary_user(remove_tree, str(unpacked.target))

    assert not unpacked.target.exists()


def test_ordinary_users_failure_leaves_nothing_behind_locked_directories_or_not(users_directory):
    with pytest.raises(LayerError, match=r"entry 6 '../f' points outside"):
        as_ordinary_user(unpack_layer, LOCKED[:-1024] + tars.tar(tars.file(b"../f")), users_directory)

    assert os.listdir(users_directory) == ["layer.tar"]


@root
def test_root_of_a_user_namespace_reads_in_the_record_which_owners_it_has_not(tmp_path):
    unpacked = in_user_namespace(unpack_layer, EVERYTHING, tmp_path)

    assert (b"d/f", "owner") in unpacked.unset
    assert (b"null", "device") in unpacked.unset
    assert unpacked.nodes[b"d/f"].mode == 0o644
    assert unpacked.record.whiteouts == OVERLAY_USER
    assert unpacked.nodes[b"d"].xattrs == (USER_OPAQUE,)


@root
def test_whiteouts_are_kept_as_files_where_there_are_no_attributes(tmp_path):
    data = tars.tar(
        tars.file(b"d/f"), tars.whiteout(b"d/gone"), tars.opaque(b"e"), tars.whiteout(b"both"), tars.file(b"both")
    )

    nodes, record = on_file_system("ramfs", "mode=700", str(tmp_path), unpack_and_look, data, tmp_path)

    assert LayerRecord.FromString(record).whiteouts == FILES
    assert {path: node.kind for path, node in nodes.items() if path} == {
        b"d": "d",
        b"d/f": "f",
        b"d/.wh.gone": "f",
        b"e": "d",
        b"e/.wh..wh..opq": "f",
        b".wh.both": "f",
        b"both": "f",
    }


@root
def test_device_that_overlay_takes_for_a_whiteout_is_kept_as_a_file_too(tmp_path):
    data = tars.tar(tars.header(b"gone", tars.CHARACTER_DEVICE))

    nodes, _ = on_file_system("ramfs", "mode=700", str(tmp_path), unpack_and_look, data, tmp_path)

    assert set(nodes) == {b"", b".wh.gone"}
