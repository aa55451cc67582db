"""Races between processes, one by one, each held at its worst moment; random tests meet them too rarely."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gallery import Gallery
from history import History
from invariants import TIMEOUT, check_stopped
from script import Script
from seam import PowerCut, watched
from support import seams
from support.stores import opened

from pykka_imagestore import staging
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.durable.layout import find_missing


def test_a_prune_never_acts_on_a_change_that_a_power_cut_may_undo(gallery: Gallery, tmp_path: Path) -> None:
    directory, history = tmp_path / "store", History()
    cut = PowerCut(directory, tmp_path / "cut", calls_before=1_000_000)
    is_failing = False

    def before(name: str, *args: object) -> None:
        nonlocal is_failing
        is_failing = is_failing or name == failing_from
        if is_failing:
            raise OSError(errno.EIO, "injected")
        cut(name, *args)

    failing_from = ""
    with watched(before), opened(directory) as one, opened(directory) as other:
        script = Script(one, gallery, history)
        script.put_all(("app:1", "alpha"), ("app:2", "gamma"))
        failing_from = "sync_data"
        script.put("app:1", "gamma")  # is appended, and not synced
        assert script.errors
        is_failing, failing_from = False, ""
        other.prune().get(timeout=TIMEOUT)
        cut.now()

    check_stopped(tmp_path / "cut", gallery, history)


def test_an_image_that_is_removed_while_it_is_looked_for_is_not_called_incomplete(
    gallery: Gallery, tmp_path: Path
) -> None:
    with opened(tmp_path / "store") as store, opened(tmp_path / "store") as other:
        store.put("app:1", gallery.archives["alpha"]).get(timeout=TIMEOUT)

        def look_late(*args: Any) -> frozenset[DiffID]:
            with patch(seams.FIND_MISSING, find_missing):
                other.put("app:1", gallery.archives["delta"]).get(timeout=TIMEOUT)
                other.prune().get(timeout=TIMEOUT)
            return find_missing(*args)

        with patch(seams.FIND_MISSING, look_late):
            found = store.get("app:1").get(timeout=TIMEOUT)
        with patch(seams.FIND_MISSING, look_late):
            listed = store.list().get(timeout=TIMEOUT)

        assert gallery.name_of(found) == "delta"
        assert [gallery.name_of(image) for image in listed] == ["delta"]


def test_a_put_that_was_asked_for_after_a_removal_is_not_undone_by_it(gallery: Gallery, tmp_path: Path) -> None:
    is_put, goes_on = threading.Event(), threading.Event()

    def remove_late(path: Path) -> bool:
        is_put.set()
        goes_on.wait(TIMEOUT)
        return real(path)

    real = staging.remove_staging
    with opened(tmp_path / "store") as store, opened(tmp_path / "store") as other:
        other.put("app:2", gallery.archives["alpha"]).get(timeout=TIMEOUT)
        with patch(seams.REMOVE_STAGING, remove_late):
            first = store.put("app:1", gallery.archives["alpha"])
            assert is_put.wait(TIMEOUT)
            other.remove("app:1").get(timeout=TIMEOUT)
            second = store.put("app:1", gallery.archives["alpha"])
            goes_on.set()
            first.get(timeout=TIMEOUT)
            second.get(timeout=TIMEOUT)

        assert gallery.name_of(store.get("app:1").get(timeout=TIMEOUT)) == "alpha"
