"""Layers by themselves: each is unpacked once, whoever asks for it, and nothing of a failure or a discard is left."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future as ConcurrentFuture
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from support.images import diff_id, layer
from support.layers import blob_of
from support.processes import TIMEOUT, wait_for

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_blob import Absent, LayerBlob
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.layout import find_layers, make_store
from pykka_imagestore.durable.locks import acquire, layer_byte
from pykka_imagestore.errors import ArchiveError, DigestMismatchError, StoreClosedError
from pykka_imagestore.layer_store import LayerStore
from pykka_imagestore.runtime import DiscardedError, WorkerPool, collect

DATA = layer({"etc/os-release": b"ID=test\n", "bin/sh": b"#!"})
LAYER = DiffID(diff_id(DATA))
OTHER = layer({"app/main.py": b"print('hello')\n"})


class GatedThreads(ThreadPoolExecutor):
    """Threads whose tasks wait at a gate.

    Attributes:
        begun: Gets an item for each task that has come to the gate.
        gate: Lets them through once it is set.
    """

    def __init__(self) -> None:
        super().__init__(4)
        self.begun: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.gate = threading.Event()

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> ConcurrentFuture[Any]:
        def wait_at_the_gate() -> Any:
            self.begun.put(None)
            assert self.gate.wait(TIMEOUT)
            return function(*args, **kwargs)

        return super().submit(wait_at_the_gate)


class Told:
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.completed: list[tuple[DiffID, int | None]] = []

    def advance(self, diff_id: DiffID, bytes_done: int, entries_done: int) -> None:
        pass

    def complete(self, diff_id: DiffID, entries: int | None) -> None:
        self.completed.append((diff_id, entries))


@pytest.fixture
def paths(tmp_path: Path) -> StorePaths:
    paths = StorePaths(tmp_path / "store")
    make_store(paths, Disk())
    return paths


@pytest.fixture
def threads() -> Iterator[GatedThreads]:
    with GatedThreads() as threads:
        yield threads


@pytest.fixture
def layers(paths: StorePaths, threads: GatedThreads) -> Iterator[LayerStore]:
    with LayerStore.start(paths, WorkerPool(executor=threads)) as layers:
        yield layers
        threads.gate.set()


def wait_until_asked(layers: LayerStore) -> None:
    """Return once all puts that were asked for have begun their work, or joined that of others."""
    layers.find_wanted(()).get(timeout=TIMEOUT)


def assert_nothing_is_left(paths: StorePaths) -> None:
    assert os.listdir(paths.staging) == []
    acquire(paths.layers_lock, layer_byte(LAYER), wait=False).release()


def test_puts_of_one_layer_share_the_work_and_each_is_told(
    layers: LayerStore, paths: StorePaths, threads: GatedThreads, tmp_path: Path
) -> None:
    copy, first, second = blob_of(DATA, tmp_path), Told(), Told()

    puts = [layers.put(LAYER, copy, listener=first), layers.put(LAYER, copy, listener=second)]
    wait_until_asked(layers)
    threads.gate.set()
    collect(puts).get(timeout=TIMEOUT)

    assert threads.begun.qsize() == 1
    assert first.completed == second.completed == [(LAYER, 2)]
    assert (paths.rootfs(LAYER) / "bin/sh").read_bytes() == b"#!"
    assert_nothing_is_left(paths)


def test_layer_that_is_there_is_not_unpacked_again(layers: LayerStore, threads: GatedThreads, tmp_path: Path) -> None:
    threads.gate.set()
    layers.put(LAYER, blob_of(DATA, tmp_path)).get(timeout=TIMEOUT)
    told = Told()

    layers.put(LAYER, blob_of(DATA, tmp_path), listener=told).get(timeout=TIMEOUT)

    assert threads.begun.qsize() == 1
    assert told.completed == [(LAYER, None)]


def test_layer_that_is_there_needs_no_blob(layers: LayerStore, threads: GatedThreads, tmp_path: Path) -> None:
    threads.gate.set()
    absent = LayerBlob("layer.tar", 3, Absent("image.tar", "is missing"))
    with pytest.raises(ArchiveError, match=r"layer\.tar is missing, and the store does not have it"):
        layers.put(LAYER, absent).get(timeout=TIMEOUT)
    layers.put(LAYER, blob_of(DATA, tmp_path)).get(timeout=TIMEOUT)
    told = Told()

    layers.put(LAYER, absent, listener=told).get(timeout=TIMEOUT)

    assert told.completed == [(LAYER, None)]


def test_put_that_joined_a_failing_one_tries_its_own_copy(
    layers: LayerStore, paths: StorePaths, threads: GatedThreads, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    bad, good, told = blob_of(OTHER, tmp_path / "bad"), blob_of(DATA, tmp_path), Told()

    failing = layers.put(LAYER, bad)
    joining = layers.put(LAYER, good, listener=told)
    wait_until_asked(layers)
    threads.gate.set()

    with pytest.raises(DigestMismatchError):
        failing.get(timeout=TIMEOUT)
    joining.get(timeout=TIMEOUT)
    assert threads.begun.qsize() == 2
    assert told.completed == [(LAYER, 2)]
    assert_nothing_is_left(paths)


def test_put_that_joined_a_failing_one_takes_what_another_process_put_meanwhile(
    layers: LayerStore, paths: StorePaths, threads: GatedThreads, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    failing, told = layers.put(LAYER, blob_of(OTHER, tmp_path / "bad")), Told()
    joining = layers.put(LAYER, blob_of(DATA, tmp_path), listener=told)
    wait_until_asked(layers)
    threads.begun.get(timeout=TIMEOUT)

    paths.rootfs(LAYER).mkdir(parents=True)
    threads.gate.set()

    with pytest.raises(DigestMismatchError):
        failing.get(timeout=TIMEOUT)
    joining.get(timeout=TIMEOUT)
    assert threads.begun.empty()
    assert told.completed == [(LAYER, None)]


def test_discard_of_one_of_two_puts_leaves_the_other_alone(
    layers: LayerStore, threads: GatedThreads, tmp_path: Path
) -> None:
    copy, told = blob_of(DATA, tmp_path), Told()
    dropped, kept = layers.put(LAYER, copy, listener=told), layers.put(LAYER, copy)
    wait_until_asked(layers)

    dropped.discard()
    with pytest.raises(DiscardedError):
        dropped.get(timeout=TIMEOUT)
    threads.gate.set()

    kept.get(timeout=TIMEOUT)
    assert threads.begun.qsize() == 1
    assert told.completed == []


def test_discard_of_the_last_put_is_final_once_its_worker_has_ended_and_nothing_is_left(
    layers: LayerStore, paths: StorePaths, threads: GatedThreads, tmp_path: Path
) -> None:
    put = layers.put(LAYER, blob_of(DATA, tmp_path))
    threads.begun.get(timeout=TIMEOUT)

    put.discard()
    wait_until_asked(layers)
    was_pending = put.is_pending()
    threads.gate.set()

    with pytest.raises(DiscardedError):
        put.get(timeout=TIMEOUT)
    assert was_pending
    assert find_layers(paths) == []
    assert_nothing_is_left(paths)
    layers.put(LAYER, blob_of(DATA, tmp_path)).get(timeout=TIMEOUT)


def test_layer_that_another_process_puts_meanwhile_is_not_unpacked(
    layers: LayerStore, paths: StorePaths, threads: GatedThreads, tmp_path: Path
) -> None:
    lock, told = acquire(paths.layers_lock, layer_byte(LAYER)), Told()
    put = layers.put(LAYER, blob_of(DATA, tmp_path), listener=told)
    wait_for(lambda: any(thread.name == "imagestore-blocking" for thread in threading.enumerate()))

    paths.rootfs(LAYER).mkdir(parents=True)
    lock.release()

    put.get(timeout=TIMEOUT)
    assert threads.begun.empty()
    assert told.completed == [(LAYER, None)]


def test_layer_is_wanted_until_it_is_durable(
    layers: LayerStore, paths: StorePaths, threads: GatedThreads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_visible, goes_on = threading.Event(), threading.Event()
    sync_directory = Disk.sync_directory

    def sync_late(disk: Disk, directory: Path) -> None:
        is_visible.set()
        assert goes_on.wait(TIMEOUT)
        sync_directory(disk, directory)

    monkeypatch.setattr(Disk, "sync_directory", sync_late)
    threads.gate.set()
    put = layers.put(LAYER, blob_of(DATA, tmp_path))

    assert is_visible.wait(TIMEOUT)
    assert find_layers(paths) == [LAYER]
    assert layers.find_wanted([LAYER]).get(timeout=TIMEOUT) == {LAYER}
    goes_on.set()
    put.get(timeout=TIMEOUT)

    assert layers.find_wanted([LAYER, DiffID(diff_id(OTHER))]).get(timeout=TIMEOUT) == {diff_id(OTHER)}


def test_close_stops_a_put_and_leaves_nothing(
    layers: LayerStore, paths: StorePaths, threads: GatedThreads, tmp_path: Path
) -> None:
    put = layers.put(LAYER, blob_of(DATA, tmp_path))
    threads.begun.get(timeout=TIMEOUT)
    with ThreadPoolExecutor(1) as closing:
        closed = closing.submit(layers.close)
        wait_for(lambda: any(paths.staging.glob("*/layer.stop")))  # the worker is asked to stop
        threads.gate.set()
        closed.result(TIMEOUT)

    assert isinstance(put.error(), StoreClosedError)
    assert find_layers(paths) == []
    assert_nothing_is_left(paths)


def test_put_that_was_discarded_before_the_store_is_closed_is_discarded(
    layers: LayerStore, threads: GatedThreads, tmp_path: Path
) -> None:
    put = layers.put(LAYER, blob_of(DATA, tmp_path))
    threads.begun.get(timeout=TIMEOUT)

    put.discard()
    with ThreadPoolExecutor(1) as closing:
        closed = closing.submit(layers.close)
        threads.gate.set()
        closed.result(TIMEOUT)

    assert put.is_discarded()


def test_close_stops_the_computation_of_a_diff_id(layers: LayerStore, threads: GatedThreads, tmp_path: Path) -> None:
    hashed = layers.hash_layer(blob_of(DATA, tmp_path))
    threads.begun.get(timeout=TIMEOUT)
    with ThreadPoolExecutor(1) as closing:
        closed = closing.submit(layers.close)
        has_waited = not wait([closed], timeout=0.1).done
        threads.gate.set()
        closed.result(TIMEOUT)

    assert has_waited
    assert hashed.is_discarded()


def test_closed_layer_store_says_so(layers: LayerStore, tmp_path: Path) -> None:
    blob = blob_of(DATA, tmp_path)

    layers.close()

    for answer in (layers.put(LAYER, blob), layers.hash_layer(blob), layers.find_wanted([LAYER])):
        with pytest.raises(StoreClosedError):
            answer.get(timeout=TIMEOUT)


def test_diff_id_of_a_layer_that_claims_none_is_computed(
    layers: LayerStore, paths: StorePaths, threads: GatedThreads, tmp_path: Path
) -> None:
    threads.gate.set()

    assert layers.hash_layer(blob_of(DATA, tmp_path)).get(timeout=TIMEOUT) == LAYER
    assert find_layers(paths) == []
