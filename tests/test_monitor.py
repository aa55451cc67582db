"""What a store tells of itself: events to a listener, counts, and lines in the log."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT, wait_for
from support.stores import opened

from pykka_imagestore import (
    ArchiveIndexed,
    Event,
    ImagePut,
    ImagesRemoved,
    LayerUnpacked,
    LocalStore,
    PutFailed,
    StoreStats,
    Swept,
)
from pykka_imagestore.monitor import MAX_WAITING, Monitor

E = TypeVar("E", bound=Event)
BASE, TOP = layer({"base": b"b" * 5000}), layer({"top": b"t" * 100})
LOGGER = "pykka_imagestore.monitor"


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, layers: docker_save(tmp_path / f"{name}.tar", {f"{name}:1": layers})


def find(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def test_events_and_counts_tell_what_a_store_did(tmp_path: Path, archive: Callable[..., Path]) -> None:
    events: list[Event] = []
    with LocalStore.start(tmp_path / "store", workers=1, on_event=events.append) as store:
        store.put("a:1", archive("a", [BASE])).get(timeout=TIMEOUT)
        store.put("b:1", archive("b", [BASE, TOP])).get(timeout=TIMEOUT)
        store.put("none:1", tmp_path / "none.tar").recover(lambda _: None).get(timeout=TIMEOUT)
        store.remove("b:1").get(timeout=TIMEOUT)
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)
        wait_for(lambda: len(find(events, Swept)) >= 2)
        stats = store.stats()

    assert [(put.names, put.layers, put.layers_found) for put in find(events, ImagePut)] == [
        (("a:1",), 1, 0),
        (("b:1",), 2, 1),
    ]
    assert [unpacked.bytes_unpacked for unpacked in find(events, LayerUnpacked)] == [len(BASE), len(TOP)]
    assert [Path(indexed.archive).name for indexed in find(events, ArchiveIndexed)] == ["a.tar", "b.tar"]
    assert [(failed.name, failed.is_discarded) for failed in find(events, PutFailed)] == [("none:1", False)]
    removed, pruned = find(events, ImagesRemoved)
    assert (removed.cause, removed.names, removed.layers) == ("remove", ("b:1",), 1)
    assert (pruned.cause, pruned.names, pruned.layers) == ("prune", ("a:1",), 1)
    assert {removed.bytes, pruned.bytes} <= {swept.bytes for swept in find(events, Swept)}
    assert removed.bytes > 0
    total = Counter[str]()
    for event in events:
        total.update(event.counts())
    assert asdict(stats) == {**asdict(StoreStats()), **total}
    assert (stats.puts, stats.puts_failed, stats.layers_found, stats.layers_unpacked) == (2, 1, 1, 2)
    assert min(stats.index_seconds, stats.unpack_seconds, stats.publish_seconds, stats.record_seconds) > 0


def test_a_call_that_shares_a_put_is_counted_as_joined(tmp_path: Path, archive: Callable[..., Path]) -> None:
    path = archive("a", [BASE])
    with opened(tmp_path / "store") as store:
        puts = [store.put("a:1", path) for _ in range(20)]
        for put in puts:
            put.get(timeout=TIMEOUT)
        stats = store.stats()

    assert stats.puts + stats.puts_joined == 20
    assert stats.puts_joined > 0
    assert stats.layers_unpacked == 1


def test_a_put_past_the_budget_is_told_as_an_eviction(tmp_path: Path, archive: Callable[..., Path]) -> None:
    with opened(tmp_path / "store", durable=False, budget_bytes=60_000) as store:
        for name in ("a", "b", "c"):
            store.put(f"{name}:1", archive(name, [layer({name: name.encode() * 8000})])).get(timeout=TIMEOUT)
        stats = store.stats()

    assert stats.images_evicted >= 1
    assert stats.images_removed == 0
    assert stats.bytes_removed >= 8000


def test_a_discarded_put_is_told_as_such(tmp_path: Path, archive: Callable[..., Path]) -> None:
    path = archive("a", [layer({str(n): b"x" * 500 for n in range(5000)})])
    with LocalStore.start(tmp_path / "store", workers=1) as store:
        put = store.put("a:1", path)
        wait_for(lambda: store.stats().index_seconds > 0)
        put.discard()
        wait_for(lambda: store.stats().puts_discarded + store.stats().puts == 1)

    assert store.stats().puts_failed == 0


def test_a_repair_is_told(tmp_path: Path, archive: Callable[..., Path]) -> None:
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    with LocalStore.start(tmp_path / "store", workers=1, on_event=events.put) as store:
        image = store.put("a:1", archive("a", [BASE])).get(timeout=TIMEOUT)
        (image.layers[0].path.parent / "layer.pb").unlink()
        assert store.repair().get(timeout=TIMEOUT).taken_out
        while not isinstance(event := events.get(timeout=TIMEOUT), ImagesRemoved):
            pass

    assert (event.cause, event.names, event.layers) == ("repair", (), 1)


def test_a_put_a_prune_and_a_sweep_are_lines_in_the_log(
    tmp_path: Path, archive: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER), opened(tmp_path / "store") as store:
        store.put("a:1", archive("a", [BASE])).get(timeout=TIMEOUT)
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)
        wait_for(lambda: store.stats().sweeps == 1)

    put, prune, sweep = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert put.startswith("put a:1: 6.5 KiB in 1 of 1 layers, in 0.")
    assert prune.startswith("prune: a:1 forgotten, ")
    assert ", 1 layer moved out, 28.8 KiB in all, in 0." in prune
    assert sweep.startswith("swept gc/")


def test_a_listener_that_fails_or_hangs_hurts_nobody(
    tmp_path: Path, archive: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    may_end = threading.Event()

    def hang(event: Event) -> None:
        assert may_end.wait(TIMEOUT)
        raise ValueError(str(event))

    with LocalStore.start(tmp_path / "store", workers=1, on_event=hang) as store:
        assert store.put("a:1", archive("a", [BASE])).get(timeout=TIMEOUT).name == "a:1"
    assert store.stats().puts == 1

    may_end.set()
    wait_for(lambda: "An event listener failed" in caplog.text)


def test_events_that_a_listener_is_too_slow_for_are_dropped_and_counted() -> None:
    may_end, told = threading.Event(), []

    def hang(event: Event) -> None:
        may_end.wait(TIMEOUT)
        told.append(event)

    monitor, event = Monitor(hang), ArchiveIndexed("a.tar", 1.0)
    for _ in range(MAX_WAITING + 100):
        monitor.note(event)
    may_end.set()
    wait_for(lambda: len(told) + monitor.stats().events_dropped == MAX_WAITING + 100)

    assert 90 <= monitor.stats().events_dropped <= 100
    assert monitor.stats().index_seconds == MAX_WAITING + 100
    monitor.close()
