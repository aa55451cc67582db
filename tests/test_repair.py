"""A repair takes out what was looked at, and nothing that came in its place since."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.images import diff_id, docker_save, layer
from support.processes import TIMEOUT
from support.stores import opened

from pykka_imagestore import CheckProgress, LocalStore
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.paths import StorePaths

BASE = layer({"etc/os-release": b"ID=test\n"})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return docker_save(tmp_path / "app.tar", {"app": [BASE]})


def damage(paths: StorePaths) -> str:
    """Damage the only config and the only layer; return the config's digest."""
    (config,) = paths.configs.iterdir()
    config.write_bytes(b"{damaged}")
    (paths.layer(DiffID(diff_id(BASE))) / "layer.pb").write_bytes(b"damaged")
    return config.name.replace("-", ":")


def once(act: Callable[[], object]) -> Callable[[CheckProgress], None]:
    """Return a listener that acts when all has been looked at, before anything is taken out."""
    acted: list[object] = []

    def listen(progress: CheckProgress) -> None:
        if progress.layers_done == progress.layers_expected and not acted:
            acted.append(act())

    return listen


def test_what_is_put_anew_since_it_was_looked_at_is_left_and_told(
    store: LocalStore, tmp_path: Path, archive: Path
) -> None:
    paths = StorePaths(tmp_path / "store")
    store.put("app", archive).get(timeout=TIMEOUT)
    config = damage(paths)

    def put_anew() -> None:
        with opened(paths.root) as other:
            other.remove("app").get(timeout=TIMEOUT)
            other.swept().get(timeout=TIMEOUT)
            other.put("app", archive).get(timeout=TIMEOUT)

    report = store.repair(progress=once(put_anew)).get(timeout=TIMEOUT)

    assert report.taken_out == ()
    assert set(report.put_anew) == {config, diff_id(BASE)}
    assert report.left_in == ()
    assert store.check(deep=True).get(timeout=TIMEOUT).faults == ()


def test_what_is_mended_by_hand_since_it_was_looked_at_is_left_and_told(
    store: LocalStore, tmp_path: Path, archive: Path
) -> None:
    paths = StorePaths(tmp_path / "store")
    store.put("app", archive).get(timeout=TIMEOUT)
    record = paths.layer(DiffID(diff_id(BASE))) / "layer.pb"
    (config,) = paths.configs.iterdir()
    sound = {path: path.read_bytes() for path in (record, config)}
    damage(paths)

    report = store.repair(progress=once(lambda: [path.write_bytes(data) for path, data in sound.items()])).get(
        timeout=TIMEOUT
    )

    assert (report.taken_out, len(report.put_anew)) == ((), 2)
    assert store.check(deep=True).get(timeout=TIMEOUT).faults == ()


def test_what_is_gone_since_it_was_looked_at_is_neither_taken_out_nor_put_anew(
    store: LocalStore, tmp_path: Path, archive: Path
) -> None:
    paths = StorePaths(tmp_path / "store")
    store.put("app", archive).get(timeout=TIMEOUT)
    damage(paths)

    def remove() -> None:
        with opened(paths.root) as other:
            other.remove("app").get(timeout=TIMEOUT)

    report = store.repair(progress=once(remove)).get(timeout=TIMEOUT)

    assert (report.taken_out, report.put_anew) == ((), ())
    assert os.listdir(paths.layers) == os.listdir(paths.configs) == []


def test_what_is_damaged_still_is_taken_out(store: LocalStore, tmp_path: Path, archive: Path) -> None:
    store.put("app", archive).get(timeout=TIMEOUT)
    config = damage(StorePaths(tmp_path / "store"))

    report = store.repair(progress=once(lambda: store.get("app").get(timeout=TIMEOUT))).get(timeout=TIMEOUT)

    assert set(report.taken_out) == {config, diff_id(BASE)}
    assert report.put_anew == ()


def test_check_lists_what_is_nothing_of_the_stores(store: LocalStore, tmp_path: Path, archive: Path) -> None:
    store.put("app", archive).get(timeout=TIMEOUT)
    assert store.check().get(timeout=TIMEOUT).unchecked == ()
    (tmp_path / "store" / "leases" / "lost+found").mkdir()
    (tmp_path / "store" / "notes.txt").touch()

    for report in (store.check().get(timeout=TIMEOUT), store.repair().get(timeout=TIMEOUT)):
        assert (report.faults, report.taken_out) == ((), ())
        assert list(map(str, report.unchecked)) == [
            "store leases/lost+found is not part of the store",
            "store notes.txt is not part of the store",
        ]
