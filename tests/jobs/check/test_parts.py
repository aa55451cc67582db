"""Damage to the parts of a layer beside its tree: the record, the tar-split, and parts that are missing."""

from __future__ import annotations

import shutil

import pytest
from support import tars
from support.damage import faults, replace_by_symlink
from support.layer_samples import PARTS
from support.layers import unpack_layer

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.jobs.check.findings import LayerCheck
from pykka_imagestore.jobs.check_layer import CheckLayer, check_layer

root = pytest.mark.root
SOUND = LayerCheck()


def test_damage_to_the_split_is_a_sentence(layer):
    split = layer.target / "tar-split.zst"
    sound = split.read_bytes()
    for position in range(len(sound)):
        split.write_bytes(sound[:position] + bytes([sound[position] ^ 0x41]) + sound[position + 1 :])

        found = faults(layer)

        assert found[0].startswith(("has a damaged tar-split.zst: ", "has other bytes than it was put with")), position
        assert all(fault.isprintable() for fault in found)


@pytest.mark.parametrize("left", [0, 3, 100, -1])
def test_split_that_is_cut_off_is_damaged(layer, left):
    split = layer.target / "tar-split.zst"
    split.write_bytes(split.read_bytes()[:left])

    assert faults(layer) != ()


def test_split_of_another_layer_is_found(layer, tmp_path):
    (tmp_path / "other").mkdir()
    other = unpack_layer(tars.tar(*PARTS), tmp_path / "other")
    shutil.copy(other.target / "tar-split.zst", layer.target)
    record = layer.record
    record.split_bytes = other.record.split_bytes
    layer.write_record(record)

    (found,) = faults(layer)

    assert found.endswith(f"together they are {other.counts.diff_id}")


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda t: (t / "layer.pb").unlink(), "has no sound record layer.pb: it cannot be read: No such file"),
        (lambda t: (t / "layer.pb").write_bytes(b"?"), "has no sound record layer.pb: it is no LayerRecord"),
        (lambda t: shutil.rmtree(t / "rootfs"), "lacks its directory rootfs"),
        (lambda t: replace_by_symlink(t / "rootfs"), "has a rootfs that is no directory"),
        (lambda t: (t / "tar-split.zst").unlink(), "lacks its file tar-split.zst"),
        (lambda t: replace_by_symlink(t / "tar-split.zst"), "has a tar-split.zst that is no file"),
    ],
)
def test_missing_part_is_found_deep_or_not(layer, do, said, deep):
    do(layer.target)

    found, *_ = check_layer(CheckLayer(str(layer.target), layer.counts.diff_id, deep)).faults

    assert found.startswith(said)


@pytest.mark.parametrize("deep", [True, False])
def test_layer_that_is_another_is_found(layer, deep):
    other = DiffID("sha256:" + "0" * 64)

    found = check_layer(CheckLayer(str(layer.target), other, deep))

    assert found.faults == (f"has the record of another layer, {layer.counts.diff_id}",)


@pytest.mark.parametrize(("field", "said"), [("entries", "entries, not 99"), ("size_bytes", "bytes, not 99")])
def test_record_that_says_something_else_is_found(layer, field, said):
    record = layer.record
    setattr(record, field, 99)
    layer.write_record(record)

    (found,) = faults(layer)

    assert f"{said} as its record says" in found


HIDING = tars.tar(tars.directory(b"d"), tars.whiteout(b"d/f"), tars.file(b"e/f"))
WRONG = "has a record that is wrong about whether {} has whiteouts"


@root
@pytest.mark.parametrize(
    ("said", "wrong"),
    [([b"d"], []), ([], ["'d'"]), ([b"d", b"e"], ["'e'"]), ([b"", b"d"], ["''"]), ([b"nowhere"], ["'d'", "'nowhere'"])],
)
def test_record_of_which_directories_hide_something_is_compared(tmp_path, said, wrong):
    unpacked = unpack_layer(HIDING, tmp_path)
    record = unpacked.record
    record.hiding_directories[:] = said
    unpacked.write_record(record)

    assert faults(unpacked) == tuple(WRONG.format(path) for path in wrong)


@root
def test_record_may_name_directories_whose_whiteouts_were_replaced(tmp_path):
    unpacked = unpack_layer(tars.tar(tars.whiteout(b"d/f"), tars.file(b"d/f")), tmp_path)

    assert unpacked.record.hiding_directories == [b"d"]
    assert unpacked.check() == SOUND


def test_layer_of_an_older_version_is_unchecked_and_not_bad(layer):
    record = layer.record
    record.ClearField("stored_bytes")
    layer.write_record(record)
    layer.forget_what_is_new()
    (layer.target / "tar-split.zst").unlink()

    quick = check_layer(CheckLayer(str(layer.target), layer.counts.diff_id))

    assert quick == SOUND
    assert layer.check() == LayerCheck(
        (), ("was put by an older version that kept no tar-split.zst, so its bytes cannot be checked",)
    )
