from __future__ import annotations

import os
import stat

import pytest
from disks import RecordingDisk

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.layout import (
    find_missing,
    find_orphaned_work,
    make_store,
    remove_config,
    remove_staging,
    take_out_layer,
    write_config,
)
from pykka_imagestore.durable.staging import Staging

ONE, TWO = DiffID(sha256(b"one")), DiffID(sha256(b"two"))


@pytest.fixture
def paths(tmp_path):
    paths = StorePaths(tmp_path / "deep" / "store")
    make_store(paths)
    return paths


def test_store_is_for_its_owner_alone(paths):
    for folder in (paths.root, paths.layers, paths.configs, paths.staging, paths.gc):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_store_that_is_there_is_left_as_it_is(paths):
    paths.layer(ONE).mkdir()
    paths.root.chmod(0o755)

    make_store(paths)

    assert paths.layer(ONE).is_dir()
    assert stat.S_IMODE(paths.root.stat().st_mode) == 0o755


def test_missing_layers_are_those_without_a_folder(paths):
    paths.layer(ONE).mkdir()

    assert find_missing(paths, [ONE, TWO, ONE]) == {TWO}
    assert find_missing(paths, []) == frozenset()


@pytest.mark.parametrize("layer_id", ["", ".", "..", "../layers", "cf2616975b4a", "sha256:..", "a\0b", "x" * 5000])
def test_layer_id_that_is_no_digest_is_always_missing(paths, layer_id):
    assert find_missing(paths, [DiffID(layer_id)]) == {layer_id}


def test_layer_that_is_taken_out_is_gone_at_once_and_waits_for_its_deletion(paths):
    paths.layer(ONE).mkdir()

    waiting = take_out_layer(paths, ONE)

    assert find_missing(paths, [ONE]) == {ONE}
    assert os.listdir(paths.gc) == [os.path.basename(waiting)]
    assert find_orphaned_work(paths) == [waiting]


def test_layer_that_is_not_there_is_taken_out_too(paths):
    take_out_layer(paths, ONE)

    assert find_orphaned_work(paths) == []


def test_orphaned_work_is_what_nobody_holds_in_staging_and_all_in_gc(paths):
    held, orphan = Staging.below(paths.staging), Staging.below(paths.staging)
    held.make()
    orphan.make()
    orphan.release()
    (paths.gc / "old").mkdir()

    assert find_orphaned_work(paths) == [str(orphan.path), str(paths.gc / "old")]
    held.release()


def test_config_is_stored_under_its_digest_byte_for_byte_and_once(paths):
    recorder = RecordingDisk()

    write_config(paths, b"{ }", recorder)
    write_config(paths, b"{ }", recorder)

    assert paths.config(sha256(b"{ }")).read_bytes() == b"{ }"
    assert [call[0] for call in recorder.calls].count("rename") == 1


def test_config_is_removed_once_or_in_vain(paths):
    write_config(paths, b"{}", Disk())

    remove_config(paths, sha256(b"{}"))
    remove_config(paths, sha256(b"{}"))

    assert os.listdir(paths.configs) == []


def test_staging_is_removed_once_or_in_vain(paths):
    staging = Staging.below(paths.staging)
    staging.make()
    (staging.path / "archive.tar").write_bytes(b"x")

    remove_staging(staging.path)
    remove_staging(staging.path)

    assert os.listdir(paths.staging) == []
    staging.release()
