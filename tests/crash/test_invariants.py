"""The model and the invariants see what they are for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gallery import Gallery
from history import History
from invariants import Violation, check_stopped
from script import Script, begin
from support.processes import TIMEOUT
from support.stores import opened

from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.locks import acquire


def test_a_name_shows_the_last_write() -> None:
    history = History()
    for at, value in enumerate(("alpha", None, "beta")):
        history.end(history.begin("app:1", value, at), is_certain=True, at=at + 0.5)

    assert history.may_show("app:1") == {"beta"}
    assert history.cut(1.7, 1.8).may_show("app:1") == {None}


def test_a_name_shows_either_of_two_writes_at_once_and_perhaps_one_that_was_not_acknowledged() -> None:
    history = History()
    history.end(history.begin("app:1", "old", 0), is_certain=True, at=1)
    one, other = history.begin("app:1", "alpha", 2), history.begin("app:1", "beta", 3)
    history.end(one, is_certain=True, at=4)
    history.end(other, is_certain=True, at=5)
    killed = history.begin("app:1", "gamma", 6)

    assert history.may_show("app:1") == {"alpha", "beta", "gamma"}

    history.end(killed, is_certain=False, at=7)
    history.end(history.begin("app:1", "delta", 8), is_certain=True, at=9)

    assert history.may_show("app:1") == {"delta"}


def test_a_read_of_what_was_overwritten_before_is_wrong() -> None:
    history = History()
    history.end(history.begin("app:1", "alpha", 0), is_certain=True, at=1)
    history.end(history.begin("app:1", "beta", 2), is_certain=True, at=4)
    history.read("app:1", "alpha", 3, 5)
    history.read("app:1", "beta", 3, 3.5)

    assert history.wrong_reads() == []

    history.read("app:1", "alpha", 4.5, 5)
    history.read("app:1", None, 4.5, 5)

    assert len(history.wrong_reads()) == 2


def empty_a_file(paths: StorePaths) -> None:
    next(path for path in paths.layers.glob("*/rootfs/*/*") if path.is_file()).write_bytes(b"")


def empty_a_config(paths: StorePaths) -> None:
    next(paths.configs.iterdir()).write_bytes(b"")


def lose_all_images(paths: StorePaths) -> None:
    paths.stored_images.unlink()
    paths.journal.unlink()


def take_a_layer_out(paths: StorePaths) -> None:
    next(paths.layers.iterdir()).rename(paths.root / "out")


DAMAGES: dict[str, Callable[[StorePaths], object]] = {
    "paths are not as they were put": empty_a_file,
    "has other bytes": empty_a_config,
    "may show": lose_all_images,
    "lost": take_a_layer_out,
    "is no layer": lambda paths: (paths.layers / "other").mkdir(),
    "is not part of the store": lambda paths: (paths.root / "other").touch(),
}


@pytest.mark.parametrize("seen", DAMAGES)
def test_damage_is_seen(seen: str, gallery: Gallery, tmp_path: Path) -> None:
    history, paths = History(), StorePaths(tmp_path / "store")
    with opened(paths.root) as store:
        begin(Script(store, gallery, history))
    DAMAGES[seen](paths)

    with pytest.raises(Violation, match=seen):
        check_stopped(paths.root, gallery, history)


def test_a_lock_that_is_held_is_seen(gallery: Gallery, tmp_path: Path) -> None:
    paths = StorePaths(tmp_path / "store")
    with opened(paths.root) as store:
        store.recover().get(timeout=TIMEOUT)
    lock = acquire(paths.layers_lock, byte=1 << 62)

    with pytest.raises(Violation, match="is locked"):
        check_stopped(paths.root, gallery, History())
    lock.release()
