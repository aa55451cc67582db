"""Events are lines that harm no terminal, and the counts of a store are their sum."""

from __future__ import annotations

import pickle
from dataclasses import fields

import pytest

from pykka_imagestore import (
    ArchiveIndexed,
    ContainerDestroyed,
    ContainerProvisioned,
    DiffID,
    Event,
    ImagePut,
    ImagesRemoved,
    LayerUnpacked,
    PutFailed,
    PutJoined,
    StoreStats,
    Swept,
)
from pykka_imagestore.monitor import Monitor

HOSTILE = "a\x1b[2J\nb"
EVENTS: list[Event] = [
    ArchiveIndexed(HOSTILE, 0.25),
    LayerUnpacked(DiffID("sha256:1"), 10, 100, 0.5, 0.125),
    ImagePut((HOSTILE, "app:2"), 3, 2, 10, 2.0, 0.5),
    PutJoined(HOSTILE),
    PutJoined(None),
    PutFailed(HOSTILE, "no\nspace", is_discarded=False, seconds=1.0),
    PutFailed(None, "", is_discarded=True, seconds=1.0),
    ImagesRemoved("remove", (HOSTILE,), 1, 4096, 0.5),
    ImagesRemoved("budget", tuple(f"app:{n}" for n in range(50)), 2, 100, 0.5),
    ImagesRemoved("repair", (), 1, 0, 0.5),
    ContainerProvisioned("box-1", HOSTILE, "overlay", 0.25),
    ContainerDestroyed("box-1", 0.125),
    Swept("gc/0123", 4096, 0.5),
    Swept("staging/4567", None, 0.5),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_one_printable_line_and_a_value(event: Event) -> None:
    assert str(event).isprintable()
    assert len(str(event)) < 500
    assert pickle.loads(pickle.dumps(event)) == event


def test_the_counts_are_the_sum_of_the_events() -> None:
    monitor = Monitor()
    for event in EVENTS:
        monitor.note(event)

    assert monitor.stats() == StoreStats(
        puts=1,
        puts_joined=2,
        puts_failed=1,
        puts_discarded=1,
        layers_found=2,
        layers_unpacked=1,
        bytes_read=10,
        bytes_unpacked=100,
        index_seconds=0.25,
        unpack_seconds=0.5,
        publish_seconds=0.125,
        record_seconds=0.5,
        images_removed=1,
        images_evicted=50,
        layers_removed=4,
        bytes_removed=4196,
        containers_provisioned=1,
        containers_destroyed=1,
        provision_seconds=0.25,
        destroy_seconds=0.125,
        sweeps=2,
        sweep_seconds=1.0,
    )


def test_each_kind_of_event_counts() -> None:
    counted = {name for event in EVENTS for name in event.counts()}

    assert counted == {field.name for field in fields(StoreStats)} - {"events_dropped"}
