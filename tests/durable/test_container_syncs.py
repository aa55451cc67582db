from __future__ import annotations

import pytest
from support.disks import FailingDisk, RecordingDisk

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.containers import Holder, find_container_ids, read_container

RENAME = ("rename", "container.0", "box-1")
SYNCS = [
    ("sync_placed", "box-1", "container.pb"),
    ("sync_data", "container.pb"),
    ("sync_directory", "box-1"),
    ("sync_directory", "containers"),
]


def container(layers: int) -> Container:
    layer_ids = tuple(DiffID(f"sha256:{number:064x}") for number in range(layers))
    return Container("box-1", "app:latest", layer_ids, None, "overlay", "default", "0" * 16, 0, "")


def test_record_is_synced_once_its_container_has_its_name(paths: StorePaths) -> None:
    disk = RecordingDisk()

    Holder(paths, disk).begin(container(layers=4))

    assert disk.calls[-5:] == [RENAME, *SYNCS]
    assert disk.calls[-6] == ("sync_directory", "store")
    assert read_container(paths, "box-1") == container(layers=4)


def test_record_that_may_be_written_in_part_is_synced_before_its_container_has_its_name(paths: StorePaths) -> None:
    disk = RecordingDisk()

    Holder(paths, disk).begin(container(layers=60))

    assert disk.calls[-6:] == [("sync_data", "container.pb"), RENAME, *SYNCS]


@pytest.mark.parametrize("failing", ["sync_data", "sync_directory", "rename"])
def test_container_whose_record_cannot_be_made_durable_is_not_there(paths: StorePaths, failing: str) -> None:
    disk = FailingDisk()
    holder = Holder(paths, disk)
    holder.begin(container(layers=1))  # what the holder needs itself
    (paths.containers / "box-1").rename(paths.root / "box")
    disk.failing = {failing}

    with pytest.raises(OSError, match="Input/output error"):
        holder.begin(container(layers=4))

    assert find_container_ids(paths) == []
    assert [path.name for path in next(paths.staging.iterdir()).iterdir()] == ["lock"]
