"""Threads take turns, and nobody waits for the disk of another, nor long for who does not come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.provision.turns import PATIENCE, DiskBetweenTurns, Turns

THREADS = 4


class WaitingDisk(Disk):
    """Syncs nothing before all threads do so at once."""

    def __init__(self, threads: int) -> None:
        self._all = threading.Barrier(threads)

    def _wait(self, *_: object, **__: object) -> None:
        self._all.wait(timeout=TIMEOUT)

    sync_file = sync_data = sync_directory = sync_file_system = sync_placed = _wait


def together(function: Callable[[int], object], threads: int = THREADS) -> None:
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(function, range(threads), timeout=TIMEOUT))


def most_at_once(turns: Turns) -> int:
    inside, most = [0], [0]

    def count(_: object) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(PATIENCE / 20)
        inside[0] -= 1

    together(lambda number: turns.take(count, number))
    return most[0]


def test_one_thread_at_a_time_has_its_turn() -> None:
    assert most_at_once(Turns()) == 1


@pytest.mark.parametrize(
    "sync",
    [
        lambda disk: disk.sync_file(Path()),
        lambda disk: disk.sync_data(0),
        lambda disk: disk.sync_directory(Path()),
        lambda disk: disk.sync_file_system(Path()),
        lambda disk: disk.sync_placed(Path(), 0),
    ],
    ids=["file", "data", "directory", "file system", "placed"],
)
def test_others_have_their_turns_while_one_waits_for_the_disk(sync: Callable[[Disk], None]) -> None:
    turns = Turns()
    disk = DiskBetweenTurns(WaitingDisk(THREADS), turns)

    together(lambda _: turns.take(sync, disk))

    assert most_at_once(turns) == 1


def test_nobody_waits_long_for_who_does_not_come_back() -> None:
    turns, over, here = Turns(), threading.Event(), threading.Event()

    def stay(_: object) -> bool:
        here.set()
        return over.wait(timeout=TIMEOUT)

    with ThreadPoolExecutor(1) as executor:
        staying = executor.submit(turns.take, stay, None)
        assert here.wait(timeout=TIMEOUT)
        try:
            assert turns.take(lambda _: staying.done(), None) is False
        finally:
            over.set()
        assert staying.result(timeout=TIMEOUT)


def test_a_turn_ends_with_an_error() -> None:
    turns = Turns()

    with pytest.raises(ZeroDivisionError):
        turns.take(lambda number: 1 / number, 0)

    assert most_at_once(turns) == 1


def test_who_has_no_turn_gives_none_away(tmp_path: Path) -> None:
    turns = Turns()

    def sync_and_look(_: object) -> None:
        disk = DiskBetweenTurns(Disk(), turns)
        with ThreadPoolExecutor(1) as executor:  # in a thread that has no turn
            executor.submit(disk.sync_directory, tmp_path).result(timeout=TIMEOUT)
            inside = threading.Event()
            executor.submit(turns.take, lambda _: inside.set(), None)
            assert not inside.wait(timeout=PATIENCE / 4)

    turns.take(sync_and_look, None)
