"""What later entries of a layer replaced is checked, too."""

from __future__ import annotations

import os
import shutil

import pytest
from support import seams, tars
from support.damage import faults, flip
from support.layer_samples import NEW, OLD, OWNER, REPLACED, UNCHECKABLE
from support.layers import unpack_layer, unpack_with_peers

from pykka_imagestore.jobs.check.findings import LayerCheck

root = pytest.mark.root
SOUND = LayerCheck()


@pytest.mark.parametrize("unpack", [unpack_layer, unpack_with_peers])
@pytest.mark.parametrize("case", REPLACED)
def test_layer_that_replaces_its_own_files_is_checked_whole(tmp_path, case, unpack):
    unpacked = unpack(tars.tar(*REPLACED[case]), tmp_path)

    assert unpacked.check() == SOUND


@pytest.mark.parametrize("unpack", [unpack_layer, unpack_with_peers])
def test_damage_to_what_was_replaced_is_found(tmp_path, unpack):
    unpacked = unpack(tars.tar(OLD, NEW), tmp_path)
    flip(unpacked.target / "replaced" / "0", 7)

    (found,) = faults(unpacked)

    assert found.startswith("has other bytes than it was put with")


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda directory: (directory / "0").unlink(), "lacks 'replaced/0'"),
        (lambda directory: (directory / "paths").unlink(), "has a directory replaced that cannot be read"),
        (lambda directory: (directory / "paths").write_bytes(b""), "has 'd/f' of 3 bytes, not 3000"),
        (shutil.rmtree, "has 'd/f' of 3 bytes, not 3000"),
        (
            lambda directory: (shutil.rmtree(directory), directory.symlink_to("rootfs")),
            "has a directory replaced that cannot be",
        ),
    ],
)
def test_loss_of_what_was_replaced_is_found(tmp_path, do, said):
    unpacked = unpack_layer(tars.tar(OLD, NEW), tmp_path)
    do(unpacked.target / "replaced")

    assert faults(unpacked)[0].startswith(said)


def test_file_beside_one_that_is_linked_to_itself_is_found(tmp_path):
    unpacked = unpack_layer(tars.tar(tars.file(b"f", b"1", **OWNER), tars.hard_link(b"f", b"./f")), tmp_path)
    (unpacked.rootfs / "g").touch()

    assert faults(unpacked) == ("has 'g', which no entry made",)


def test_empty_file_that_was_replaced_is_not_kept(tmp_path):
    unpacked = unpack_layer(tars.tar(tars.file(b"d/f", **OWNER), NEW), tmp_path)

    assert os.listdir(unpacked.target / "replaced") == ["paths"]


def test_nothing_is_kept_where_nothing_was_replaced(layer):
    assert sorted(os.listdir(layer.target)) == ["layer.pb", "rootfs", "tar-split.zst"]


@pytest.mark.parametrize("limit", [seams.REPLACED_FILES, seams.REPLACED_PATHS_BYTES])
def test_layer_that_replaces_too_much_is_unchecked_and_not_bad(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(limit, 8)
    parts = [tars.file(b"f", b"%d" % number, **OWNER) for number in range(20)]

    unpacked = unpack_layer(tars.tar(*parts), tmp_path)

    assert unpacked.check() == LayerCheck(
        (), ("replaces its own files in a way that was not kept, so its bytes cannot be checked",)
    )
    assert len(os.listdir(unpacked.target / "replaced")) < 10


def test_symlink_on_the_way_that_is_replaced_leaves_the_layer_unchecked(tmp_path):
    unpacked = unpack_layer(UNCHECKABLE, tmp_path)

    assert unpacked.check().faults == ()
    assert unpacked.check().unchecked != ()


def test_files_behind_symlinks_are_found(tmp_path):
    parts = (
        tars.directory(b"usr/lib", **OWNER),
        tars.symlink(b"lib", b"usr/lib", **OWNER),
        tars.symlink(b"usr/up", b"../lib/../../lib", **OWNER),
        tars.file(b"lib/a", b"old", **OWNER),
        tars.file(b"usr/up/a", b"new", **OWNER),
        tars.hard_link(b"lib/b", b"usr/up/a"),
        tars.file(b"lib/c/d", b"1", **OWNER),
    )
    unpacked = unpack_layer(tars.tar(*parts), tmp_path)
    assert unpacked.check() == SOUND
    (unpacked.rootfs / "usr/lib/b").unlink()

    assert faults(unpacked) == ("lacks 'usr/lib/b'",)


@pytest.mark.parametrize("target", ["lib", "s", "nowhere", "f", "s/.."])
def test_symlink_that_leads_elsewhere_now_is_found(tmp_path, target):
    parts = (
        tars.file(b"f", **OWNER),
        tars.symlink(b"s", b"lib", **OWNER),
        tars.symlink(b"lib", b"usr/lib", **OWNER),
        tars.file(b"lib/a", b"1", **OWNER),
    )
    unpacked = unpack_layer(tars.tar(*parts), tmp_path)
    (unpacked.rootfs / "lib").unlink()
    (unpacked.rootfs / "lib").symlink_to(target)

    assert faults(unpacked)[0] == f"has a symlink 'lib' to '{target}', not to 'usr/lib'"
