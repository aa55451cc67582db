"""What a store takes of its program while it has nothing to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from support import seams
from support.images import docker_save, layer, worker_pids
from support.processes import TIMEOUT, wait_for

from pykka_imagestore import LocalStore


def wake_ups(threads: Iterable[threading.Thread]) -> int:
    """Return how often these threads have waited for something."""
    waits = 0
    for thread in threads:
        with open(f"/proc/self/task/{thread.native_id}/status") as status:
            waits += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
    return waits


def woke_up(threads: Iterable[threading.Thread]) -> int:
    """Return how often these threads wake up in half a second."""
    earlier = wake_ups(threads)
    time.sleep(0.5)
    return wake_ups(threads) - earlier


def test_an_idle_store_has_few_threads_no_worker_and_never_wakes_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(seams.WORKER_IDLE_SECONDS, 0.01)
    monkeypatch.setattr(seams.THREAD_IDLE_SECONDS, 0.01)
    before = set(threading.enumerate())
    with LocalStore.start(tmp_path / "store") as store:
        store.put("app", docker_save(tmp_path / "app.tar", {"app": [layer({"file": b"1"})]})).get(timeout=TIMEOUT)

        # What stays is a thread for each of five actors, and the one that looks after workers when there are some.
        wait_for(lambda: not worker_pids() and len(set(threading.enumerate()) - before) <= 6)
        its_own = set(threading.enumerate()) - before

        # Threads that have only just done something still hand the interpreter's lock to one another.
        wait_for(lambda: woke_up(its_own) == 0)
