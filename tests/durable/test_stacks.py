from __future__ import annotations

import os
import time

import pytest
from support.disks import RecordingDisk

from pykka_imagestore._proto.stack_pb2 import StackRecord
from pykka_imagestore.core.budget import Size
from pykka_imagestore.core.checksum import with_checksum
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import Reads, stack_id
from pykka_imagestore.durable.disk import Disk, ForgetfulDisk
from pykka_imagestore.durable.stacks import StackTable, find_stack, measure_stack, publish_stack, stack_layers
from pykka_imagestore.errors import StateError

ONE, TWO, THREE = LAYERS = [DiffID(sha256(text)) for text in (b"one", b"two", b"three")]
STACK = stack_id(LAYERS, Reads.TRUSTED)


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "staging" / "work").mkdir(parents=True)
    return StorePaths(tmp_path)


def stage(paths, *, inodes=3, layer_whiteouts=(0, 0, 0)):
    """Stage a stack as the job does; return its directory."""
    staged = paths.staging / "work" / "stack"
    (staged / "rootfs").mkdir(parents=True)
    record = StackRecord(stack=STACK, layer_ids=LAYERS, reads=Reads.TRUSTED, is_empty=False, stored_bytes=4096)
    record.inodes, record.whiteouts, record.layer_whiteouts[:] = inodes, WhiteoutFormat.OVERLAY_TRUSTED, layer_whiteouts
    (staged / "stack.pb").write_bytes(with_checksum(record.SerializeToString()))
    return staged


def publish(paths, on=None, **fields):
    publish_stack(paths, stage(paths, **fields), STACK, on or ForgetfulDisk())


def test_stack_is_found_once_it_is_published(paths):
    assert find_stack(paths, LAYERS, Reads.TRUSTED) is None

    publish(paths)

    record = find_stack(paths, LAYERS, Reads.TRUSTED)
    assert record is not None
    assert (list(record.layer_ids), record.inodes) == (LAYERS, 3)
    assert paths.stacks.stat().st_mode & 0o777 == 0o700
    assert find_stack(paths, LAYERS, Reads.USER) is None
    assert find_stack(paths, LAYERS[:2], Reads.TRUSTED) is None


def test_stack_is_synced_before_it_is_renamed_and_its_name_afterwards(paths):
    disk = RecordingDisk()

    publish(paths, disk)

    calls = [call for call, *_ in disk.calls]
    assert calls == ["sync_file_system", "rename", "sync_directory"]


def test_stack_that_is_there_stays(paths):
    publish(paths, inodes=3)

    staged = stage(paths, inodes=4)
    publish_stack(paths, staged, STACK, Disk())

    record = find_stack(paths, LAYERS, Reads.TRUSTED)
    assert record is not None
    assert record.inodes == 3
    assert staged.exists()


def change(data):
    return data[:10] + bytes([data[10] ^ 1]) + data[11:]


@pytest.mark.parametrize("damage", [lambda _: b"", change, lambda data: data[:-6], lambda data: data + b"x"])
def test_damaged_stack_is_not_found_and_is_replaced(paths, damage):
    publish(paths)
    record = paths.stack(STACK) / "stack.pb"
    record.write_bytes(damage(record.read_bytes()))
    assert find_stack(paths, LAYERS, Reads.TRUSTED) is None

    publish(paths)

    assert find_stack(paths, LAYERS, Reads.TRUSTED) is not None


def test_stack_in_the_place_of_another_is_not_taken_for_it(paths):
    publish(paths)
    other = [THREE, TWO]
    os.rename(paths.stack(STACK), paths.stack(stack_id(other, Reads.TRUSTED)))

    assert find_stack(paths, other, Reads.TRUSTED) is None


def test_symlink_in_the_place_of_a_record_is_not_followed(paths):
    publish(paths)
    record = paths.stack(STACK) / "stack.pb"
    record.rename(paths.root / "elsewhere")
    record.symlink_to(paths.root / "elsewhere")

    assert find_stack(paths, LAYERS, Reads.TRUSTED) is None


def test_layers_are_merged_in_their_order_and_the_fix_ups_last(paths):
    publish(paths, layer_whiteouts=[0, 3, 1])
    record = find_stack(paths, LAYERS, Reads.TRUSTED)
    assert record is not None

    layers = stack_layers(paths, record)

    assert [layer.path for layer in layers] == [
        *(str(paths.rootfs(layer)) for layer in LAYERS),
        str(paths.stack(STACK) / "rootfs"),
    ]
    assert [int(layer.whiteouts) for layer in layers] == [0, 3, 1, 1]


def test_stack_of_a_newer_version_is_told(paths):
    publish(paths, layer_whiteouts=(0, 0, 9))

    record = find_stack(paths, LAYERS, Reads.TRUSTED)
    assert record is not None
    with pytest.raises(StateError, match="only a newer version knows"):
        stack_layers(paths, record)


def test_empty_fix_ups_are_left_out(paths):
    record = StackRecord(stack=STACK, layer_ids=[ONE, TWO], layer_whiteouts=[0, 0], is_empty=True)

    assert [layer.path for layer in stack_layers(paths, record)] == [str(paths.rootfs(layer)) for layer in (ONE, TWO)]


def test_layer_that_comes_several_times_is_merged_once_where_it_comes_last(paths):
    record = StackRecord(stack=STACK, layer_ids=[ONE, TWO, ONE, THREE, TWO], is_empty=True)
    record.layer_whiteouts[:] = [1, 2, 1, 3, 2]

    layers = stack_layers(paths, record)

    assert [layer.path for layer in layers] == [str(paths.rootfs(layer)) for layer in (ONE, THREE, TWO)]
    assert [int(layer.whiteouts) for layer in layers] == [1, 3, 2]


def test_table_tells_which_stacks_lack_a_layer(paths):
    publish(paths)
    (paths.stacks / "somebody's").mkdir()
    table = StackTable(paths)

    assert [stack.path for stack in table.without_layers({TWO})] == [paths.stack(STACK)]
    assert table.without_layers({DiffID(sha256(b"other"))}) == []
    assert [stack.size for stack in table.all()] == [Size(3 * 4096, 5)] == [measure_stack(paths.stack(STACK))]


def test_stacks_are_none_where_there_is_no_directory_of_them(paths):
    assert [*StackTable(paths).all()] == []


def test_stack_is_found_in_microseconds(paths):
    publish(paths)
    find_stack(paths, LAYERS, Reads.TRUSTED)

    begun = time.perf_counter()
    for _ in range(200):
        find_stack(paths, LAYERS, Reads.TRUSTED)

    assert (time.perf_counter() - begun) / 200 < 0.002
