"""What a store takes of its program while it has nothing to do."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from images import docker_save, layer, worker_pids
from processes import TIMEOUT, wait_for

from pykka_imagestore import LocalStore
from pykka_imagestore.runtime import crew, processes


def wake_ups() -> int:
    """Return how often the threads of this process have waited for something, but for the one that asks."""
    waits = 0
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != threading.get_native_id():
            with open(f"/proc/self/task/{thread}/status") as status:
                waits += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
    return waits


def test_an_idle_store_has_few_threads_no_worker_and_never_wakes_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(crew, "IDLE_SECONDS", 0.01)
    before = threading.active_count()
    with LocalStore.start(tmp_path / "store") as store:
        store.put("app", docker_save(tmp_path / "app.tar", {"app": [layer({"file": b"1"})]})).get(timeout=TIMEOUT)

        wait_for(lambda: not worker_pids() and threading.active_count() - before <= 7)  # 8 with the program's own
        earlier = wake_ups()
        time.sleep(0.5)

        assert wake_ups() == earlier
