from __future__ import annotations

import errno
import os

import pytest
from support import seams
from support.disks import DyingDisk, FailingDisk, PowerCutError, RecordingDisk

from pykka_imagestore.durable.disk import Disk, ForgetfulDisk, disk, write_whole


@pytest.mark.parametrize("calls_before_cut", range(3))
def test_write_is_all_or_nothing_across_a_power_cut(tmp_path, calls_before_cut):
    target, aside = tmp_path / "file", tmp_path / "file.new"
    target.write_bytes(b"old")

    with pytest.raises(PowerCutError):
        write_whole(target, b"new and longer", DyingDisk(calls_before_cut), aside=aside)

    assert target.read_bytes() == (b"old" if calls_before_cut < 2 else b"new and longer")


@pytest.mark.parametrize("calls_before_cut", range(3))
def test_write_after_a_power_cut_leaves_no_trace_of_the_first(tmp_path, calls_before_cut):
    target, aside = tmp_path / "file", tmp_path / "file.new"
    with pytest.raises(PowerCutError):
        write_whole(target, b"a long first try", DyingDisk(calls_before_cut), aside=aside)

    write_whole(target, b"second", Disk(), aside=aside)

    assert target.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["file"]


def test_write_syncs_the_bytes_then_renames_then_syncs_the_name(tmp_path):
    recorder = RecordingDisk()

    write_whole(tmp_path / "file", b"x", recorder, aside=tmp_path / "other")

    assert recorder.calls == [
        ("sync_file", "other"),
        ("rename", "other", "file"),
        ("sync_directory", tmp_path.name),
    ]


def test_bytes_are_written_before_they_are_synced(tmp_path):
    class LookingDisk(Disk):
        def sync_file(self, path):
            assert path.read_bytes() == b"x"
            super().sync_file(path)

    write_whole(tmp_path / "file", b"x", LookingDisk(), aside=tmp_path / "file.new")


@pytest.mark.parametrize("call", [Disk.sync_file, Disk.sync_directory, Disk.sync_file_system])
def test_syncing_what_is_there_works_and_what_is_not_fails(tmp_path, call):
    path = tmp_path / "it"
    path.touch() if call is Disk.sync_file else path.mkdir()

    call(Disk(), path)

    with pytest.raises(FileNotFoundError):
        call(Disk(), tmp_path / "missing")


def test_syncing_an_open_file_works_and_a_closed_one_fails(tmp_path):
    with open(tmp_path / "file", "wb", buffering=0) as file:
        file.write(b"x")
        Disk().sync_data(file.fileno())
        descriptor = os.dup(file.fileno())
    os.close(descriptor)

    with pytest.raises(OSError, match="Bad file descriptor"):
        Disk().sync_data(descriptor)


@pytest.mark.parametrize("failing", ["sync_file", "rename"])
def test_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, failing):
    (tmp_path / "file").write_bytes(b"old")

    with pytest.raises(OSError, match=failing):
        write_whole(tmp_path / "file", b"new", FailingDisk(failing), aside=tmp_path / "file.new")

    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_write_whose_name_is_not_synced_is_an_error_and_may_be_there(tmp_path):
    with pytest.raises(OSError, match="sync_directory"):
        write_whole(tmp_path / "file", b"new", FailingDisk("sync_directory"), aside=tmp_path / "file.new")

    assert (tmp_path / "file").read_bytes() == b"new"


def test_syncing_a_file_as_a_directory_fails(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        Disk().sync_directory(tmp_path / "file")


def test_failure_to_sync_is_an_error_with_the_path(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.SYNCFS, lambda _: errno.EIO)

    with pytest.raises(OSError, match=str(tmp_path)):
        Disk().sync_file_system(tmp_path)


def test_disk_that_is_not_durable_renames_and_syncs_nothing(tmp_path):
    forgetful = disk(durable=False)

    forgetful.sync_data(-1)
    for call in (forgetful.sync_file, forgetful.sync_directory, forgetful.sync_file_system):
        call(tmp_path / "missing")
    write_whole(tmp_path / "file", b"x", forgetful, aside=tmp_path / "file.new")

    assert isinstance(forgetful, ForgetfulDisk)
    assert (tmp_path / "file").read_bytes() == b"x"
    assert not isinstance(disk(durable=True), ForgetfulDisk)
