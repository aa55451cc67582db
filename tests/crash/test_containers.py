"""Containers, and power cuts before each call that makes something last, and calls that fail."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from boxes import OPERATIONS, Boxes, begin, check_boxes
from device import new_device, why_not
from gallery import Gallery
from history import History
from invariants import check_stopped
from seam import EACH_WAY_TO_FAIL, Before, Failure, PowerCut, UnsyncedNames, copy_tree, watched
from support.containers import provisioning
from support.disks import filled
from support.processes import TIMEOUT
from support.stores import opened

from pykka_imagestore.rootfs.copy import Copy

pytestmark = pytest.mark.combinations

SHOWN = {"app:alpha": "alpha", "app:beta": "beta"}


def history_of(directory: Path) -> History:
    """Return the history of the images that are there now: no operation is about how these came and went."""
    with opened(directory) as store:
        names = {image.name for image in store.list().get(timeout=TIMEOUT)}
    return History.of({name: shown for name, shown in SHOWN.items() if name in names})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_power_cut_loses_no_container_and_leaves_nothing_of_others(
    operation: str, gallery: Gallery, tmp_path: Path, count: Callable[..., None]
) -> None:
    before = tmp_path / "before"
    begin(before, gallery)

    for calls_before in itertools.count():
        where, left = tmp_path / str(calls_before), tmp_path / f"{calls_before}-cut"
        copy_tree(before, where)
        cut = PowerCut(where, left, calls_before)
        with (
            watched(cut),
            opened(where) as store,
            provisioning(store, Copy(), durable=True) as provisioner,
        ):
            boxes = Boxes(store, provisioner)
            boxes.there["kept"] = "alpha"
            boxes.is_cut = cut.is_made
            OPERATIONS[operation](boxes)
        if cut.at is None:
            assert not boxes.errors
            break
        check_boxes(left, gallery, boxes.there)
        check_stopped(left, gallery, history_of(left))
        count("power cuts")
    check_boxes(where, gallery, boxes.there)
    check_stopped(where, gallery, history_of(where))
    assert calls_before > 2


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_container_waits_for_a_sync_when_an_answer_comes(operation: str, gallery: Gallery, tmp_path: Path) -> None:
    begin(tmp_path / "store", gallery)
    names = UnsyncedNames()

    with (
        opened(tmp_path / "store") as store,
        provisioning(store, Copy(), durable=True) as provisioner,
        watched(names),
    ):
        boxes = Boxes(store, provisioner)
        boxes.there["kept"] = "alpha"
        OPERATIONS[operation](boxes)

        assert not boxes.errors
        # What was taken out may come back: the next recovery takes it. And nobody looks for names in staging/.
        assert {each for each in names.directories if each.parent.name not in {"gc", "staging"}} == set()


@pytest.mark.parametrize("operation", OPERATIONS)
@EACH_WAY_TO_FAIL
def test_a_call_that_fails_fails_its_operation_alone(
    operation: str,
    watch: Callable[[Before], AbstractContextManager[None]],
    error: int,
    for_good: bool,
    gallery: Gallery,
    tmp_path: Path,
    count: Callable[..., None],
) -> None:
    before = tmp_path / "before"
    begin(before, gallery)

    for calls_before in itertools.count():
        where = tmp_path / str(calls_before)
        copy_tree(before, where)
        failure = Failure(error, calls_before, for_good=for_good)
        with opened(where) as store, provisioning(store, Copy(), durable=True) as provisioner:
            store.recover().get(timeout=TIMEOUT)
            boxes = Boxes(store, provisioner)
            boxes.there["kept"] = "alpha"
            with watch(failure):
                OPERATIONS[operation](boxes)
            for each in boxes.errors:
                assert len(str(each)) > 20, f"{each!r} says nothing"
            boxes.errors.clear()
            boxes.provision("box-9")
            boxes.destroy("box-9")
            assert boxes.errors == []
        check_boxes(where, gallery, boxes.there)
        check_stopped(where, gallery, history_of(where))
        if failure.at is None:
            break
        count("injected errors")


@pytest.mark.root
def test_on_a_full_disk_containers_go_and_none_comes_in_part(
    gallery: Gallery, tmp_path: Path, count: Callable[..., None]
) -> None:
    reason = why_not(tmp_path)
    if reason is not None:
        pytest.skip(reason)

    with new_device(tmp_path, "12M") as device:
        directory = device.directory / "store"
        begin(directory, gallery)
        with opened(directory) as store, provisioning(store, Copy(), durable=True) as provisioner:
            boxes = Boxes(store, provisioner)
            boxes.provision("box-1")
            for free_bytes in range(0, 1_000_000, 50_000):
                with filled(device.directory, free_bytes):
                    boxes.provision("box-2")
                    count("injected errors", len(boxes.errors))
                    is_full = bool(boxes.errors)
                    boxes.errors.clear()
                    there = {each.container_id for each in provisioner.list().get(timeout=TIMEOUT)}
                    assert there == {"kept", *boxes.there}
                    if free_bytes == 0:
                        assert is_full
                        boxes.destroy("box-1")
                        assert boxes.errors == []
                if "box-2" in boxes.there:
                    boxes.destroy("box-2")
                provisioner.swept().get(timeout=TIMEOUT)
            assert not is_full
        check_boxes(directory, gallery, {"kept": "alpha"})
        check_stopped(directory, gallery, history_of(directory))
        assert os.listdir(directory / "containers") == []
