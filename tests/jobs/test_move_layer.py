from __future__ import annotations

import os

import pytest
from support.disks import DyingDisk, PowerCutError, RecordingDisk

from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.jobs.move_layer import MoveLayer, move_layer


@pytest.fixture
def move(tmp_path):
    """Return a move of a staged layer into a store."""
    (tmp_path / "staging" / "layer" / "rootfs").mkdir(parents=True)
    (tmp_path / "staging" / "layer" / "rootfs" / "etc").write_bytes(b"root")
    (tmp_path / "staging" / "layer" / "layer.pb").write_bytes(b"record")
    (tmp_path / "layers").mkdir()
    return MoveLayer(str(tmp_path / "staging" / "layer"), str(tmp_path / "layers" / "sha256-1"))


def is_whole(layer):
    return (
        sorted(os.listdir(layer)) == ["layer.pb", "rootfs"]
        and (layer / "rootfs" / "etc").read_bytes() == b"root"
        and (layer / "layer.pb").read_bytes() == b"record"
    )


@pytest.mark.parametrize("calls_before_cut", range(3))
def test_move_layer_is_all_or_nothing_across_a_power_cut(tmp_path, move, calls_before_cut):
    source, target = tmp_path / "staging" / "layer", tmp_path / "layers" / "sha256-1"

    with pytest.raises(PowerCutError):
        move_layer(move, on=DyingDisk(calls_before_cut))

    assert source.exists() != target.exists()
    assert is_whole(source if source.exists() else target)
    assert target.exists() == (calls_before_cut == 2)


@pytest.mark.parametrize("calls_before_cut", range(3))
def test_move_layer_again_after_a_power_cut_ends_with_a_durable_layer(tmp_path, move, calls_before_cut):
    with pytest.raises(PowerCutError):
        move_layer(move, on=DyingDisk(calls_before_cut))
    recorder = RecordingDisk()

    move_layer(move, on=recorder)

    assert is_whole(tmp_path / "layers" / "sha256-1")
    assert recorder.calls[-1] == ("sync_directory", "layers")


def test_move_layer_syncs_the_bytes_then_renames_then_syncs_the_name(move):
    recorder = RecordingDisk()

    move_layer(move, on=recorder)

    assert recorder.calls == [
        ("sync_file_system", "layer"),
        ("rename", "layer", "sha256-1"),
        ("sync_directory", "layers"),
    ]


def test_layer_that_is_there_already_stays(tmp_path, move):
    there = tmp_path / "layers" / "sha256-1"
    there.mkdir()
    (there / "rootfs").mkdir()
    inode = there.stat().st_ino

    move_layer(move)

    assert there.stat().st_ino == inode
    assert is_whole(tmp_path / "staging" / "layer")


def test_layer_that_another_moves_there_meanwhile_stays(tmp_path, move):
    there = tmp_path / "layers" / "sha256-1"

    class BusyDisk(Disk):
        def rename(self, source, target):
            (there / "rootfs").mkdir(parents=True)
            super().rename(source, target)

    move_layer(move, on=BusyDisk())

    assert os.listdir(there) == ["rootfs"]
    assert is_whole(tmp_path / "staging" / "layer")


def test_move_to_another_file_system_fails_and_leaves_the_layer_where_it_is(tmp_path, move):
    class OtherDisk(Disk):
        def rename(self, *_):
            raise OSError(18, "Invalid cross-device link")

    with pytest.raises(OSError, match="cross-device"):
        move_layer(move, on=OtherDisk())

    assert is_whole(tmp_path / "staging" / "layer")
    assert os.listdir(tmp_path / "layers") == []


def test_move_that_is_not_durable_renames_and_syncs_nothing(tmp_path, move, monkeypatch):
    def fail(*_):
        raise AssertionError

    for call in ("sync_file", "sync_directory", "sync_file_system"):
        monkeypatch.setattr(Disk, call, fail)

    move_layer(MoveLayer(move.source, move.target, durable=False))

    assert is_whole(tmp_path / "layers" / "sha256-1")
