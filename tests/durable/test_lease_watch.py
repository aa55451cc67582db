from __future__ import annotations

import os
import queue
import resource
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.processes import TIMEOUT, Program

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.lease_watch import LeaseWatch
from pykka_imagestore.durable.leases import find_leases, find_needs, take_lease

ONE = DiffID(sha256(b"one"))
HOLDER = f"""
import sys
from pathlib import Path
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.leases import take_lease
lease = take_lease(StorePaths(Path(sys.argv[1])), [{ONE!r}], None, "a test")
print("took it", flush=True)
input()
"""


@pytest.fixture
def needed_at_ends(paths: StorePaths) -> Iterator[queue.SimpleQueue[int]]:
    """Return a queue that gets how many layers are needed, each time when leases have ended."""
    found: queue.SimpleQueue[int] = queue.SimpleQueue()
    watch = LeaseWatch(paths.leases, paths.containers, lambda: found.put(len(find_needs(paths).layers)))
    yield found
    watch.close()


def test_release_is_told_when_the_lease_does_not_count_any_more(
    paths: StorePaths, needed_at_ends: queue.SimpleQueue[int]
) -> None:
    for _ in range(100):
        take_lease(paths, [ONE], None, "a test").release()
        assert needed_at_ends.get(timeout=TIMEOUT) == 0
        while not needed_at_ends.empty():
            needed_at_ends.get()


def test_death_is_told_when_the_lease_does_not_count_any_more(
    paths: StorePaths, needed_at_ends: queue.SimpleQueue[int]
) -> None:
    with Program(HOLDER, paths.root) as holder:
        holder.line()
        assert needed_at_ends.empty()

        holder.kill()

        assert needed_at_ends.get(timeout=TIMEOUT) == 0


def test_container_that_goes_is_told(paths: StorePaths) -> None:
    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    (paths.containers / "box-1").mkdir(parents=True)
    watch = LeaseWatch(paths.leases, paths.containers, lambda: told.put(None))

    (paths.containers / "box-2").mkdir()
    assert told.empty()
    (paths.containers / "box-1").rename(paths.gc / "box-1")

    told.get(timeout=TIMEOUT)
    watch.close()


def test_neither_a_new_lease_nor_a_look_is_told(paths: StorePaths) -> None:
    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    watch = LeaseWatch(paths.leases, paths.containers, lambda: told.put(None))
    leases = [take_lease(paths, [ONE], None, "a test") for _ in range(3)]
    find_needs(paths)
    assert len(find_leases(paths)) == 3

    watch.close()

    assert told.empty()
    for lease in leases:
        lease.release()
    assert told.empty()


def test_nothing_of_it_is_left_when_it_is_closed(paths: StorePaths) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(20):
        LeaseWatch(paths.leases, paths.containers, lambda: None).close()

    assert set(os.listdir("/proc/self/fd")) == before
    assert not any(thread.name == "imagestore-lease-watch" for thread in threading.enumerate())


def test_what_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))

    with pytest.raises(FileNotFoundError, match="gone"):
        LeaseWatch(tmp_path / "gone", tmp_path / "gone", lambda: None)

    assert set(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_left_is_an_error(paths: StorePaths) -> None:
    limits, taken = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for free in (0, 1):
            os.close(taken.pop()) if free else None
            with pytest.raises(OSError, match="Too many open files"):
                LeaseWatch(paths.leases, paths.containers, lambda: None)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
