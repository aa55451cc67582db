from __future__ import annotations

import os
import stat

import pytest
from support.disks import RecordingDisk
from support.privileges import as_ordinary_user

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.layout import (
    find_configs,
    find_layers,
    find_missing,
    find_orphaned_work,
    make_store,
    remove_staging,
    write_config,
)
from pykka_imagestore.durable.locked_directory import LockedDirectory

ONE, TWO = DiffID(sha256(b"one")), DiffID(sha256(b"two"))
NAME = f"sha256-{'b' * 64}"
# Each has the name of a digest in it.
NO_DIGESTS = (f"x{NAME}", f"{NAME}0", f"{NAME}\n", f"-{NAME}", f"{NAME}-", f"{NAME}{NAME}")
MANY = frozenset(DiffID(sha256(b"%d" % number)) for number in range(100))


@pytest.fixture
def paths(tmp_path):
    paths = StorePaths(tmp_path / "deep" / "store")
    make_store(paths, Disk())
    return paths


def owned(paths, directory):
    return LockedDirectory.below(directory, paths.guard(directory))


def test_store_is_for_its_owner_alone(paths):
    directories = [path for path in paths.root.iterdir() if path.is_dir()]

    work = {paths.staging, paths.gc, paths.leases, paths.locks, paths.reserve}
    assert set(directories) == {paths.layers, paths.configs} | work
    for directory in (paths.root, *directories):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(paths.references_lock.stat().st_mode) == 0o600


def test_file_in_the_place_of_a_store_is_named(tmp_path):
    (tmp_path / "app.tar").write_bytes(b"")

    with pytest.raises(NotADirectoryError, match="no directory") as raised:
        make_store(StorePaths(tmp_path / "app.tar"), Disk())
    assert raised.value.filename == str(tmp_path / "app.tar")


def test_store_that_is_there_is_left_as_it_is(paths):
    paths.layer(ONE).mkdir()
    paths.root.chmod(0o755)

    make_store(paths, Disk())

    assert paths.layer(ONE).is_dir()
    assert stat.S_IMODE(paths.root.stat().st_mode) == 0o755


def test_names_of_all_that_is_new_are_synced_and_the_stores_own_again(tmp_path):
    """Whoever made those may have died before the sync."""
    disk, paths = RecordingDisk(), StorePaths(tmp_path / "new" / "too" / "store")

    make_store(paths, disk)
    first, disk.calls = disk.calls, []
    make_store(paths, disk)

    assert sorted(first[:4]) == sorted(("sync_directory", name) for name in (tmp_path.name, "new", "too", "store"))
    assert first[4:] == [
        ("sync_file", "imagestore.new"),
        ("rename", "imagestore.new", "imagestore"),
        ("sync_directory", "store"),
    ]
    assert sorted(disk.calls) == [("sync_directory", "store"), ("sync_directory", "too")]


def test_store_that_has_images_waits_for_no_sync(paths):
    disk = RecordingDisk()
    paths.journal.touch()

    make_store(paths, disk)

    assert disk.calls == []


def test_store_can_be_made_in_a_directory_that_cannot_be_listed(users_directory):
    users_directory.chmod(0o333)
    paths = StorePaths(users_directory / "store")

    as_ordinary_user(make_store, paths, Disk())

    assert paths.layers.is_dir()


@pytest.mark.parametrize("more", [MANY, ()], ids=["in a listing", "one by one"])
def test_missing_layers_are_those_without_a_directory(paths, more):
    paths.layer(ONE).mkdir()

    assert find_missing(paths, [ONE, TWO, ONE, *more]) == {TWO, *more}
    assert find_missing(paths, []) == frozenset()


@pytest.mark.parametrize("more", [MANY, ()], ids=["in a listing", "one by one"])
def test_layer_that_is_no_directory_is_missing(paths, more):
    (paths.root.parent / "outside").mkdir()
    paths.layer(ONE).symlink_to(paths.root.parent / "outside")
    paths.layer(TWO).touch()

    assert find_missing(paths, [ONE, TWO, *more]) == {ONE, TWO, *more}


@pytest.mark.parametrize("more", [MANY, ()], ids=["in a listing", "one by one"])
@pytest.mark.parametrize("layer_id", ["", ".", "..", "../layers", "cf2616975b4a", "sha256:..", "a\0b", "x" * 5000])
def test_layer_id_that_is_no_digest_is_always_missing(paths, more, layer_id):
    (paths.layers / "cf2616975b4a").mkdir()

    assert find_missing(paths, [DiffID(layer_id), *more]) == {layer_id, *more}


def test_many_layers_are_looked_for_at_once(paths, monkeypatch):
    there = [DiffID(sha256(b"%d" % number)) for number in range(100)]
    for layer in there[::2]:
        paths.layer(layer).mkdir()
    monkeypatch.setattr(os.path, "lexists", None)

    assert find_missing(paths, there) == frozenset(there[1::2])


def test_layers_and_configs_are_what_has_the_name_of_a_digest(paths):
    paths.layer(ONE).mkdir()
    paths.config(TWO).touch()
    for directory in (paths.layers, paths.configs):
        for name in ("other", "sha256-1", f"{ONE}", f"sha512-{'a' * 128}", f"sha256-{'A' * 64}", *NO_DIGESTS):
            (directory / name).touch()

    assert (find_layers(paths), find_configs(paths)) == ([ONE], [TWO])


def test_store_that_is_not_there_has_no_layers_and_no_configs(tmp_path):
    paths = StorePaths(tmp_path / "missing")

    assert (find_layers(paths), find_configs(paths), find_missing(paths, [ONE])) == ([], [], {ONE})


def test_orphaned_work_is_what_nobody_holds_in_staging_and_gc(paths):
    held, orphan = owned(paths, paths.staging), owned(paths, paths.staging)
    deleted = owned(paths, paths.gc)
    for directory in (held, orphan, deleted):
        directory.make()
    orphan.release()
    (paths.gc / "fedcba9876543210").mkdir()

    assert find_orphaned_work(paths) == [orphan.path, paths.gc / "fedcba9876543210"]
    held.release()
    deleted.release()


def test_config_is_stored_under_its_digest_byte_for_byte_and_once(paths):
    recorder = RecordingDisk()

    write_config(paths, b"{ }", recorder, aside=paths.staging / "config")
    write_config(paths, b"{ }", recorder, aside=paths.staging / "config")

    name = paths.config(sha256(b"{ }")).name
    assert paths.config(sha256(b"{ }")).read_bytes() == b"{ }"
    assert recorder.calls == [
        ("sync_file", "config"),
        ("rename", "config", name),
        ("sync_directory", "configs"),
        ("sync_directory", "configs"),  # whoever wrote it may have died before
    ]
    assert os.listdir(paths.configs) == [name]
    assert os.listdir(paths.staging) == []


def test_config_that_is_written_again_counts_as_used_now(paths):
    write_config(paths, b"{}", Disk(), aside=paths.staging / "config")
    config = paths.config(sha256(b"{}"))
    os.utime(config, (1, 1))

    write_config(paths, b"{}", Disk(), aside=paths.staging / "config")

    assert config.stat().st_mtime > 1


def test_staging_is_removed_once_or_in_vain(paths):
    staging = owned(paths, paths.staging)
    staging.make()
    (staging.path / "archive.tar").write_bytes(b"x")

    assert remove_staging(staging.path)
    assert remove_staging(staging.path)

    assert os.listdir(paths.staging) == []
    staging.release()


def test_staging_with_a_directory_is_left_to_a_worker(paths):
    staging = owned(paths, paths.staging)
    staging.make()
    (staging.path / "layer").mkdir()

    assert not remove_staging(staging.path)

    assert staging.path.is_dir()
    staging.release()
