"""The disk is full, or fails: what was asked for fails with a sentence, and all else goes on."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

import pytest
from device import new_device, why_not
from gallery import Gallery
from history import History
from invariants import check_running, check_stopped
from script import OPERATIONS, Script, begin
from seam import EACH_WAY_TO_FAIL, Before, Failure, copy_tree
from support.disks import filled, statvfs_of
from support.processes import TIMEOUT
from support.stores import opened

from pykka_imagestore import LocalStore

pytestmark = pytest.mark.combinations


def require_going_on(store: LocalStore, directory: Path, gallery: Gallery, history: History, script: Script) -> None:
    """Check that a store goes on after something failed, and that no work in progress is left."""
    assert os.listdir(directory / "staging") == []
    check_running(store, directory, gallery, history)
    for error in script.errors:
        assert len(str(error)) > 20, f"{error!r} says nothing"
    script.errors.clear()
    script.put("app:9", "delta")
    script.remove("app:9")
    assert script.errors == []


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
    before, history = tmp_path / "before", History()
    with opened(before) as store:
        begin(Script(store, gallery, history))

    for calls_before in itertools.count():
        where = tmp_path / str(calls_before)
        copy_tree(before, where)
        past = history.cut(float("inf"), float("inf"))
        failure = Failure(error, calls_before, for_good=for_good)
        with opened(where) as store:
            store.recover().get(timeout=TIMEOUT)
            script = Script(store, gallery, past)
            with watch(failure):
                OPERATIONS[operation](script)
            require_going_on(store, where, gallery, past, script)
        check_stopped(where, gallery, past)
        if failure.at is None:
            break
        count("injected errors")


@pytest.mark.root
@pytest.mark.parametrize("is_foreseen", [True, False])
def test_a_full_disk_fails_what_needs_room_and_nothing_else(
    is_foreseen: bool, gallery: Gallery, tmp_path: Path, count: Callable[..., None]
) -> None:
    reason = why_not(tmp_path)
    if reason is not None:
        pytest.skip(reason)

    history = History()
    plenty = contextlib.nullcontext() if is_foreseen else patch.object(os, "statvfs", statvfs_of(free=1 << 40))
    with new_device(tmp_path, "12M") as device, opened(device.directory / "store") as store, plenty:
        script = Script(store, gallery, history)
        begin(script)
        for free_bytes in range(0, 400_000, 20_000):
            with filled(device.directory, free_bytes):
                script.put("app:3", "gamma")
                count("injected errors", len(script.errors))
                full = bool(script.errors)
                assert os.listdir(device.directory / "store" / "staging") == []
                check_running(store, device.directory / "store", gallery, history)
            require_going_on(store, device.directory / "store", gallery, history, script)
            if free_bytes == 0:
                assert full
            script.put("app:3", "gamma")
            script.remove("app:3")
            store.swept().get(timeout=TIMEOUT)
        assert not full
        store.close()
        check_stopped(device.directory / "store", gallery, history)


@pytest.mark.root
def test_room_can_be_made_on_a_full_disk(gallery: Gallery, tmp_path: Path) -> None:
    reason = why_not(tmp_path)
    if reason is not None:
        pytest.skip(reason)

    history = History()
    with new_device(tmp_path, "12M") as device, opened(device.directory / "store") as store:
        script = Script(store, gallery, history)
        begin(script)
        with filled(device.directory, 0):
            script.remove("app:1")
            script.prune(budget_bytes=0)
            assert script.errors == []
            store.swept().get(timeout=TIMEOUT)
            script.put("app:3", "delta")
            assert script.errors == []
