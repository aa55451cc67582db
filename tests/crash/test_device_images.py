"""What has reached the disk at each moment, as a power cut would leave it: copies of a real file system's device."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest
from chance import ROUNDS
from device import Device, mounted, new_device, why_not
from gallery import Gallery
from history import History
from invariants import Violation, check_stopped
from script import Script
from seam import watched
from support.processes import TIMEOUT
from support.stores import opened

from pykka_imagestore.durable.disk import Disk


@pytest.fixture(scope="module")
def _devices(tmp_path_factory: pytest.TempPathFactory) -> None:
    reason = why_not(tmp_path_factory.mktemp("try"))
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def device(_devices: None, tmp_path: Path) -> Iterator[Device]:
    with new_device(tmp_path) as device:
        yield device


@dataclass
class Album:
    """Copies of a device, each with when it was made."""

    device: Device
    directory: Path
    copies: list[tuple[str, Path, float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, moment: str) -> None:
        with self._lock:
            copy = self.directory / f"copy-{len(self.copies)}"
            before = time.monotonic()
            self.device.copy(copy)
            self.copies.append((moment, copy, before, time.monotonic()))

    def choose(self, draw: random.Random, most: int) -> None:
        """Throw out all but so many."""
        chosen = draw.sample(self.copies, min(most, len(self.copies)))
        for copy in self.copies:
            if copy not in chosen:
                copy[1].unlink()
        self.copies = chosen

    def check(self, gallery: Gallery, history: History) -> list[str]:
        """Mount each copy, and check the store on it; return what does not hold."""
        found = []
        for moment, copy, before, after in self.copies:
            try:
                with mounted(copy, self.directory / "copy") as cut:
                    check_stopped(cut.directory / "store", gallery, history.cut(before, after))
            except Violation as violation:
                found.append(f"{moment}: {violation}")
            copy.unlink()
        return found


def whole_life(script: Script, album: Album) -> None:
    """Do all that a store does, and look at the device after each answer."""
    steps: list[Callable[[], None]] = [
        lambda: script.put("app:1", "alpha"),
        lambda: script.put_all(("app:2", "beta"), ("app:3", "delta")),
        lambda: script.put("app:1", "gamma"),
        lambda: script.remove("app:2"),
        script.prune,
        lambda: script.put("app:2", "beta"),
        lambda: script.prune(keep=["app:2"], budget_bytes=0),
    ]
    for number, step in enumerate(steps):
        step()
        album.add(f"after step {number}")


@contextlib.contextmanager
def without(call: str) -> Iterator[None]:
    """Have a call of the disk do nothing."""
    with patch.object(Disk, call, lambda *_: None):
        yield


def test_what_was_acknowledged_has_reached_the_disk_at_each_call(
    device: Device, gallery: Gallery, draw: random.Random, tmp_path: Path, count: Callable[..., None]
) -> None:
    album, history, numbers = Album(device, tmp_path), History(), itertools.count()
    with (
        opened(device.directory / "store") as store,
        watched(lambda name, *_: album.add(f"{name}, call {next(numbers)}")),
    ):
        store.recover().get(timeout=TIMEOUT)
        whole_life(Script(store, gallery, history), album)
    album.add("after close")

    assert len(album.copies) > 40
    album.choose(draw, 4 * ROUNDS)
    count("device images", len(album.copies))
    assert album.check(gallery, history) == []


def test_what_was_acknowledged_has_reached_the_disk_at_any_moment(
    device: Device, gallery: Gallery, draw: random.Random, tmp_path: Path, count: Callable[..., None]
) -> None:
    album, history = Album(device, tmp_path), History()
    ended = threading.Event()

    def photograph() -> None:
        while not ended.wait(draw.uniform(0, 0.05)):
            album.add("some moment")

    photographer = threading.Thread(target=photograph)
    with opened(device.directory / "store") as store:
        store.recover().get(timeout=TIMEOUT)
        script = Script(store, gallery, history)
        photographer.start()
        try:
            until = time.monotonic() + ROUNDS / 25
            while time.monotonic() < until:
                random_step(script, draw)
        finally:
            ended.set()
            photographer.join()

    count("device images", len(album.copies))
    assert album.check(gallery, history) == []


def random_step(script: Script, draw: random.Random) -> None:
    names = [f"app:{number}" for number in range(4)]
    images = ["alpha", "beta", "gamma", "delta"]
    match draw.randrange(6):
        case 0:
            script.remove(draw.choice(names))  # perhaps it is not there
        case 1:
            script.prune(keep=draw.sample(names, 2), budget_bytes=draw.randrange(500_000))
        case _:
            script.put_all(*zip(draw.sample(names, 2), draw.choices(images, k=2), strict=True))


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        ("sync_file_system", "paths are not as they were put"),
        ("sync_data", "shows None, and may show"),
        ("sync_file", "has other bytes: b''"),
    ],
)
def test_a_sync_left_out_is_seen(call: str, seen: str, device: Device, gallery: Gallery, tmp_path: Path) -> None:
    # Not so a directory's: here each sync of a file brings all names to the disk. See test_power_cuts.
    album, history = Album(device, tmp_path), History()
    with without(call), opened(device.directory / "store") as store:
        store.recover().get(timeout=TIMEOUT)
        script = Script(store, gallery, history)
        for number, image in enumerate(("alpha", "beta", "delta")):
            script.put(f"app:{number}", image)
            album.add(f"after the put of {image}")

    found = album.check(gallery, history)
    assert len(found) == 3
    assert seen in found[0]


def test_a_store_that_is_not_durable_is_seen_to_lose_images(device: Device, gallery: Gallery, tmp_path: Path) -> None:
    album, history = Album(device, tmp_path), History()
    with opened(device.directory / "store", durable=False) as store:
        Script(store, gallery, history).put("app:1", "alpha")
        album.add("after the put")

    (violation,) = album.check(gallery, history)
    assert "app:1 shows None, and may show" in violation
