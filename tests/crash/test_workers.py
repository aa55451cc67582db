"""A store's workers are killed at random moments, while images are put."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from chance import ROUNDS
from support.images import docker_save, layer
from support.processes import TIMEOUT, names, wait_for

from pykka_imagestore import LocalStore
from pykka_imagestore.runtime import WorkerDiedError, WorkerStartError


def test_killed_workers_cost_no_more_than_their_puts_and_leave_nothing(
    draw: random.Random, tmp_path: Path, count: Callable[..., None]
) -> None:
    archives = [
        docker_save(tmp_path / f"{number}.tar", {f"app:{number}": [layer({f"{number}/{n}": b"x" for n in range(300)})]})
        for number in range(8)
    ]
    before, killed = descriptors(), 0
    with LocalStore.start(tmp_path / "store", durable=False, workers=2) as store:
        while killed < ROUNDS:
            puts = [store.put(f"app:{number}", archive) for number, archive in enumerate(archives)]
            for _ in range(draw.randrange(1, 8)):
                time.sleep(draw.expovariate(50))
                killed += kill_one_of(children(), draw)
            ends = [put.recover(lambda future: future.error()).get(timeout=TIMEOUT) for put in puts]
            for number, end in enumerate(ends):
                assert not isinstance(end, Exception) or isinstance(end, WorkerDiedError | WorkerStartError), end
                if isinstance(end, Exception):
                    store.put(f"app:{number}", archives[number]).get(timeout=TIMEOUT)
            report = store.check(deep=True).get(timeout=TIMEOUT)
            assert (report.images, report.faults, report.unchecked) == (len(archives), (), ())
            for number in range(len(archives)):
                store.remove(f"app:{number}").get(timeout=TIMEOUT)
    # What was left because the workers that were to remove it were killed too, the next store removes.
    with LocalStore.start(tmp_path / "store") as store:
        store.recover().get(timeout=TIMEOUT)
        wait_for(lambda: names(tmp_path / "store/staging") == names(tmp_path / "store/gc") == [])
    count("kills", killed)
    assert children() == []
    wait_for(lambda: descriptors() <= before)


def kill_one_of(pids: list[int], draw: random.Random) -> bool:
    """Kill a process, if there is one; it may be about to start, to work, to answer or to end."""
    if not pids:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(draw.choice(pids), signal.SIGKILL)
    return True


def children() -> list[int]:
    """Return this process' children."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found.extend(map(int, (task / "children").read_text().split()))
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
