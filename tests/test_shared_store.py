"""One directory, several processes: each has a store on it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from support import seams
from support.images import diff_id, docker_save, layer, long_layer
from support.layouts import LAYER_TYPE, Layout, path_of
from support.processes import TIMEOUT, Program
from support.stores import opened

from pykka_imagestore import LocalStore, NotFoundError
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.locks import acquire, layer_byte
from pykka_imagestore.runtime import DiscardedError

BASE = layer({"etc/os-release": b"ID=test\n"})
APP = layer({"app/main.py": b"print('hello')\n"})
OTHER_STORE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pykka_imagestore import LocalStore, NotFoundError
from pykka_imagestore.runtime import WorkerPool
store = LocalStore.start(sys.argv[1], durable=False, pool=WorkerPool(executor=ThreadPoolExecutor(2)))
print(len(store.list().get()), flush=True)
for line in sys.stdin:
    verb, *words = line.split()
    try:
        print(getattr(store, verb)(*words).get().name, flush=True)
    except NotFoundError as error:
        print(error, flush=True)
"""
SLOW_PUT = """
import sys
from pykka_imagestore import LocalStore
store = LocalStore.start(sys.argv[1], workers=1)
store.put("app", sys.argv[2], progress=lambda it: it.entries_done and print("unpacks", flush=True)).get()
"""


def test_stores_in_two_processes_see_at_once_what_the_other_does(store: LocalStore, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [BASE, APP]})
    with Program(OTHER_STORE, tmp_path / "store") as other:
        assert other.line() == "0"

        store.put("mine", archive).get(timeout=TIMEOUT)
        other.tell("get mine")
        assert other.line() == "mine:latest"
        other.tell(f"put theirs {archive}")
        assert other.line() == "theirs:latest"
        image = store.get("theirs").get(timeout=TIMEOUT)
        other.tell("remove theirs")
        assert other.line() == "theirs:latest"
        with pytest.raises(NotFoundError):
            store.get("theirs").get(timeout=TIMEOUT)
        store.remove("mine").get(timeout=TIMEOUT)
        other.tell("get mine")
        assert other.line() == "no image mine:latest is in the store"
    assert [layer.diff_id for layer in image.layers] == [diff_id(BASE), diff_id(APP)]


@pytest.mark.slow
def test_ten_processes_that_put_an_image_unpack_each_layer_once(tmp_path: Path) -> None:
    archive, said = docker_save(tmp_path / "app.tar", {"app": [BASE, APP]}), tmp_path / "said"
    with ExitStack() as stack:
        others = [stack.enter_context(Program(OTHER_STORE, tmp_path / "store")) for _ in range(10)]
        for other in others:
            assert other.line() == "0"

        for other in others:
            other.tell(f"put app {archive} {said}")

        assert [other.line() for other in others] == ["app:latest"] * 10
    text = (said / "stdout").read_text()
    assert text.count(diff_id(BASE)) == text.count(diff_id(APP)) == 1


@pytest.mark.slow
def test_layer_whose_unpacker_is_killed_is_unpacked_by_a_process_that_waits_for_it(tmp_path: Path) -> None:
    slow = long_layer(60_000)
    archive = docker_save(tmp_path / "app.tar", {"app": [slow]})
    with (
        Program(SLOW_PUT, tmp_path / "store", archive) as other,
        LocalStore.start(tmp_path / "store", workers=1, durable=False) as store,
    ):
        assert other.line() == "unpacks"
        put = store.put("app", archive, tmp_path / "said")
        wait_until(is_waiting_for_a_layer)
        assert put.is_pending()

        other.kill()

        image = put.get(timeout=TIMEOUT)
        assert len(list(image.layers[0].path.rglob("*"))) == 60_000 + 120 + 1
        assert (tmp_path / "said" / "stdout").read_text().count(diff_id(slow)) == 1


@pytest.mark.parametrize("giving_up", ["discard", "close"])
def test_put_that_waits_for_another_process_can_be_given_up_at_once(
    store: LocalStore, tmp_path: Path, giving_up: str
) -> None:
    archive, paths = docker_save(tmp_path / "app.tar", {"app": [BASE, APP]}), StorePaths(tmp_path / "store")
    store.list().get(timeout=TIMEOUT)
    lock = acquire(paths.layers_lock, layer_byte(DiffID(diff_id(BASE))))
    put = store.put("app", archive)
    wait_until(is_waiting_for_a_layer)

    put.discard() if giving_up == "discard" else store.close()

    with pytest.raises(DiscardedError):
        put.get(timeout=TIMEOUT)
    assert os.listdir(paths.staging) == os.listdir(paths.leases) == []
    lock.release()
    wait_until(lambda: not is_waiting_for_a_layer())
    acquire(paths.layers_lock, layer_byte(DiffID(diff_id(BASE))), wait=False).release()


def test_layer_that_another_process_put_meanwhile_is_not_unpacked(store: LocalStore, tmp_path: Path) -> None:
    archive, paths = docker_save(tmp_path / "app.tar", {"app": [BASE]}), StorePaths(tmp_path / "store")
    store.list().get(timeout=TIMEOUT)
    lock = acquire(paths.layers_lock, layer_byte(DiffID(diff_id(BASE))))
    put = store.put("app", archive)
    wait_until(is_waiting_for_a_layer)

    paths.rootfs(DiffID(diff_id(BASE))).mkdir(parents=True)
    lock.release()

    image = put.get(timeout=TIMEOUT)
    assert os.listdir(image.layers[0].path) == []


def is_waiting_for_a_layer() -> bool:
    return any(thread.name == "imagestore-blocking" for thread in threading.enumerate())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # another process' work: there is nothing to wait on


def test_put_of_an_archive_without_a_layer_that_another_store_puts_meanwhile(store: LocalStore, tmp_path: Path) -> None:
    layout, others = Layout(), docker_save(tmp_path / "base.tar", {"base": [BASE]})
    blob = layout.blob(BASE, LAYER_TYPE)
    layout.name(layout.manifest(BASE, fields={"layers": [blob]}), "app:1")
    del layout.members[path_of(blob["digest"])]
    sparse = layout.write_directory(tmp_path / "sparse")

    with opened(tmp_path / "store") as other:
        first = [lambda: other.put("base", others).get(timeout=TIMEOUT)]
        with patch(seams.REQUIRE_SPACE, lambda *_: first and first.pop()()):
            image = store.put("app:1", sparse).get(timeout=TIMEOUT)

    assert not first
    assert [layer.diff_id for layer in image.layers] == [diff_id(BASE)]
