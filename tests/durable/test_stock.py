from __future__ import annotations

import os
import time

import pytest

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.stock import StockTaker, note_use

ONE, TWO, CONFIG = DiffID(sha256(b"one")), DiffID(sha256(b"two")), sha256(b"config")
IMAGE = DockerImage("a:latest", (ONE,), CONFIG)


def publish(paths: StorePaths, diff_id: DiffID, **sizes: int) -> None:
    paths.layer(diff_id).mkdir()
    (paths.layer(diff_id) / "layer.pb").write_bytes(LayerRecord(diff_id=diff_id, **sizes).SerializeToString())


def test_stock_is_what_is_there_with_its_sizes_and_times(paths: StorePaths) -> None:
    publish(paths, ONE, size_bytes=100, stored_bytes=4096)
    publish(paths, TWO, size_bytes=300)
    paths.config(CONFIG).touch()
    os.utime(paths.config(CONFIG), (1, 12.5))

    stock = StockTaker(paths).take([IMAGE])

    assert stock.images == (IMAGE,)
    assert stock.layers == {ONE: 4096, TWO: 300}
    assert stock.configs == {CONFIG: 12.5}
    assert stock.last_used(IMAGE) == 12.5


def test_stock_is_looked_at_anew_each_time_but_no_record_is_read_twice(paths: StorePaths) -> None:
    taker = StockTaker(paths)
    publish(paths, ONE, stored_bytes=1)
    assert taker.take([]).layers == {ONE: 1}

    (paths.layer(ONE) / "layer.pb").unlink()
    publish(paths, TWO, stored_bytes=2)
    assert taker.take([]).layers == {ONE: 1, TWO: 2}
    (paths.layer(ONE)).rmdir()
    assert taker.take([]).layers == {TWO: 2}


@pytest.mark.parametrize("record", [None, b"", b"\xff"])
def test_layer_whose_record_cannot_be_read_counts_nothing_until_it_can(paths: StorePaths, record: bytes | None) -> None:
    taker = StockTaker(paths)
    paths.layer(ONE).mkdir()
    if record is not None:
        (paths.layer(ONE) / "layer.pb").write_bytes(record)

    assert taker.take([]).layers == {ONE: 0}

    (paths.layer(ONE) / "layer.pb").write_bytes(LayerRecord(diff_id=ONE, stored_bytes=7).SerializeToString())
    assert taker.take([]).layers == {ONE: 7}


def test_use_is_noted_in_the_configs_time(paths: StorePaths) -> None:
    paths.config(CONFIG).touch()
    os.utime(paths.config(CONFIG), (1, 1))
    before = time.time() - 1  # the file system's clock may lag by a tick

    note_use(paths, IMAGE)

    assert StockTaker(paths).take([]).last_used(IMAGE) >= before


@pytest.mark.parametrize("image", [IMAGE, DockerImage("a:latest", ())])
def test_use_of_an_image_without_a_config_is_not_noted(paths: StorePaths, image: DockerImage) -> None:
    note_use(paths, image)

    assert os.listdir(paths.configs) == []
    assert StockTaker(paths).take([image]).last_used(image) == 0
