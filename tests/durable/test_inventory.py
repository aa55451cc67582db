from __future__ import annotations

import os
import time
from typing import Any

import pytest

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore._proto.stack_pb2 import StackRecord
from pykka_imagestore.core.budget import Size
from pykka_imagestore.core.checksum import with_checksum
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import Reads, stack_id
from pykka_imagestore.durable.inventory import InventoryTaker, note_use

ONE, TWO, CONFIG = DiffID(sha256(b"one")), DiffID(sha256(b"two")), sha256(b"config")
IMAGE = DockerImage("a:latest", (ONE,), CONFIG)


def publish(paths: StorePaths, diff_id: DiffID, **fields: Any) -> None:
    paths.layer(diff_id).mkdir()
    write_record(paths, diff_id, **fields)


def write_record(paths: StorePaths, diff_id: DiffID, **fields: Any) -> None:
    (paths.layer(diff_id) / "layer.pb").write_bytes(LayerRecord(diff_id=diff_id, **fields).SerializeToString())


BESIDE = Size(2 * 4096, 2)  # a layer's directory, and its record


def test_inventory_is_what_is_there_with_its_sizes_and_times(paths: StorePaths) -> None:
    publish(paths, ONE, size_bytes=100, stored_bytes=40960, inodes=7)
    paths.config(CONFIG).write_bytes(b"x" * 4097)
    os.utime(paths.config(CONFIG), (1, 12.5))

    inventory = InventoryTaker(paths).take([IMAGE])

    assert inventory.images == (IMAGE,)
    assert inventory.layers == {ONE: Size(40960, 7) + BESIDE}
    assert inventory.configs == {CONFIG: 12.5}
    assert inventory.config_sizes == {CONFIG: Size(8192, 1)}
    assert inventory.last_used(IMAGE) == 12.5


def test_what_a_layer_has_beside_its_files_counts(paths: StorePaths) -> None:
    publish(paths, ONE, stored_bytes=4096, inodes=1)
    (paths.layer(ONE) / "tar-split.zst").write_bytes(b"x" * 10_000)
    (paths.layer(ONE) / "replaced").mkdir()
    (paths.layer(ONE) / "replaced" / "paths").write_bytes(b"x" * 5000)

    size = Size(4096, 1) + BESIDE + Size(3 * 4096, 1) + Size(4096, 1) + Size(2 * 4096, 1)
    assert InventoryTaker(paths).take([]).layers == {ONE: size}


@pytest.mark.parametrize(("fields", "counted"), [({"stored_bytes": 4096}, 4096), ({}, 1000)])
def test_layer_of_an_older_version_is_estimated(paths: StorePaths, fields: dict[str, int], counted: int) -> None:
    publish(paths, ONE, size_bytes=1000, entries=99, **fields)

    (size,) = InventoryTaker(paths).take([]).layers.values()

    assert size.inodes == 100 + BESIDE.inodes
    assert counted + 100 * 256 <= size.bytes - BESIDE.bytes <= counted + 100 * 512


def test_inventory_is_looked_at_anew_each_time_but_no_layer_is_measured_twice(paths: StorePaths) -> None:
    taker = InventoryTaker(paths)
    publish(paths, ONE, stored_bytes=1, inodes=1)
    first = taker.take([]).layers
    assert first == {ONE: Size(1, 1) + BESIDE}

    (paths.layer(ONE) / "layer.pb").unlink()
    publish(paths, TWO, stored_bytes=2, inodes=2)
    assert taker.take([]).layers == {**first, TWO: Size(2, 2) + BESIDE}
    (paths.layer(ONE)).rmdir()
    assert taker.take([]).layers == {TWO: Size(2, 2) + BESIDE}


@pytest.mark.parametrize("record", [None, b"", b"\xff"])
def test_layer_whose_record_cannot_be_read_counts_nothing_until_it_can(paths: StorePaths, record: bytes | None) -> None:
    taker = InventoryTaker(paths)
    paths.layer(ONE).mkdir()
    if record is not None:
        (paths.layer(ONE) / "layer.pb").write_bytes(record)

    assert taker.take([]).layers == {ONE: Size()}

    write_record(paths, ONE, stored_bytes=7, inodes=1)
    assert taker.take([]).layers == {ONE: Size(7, 1) + BESIDE}


def test_layers_are_weighed_together_each_once(paths: StorePaths) -> None:
    publish(paths, ONE, stored_bytes=1, inodes=1)
    publish(paths, TWO, stored_bytes=2, inodes=2)

    assert InventoryTaker(paths).weigh([ONE, TWO, ONE, DiffID(CONFIG)]) == Size(3, 3) + BESIDE + BESIDE


def test_use_is_noted_in_the_configs_time(paths: StorePaths) -> None:
    paths.config(CONFIG).touch()
    os.utime(paths.config(CONFIG), (1, 1))
    before = time.time() - 1  # the file system's clock may lag by a tick

    note_use(paths, IMAGE)

    assert InventoryTaker(paths).take([]).last_used(IMAGE) >= before


@pytest.mark.parametrize("image", [IMAGE, DockerImage("a:latest", ())])
def test_use_of_an_image_without_a_config_is_not_noted(paths: StorePaths, image: DockerImage) -> None:
    note_use(paths, image)

    assert os.listdir(paths.configs) == []
    assert InventoryTaker(paths).take([image]).last_used(image) == 0


def test_what_a_stack_needs_on_top_counts_with_its_last_layer(paths: StorePaths) -> None:
    for layer in (ONE, TWO):
        publish(paths, layer, stored_bytes=4096, inodes=1)
    stack = paths.stack(stack_id([ONE, TWO], Reads.ANY))
    stack.mkdir(parents=True)
    record = StackRecord(stack="x", layer_ids=[ONE, TWO], layer_whiteouts=[0, 0], stored_bytes=40960, inodes=7)
    (stack / "stack.pb").write_bytes(with_checksum(record.SerializeToString()))
    taker = InventoryTaker(paths)

    for _ in range(2):
        layers = taker.take([]).layers
        assert layers == {ONE: Size(4096, 1) + BESIDE, TWO: Size(4096 + 40960, 8) + BESIDE + BESIDE}

    waiting = paths.gc / "0123456789abcdef"
    waiting.mkdir()
    stack.rename(waiting / f"stack-{stack.name}")
    assert taker.weigh_moved(waiting) == (0, Size(40960, 7) + BESIDE)
