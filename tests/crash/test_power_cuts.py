"""The power is cut before each call that makes something last, of whole operations."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from gallery import Gallery
from history import History
from invariants import check_stopped
from script import OPERATIONS, Script, begin
from seam import PowerCut, UnsyncedNames, copy_tree, watched
from support import seams
from support.stores import opened

from pykka_imagestore.durable import journal_writer

pytestmark = pytest.mark.combinations


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("compacts", [False, True], ids=["", "compacting"])
def test_a_power_cut_loses_nothing_that_was_acknowledged(
    operation: str, compacts: bool, gallery: Gallery, tmp_path: Path, count: Callable[..., None]
) -> None:
    before, history = tmp_path / "before", History()
    with opened(before) as store:
        begin(Script(store, gallery, history))

    for calls_before in itertools.count():
        where = tmp_path / str(calls_before)
        copy_tree(before, where)
        past = history.cut(float("inf"), float("inf"))
        cut = PowerCut(where, tmp_path / f"{calls_before}-cut", calls_before)
        # Each change is then followed by a new checkpoint; else there is one at the end.
        smallest = patch(seams.SMALL_JOURNAL_BYTES, 0 if compacts else journal_writer.SMALL_JOURNAL_BYTES)
        with smallest, watched(cut), opened(where) as store:
            script = Script(store, gallery, past)
            script.is_cut = cut.is_made
            OPERATIONS[operation](script)
        if cut.at is None:
            assert not script.errors
            break
        check_stopped(tmp_path / f"{calls_before}-cut", gallery, past)
        count("power cuts")
    check_stopped(where, gallery, past)
    assert calls_before > 2


def test_a_power_cut_after_a_failed_sync_loses_nothing_that_was_acknowledged(
    gallery: Gallery, tmp_path: Path, count: Callable[..., None]
) -> None:
    before, history = tmp_path / "before", History()
    with opened(before) as store:
        script = Script(store, gallery, history)
        begin(script)

    for calls_before in itertools.count():
        where = tmp_path / str(calls_before)
        copy_tree(before, where)
        past = history.cut(float("inf"), float("inf"))
        cut, failed = PowerCut(where, tmp_path / f"{calls_before}-cut", calls_before), False

        def fail_once(name: str, *args: object, cut: PowerCut = cut) -> None:
            nonlocal failed
            if name == "sync_data" and not failed:
                failed = True
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            cut(name, *args)

        with watched(fail_once), opened(where) as store:
            script = Script(store, gallery, past)
            script.is_cut = cut.is_made
            script.put("app:1", "gamma")
        if cut.at is None:
            break
        check_stopped(tmp_path / f"{calls_before}-cut", gallery, past)
        count("power cuts")
    assert failed


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_name_waits_for_a_sync_when_an_answer_comes(operation: str, gallery: Gallery, tmp_path: Path) -> None:
    names = UnsyncedNames()
    with opened(tmp_path / "store") as store, watched(names):
        script = Script(store, gallery, History())
        begin(script)
        OPERATIONS[operation](script)

        assert not script.errors
        # What was taken out may come back: the next prune takes it.
        assert {directory for directory in names.directories if directory.parent.name != "gc"} == set()
