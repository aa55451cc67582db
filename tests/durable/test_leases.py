from __future__ import annotations

import errno
import gc
import os
import secrets
import socket
import threading
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pytest
from support import seams
from support.processes import TIMEOUT, Program

from pykka_imagestore._proto.lease_pb2 import LeaseRecord
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.needs import Needs
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable import leases
from pykka_imagestore.durable.leases import PutLease, find_leases, find_needs, take_lease
from pykka_imagestore.durable.locks import acquire
from pykka_imagestore.errors import LeaseError

ONE, TWO, CONFIG = DiffID(sha256(b"one")), DiffID(sha256(b"two")), sha256(b"config")
HOLDER = f"""
import sys
from pathlib import Path
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.leases import take_lease
lease = take_lease(StorePaths(Path(sys.argv[1])), [{ONE!r}], {CONFIG!r}, "a test")
print("took it", flush=True)
input()
lease.release()
print("released it", flush=True)
input()
"""


def needs(paths: StorePaths) -> Needs:
    lock = acquire(paths.leases_lock)
    try:
        return find_needs(paths)
    finally:
        lock.release()


def test_lease_needs_what_it_says_until_it_is_released(paths: StorePaths) -> None:
    lease = take_lease(paths, [TWO, ONE, TWO], CONFIG, "a test")
    (path,) = paths.leases.iterdir()
    record = LeaseRecord.FromString(path.read_bytes())

    found = needs(paths)
    lease.release()

    assert found == Needs(frozenset({ONE, TWO}), frozenset({CONFIG}))
    assert (list(record.layer_ids), record.config_digest) == ([TWO, ONE, TWO], CONFIG)
    assert (record.process, record.purpose) == (os.getpid(), "a test")
    assert os.listdir(paths.leases) == []
    assert needs(paths) == Needs()


def test_lease_of_a_put_grows_with_its_images_in_one_file(paths: StorePaths) -> None:
    lease, other = PutLease(paths), sha256(b"other config")
    before = os.listdir("/proc/self/fd")

    lease.need([ONE], CONFIG, "put of one")
    first = needs(paths)
    lease.need([ONE, TWO, TWO], other, "put of two")
    lease.need([], other, "put of three")

    (path,) = paths.leases.iterdir()
    assert first == Needs(frozenset({ONE}), frozenset({CONFIG}))
    assert needs(paths) == Needs(frozenset({ONE, TWO}), frozenset({CONFIG, other}))
    assert list(LeaseRecord.FromString(path.read_bytes()).layer_ids) == [ONE, TWO]
    assert [usage.purpose for usage in find_leases(paths)] == ["put of three"]
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    lease.release()
    assert (os.listdir(paths.leases), needs(paths)) == ([], Needs())


def test_version_that_knows_one_config_of_a_put_sees_all_layers_and_the_last_config(paths: StorePaths) -> None:
    lease, other = PutLease(paths), sha256(b"other config")
    lease.need([ONE], CONFIG, "put of one")
    lease.need([TWO], other, "put of two")
    (path,) = paths.leases.iterdir()

    record = LeaseRecord.FromString(path.read_bytes())

    assert (list(record.layer_ids), record.config_digest) == ([ONE, TWO], other)
    lease.release()


def test_what_a_put_needs_once_it_has_let_go_is_not_needed(paths: StorePaths) -> None:
    lease, unused = PutLease(paths), PutLease(paths)
    lease.need([ONE], CONFIG, "a put")
    lease.release()
    unused.release()

    lease.need([TWO], CONFIG, "a put")
    unused.need([TWO], CONFIG, "a put")

    assert (os.listdir(paths.leases), needs(paths)) == ([], Needs())


def test_lease_of_a_put_that_cannot_grow_is_released(paths: StorePaths) -> None:
    lease = PutLease(paths)
    lease.need([ONE], CONFIG, "put of one")

    with (
        patch(seams.WRITE_LEASE, side_effect=OSError(errno.ENOSPC, "full")),
        pytest.raises(OSError, match="full"),
    ):
        lease.need([TWO], CONFIG, "put of two")

    assert (os.listdir(paths.leases), needs(paths)) == ([], Needs())


def test_several_leases_need_what_all_of_them_say(paths: StorePaths) -> None:
    first = take_lease(paths, [ONE], None, "a test")
    second, third = (take_lease(paths, [TWO], CONFIG, "a test") for _ in range(2))

    assert needs(paths) == Needs(frozenset({ONE, TWO}), frozenset({CONFIG}))
    third.release()
    assert needs(paths) == Needs(frozenset({ONE, TWO}), frozenset({CONFIG}))
    second.release()
    assert needs(paths) == Needs(frozenset({ONE}))
    first.release()


def test_lease_is_released_twice_without_harm_to_another(paths: StorePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0123456789abcdef")
    lease = take_lease(paths, [ONE], None, "a test")
    lease.release()
    other = take_lease(paths, [TWO], None, "a test")

    lease.release()

    assert needs(paths) == Needs(frozenset({TWO}))
    other.release()


def test_lease_that_nobody_has_any_more_ends(paths: StorePaths) -> None:
    lease = take_lease(paths, [ONE], None, "a test")

    del lease
    gc.collect()

    assert os.listdir(paths.leases) == []


def test_lease_of_another_process_counts_until_it_releases_it(paths: StorePaths) -> None:
    with Program(HOLDER, paths.root) as holder:
        holder.line()
        held = needs(paths)

        holder.tell()

        assert holder.line() == "released it"
        assert needs(paths) == Needs()
        assert held == Needs(frozenset({ONE}), frozenset({CONFIG}))


def test_lease_of_a_killed_process_is_stale_and_is_removed(paths: StorePaths) -> None:
    with Program(HOLDER, paths.root) as holder:
        holder.line()
        before = needs(paths)

        holder.kill()

        assert len(os.listdir(paths.leases)) == 1
        assert needs(paths) == Needs()
        assert os.listdir(paths.leases) == []
        assert before.layers == {ONE}


def test_forked_child_does_not_end_its_parents_lease(paths: StorePaths) -> None:
    lease = take_lease(paths, [ONE], None, "a test")
    pid = os.fork()
    if not pid:
        lease.release()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

    assert needs(paths) == Needs(frozenset({ONE}))
    lease.release()
    assert os.listdir(paths.leases) == []


@pytest.mark.parametrize("data", [b"\xff" * 9, b"\x0a\x7f", b"\x0a\x01\xff", b"\x12\x01\xff"])
def test_lease_that_is_held_and_cannot_be_read_is_an_error(paths: StorePaths, data: bytes) -> None:
    odd = paths.leases / "0123456789abcdef"
    odd.write_bytes(data)
    lock = acquire(odd)

    with pytest.raises(LeaseError, match=f"^{odd} cannot be read, and the process that holds it is alive. "):
        needs(paths)

    lock.release()
    assert needs(paths) == Needs()


@pytest.mark.parametrize("left", [b"", b"\0" * 200, LeaseRecord(layer_ids=[ONE], process=1).SerializeToString()])
def test_lease_that_nobody_holds_is_removed_whatever_a_crash_left_of_it(paths: StorePaths, left: bytes) -> None:
    (paths.leases / "0123456789abcdef").write_bytes(left)

    assert needs(paths) == Needs()

    assert os.listdir(paths.leases) == []


@pytest.mark.parametrize("name", ["flat-2024.pdf", "0123456789abcdef", "odd"])
@pytest.mark.parametrize("kind", ["directory", "text", "link", "fifo", "socket", "large"])
def test_what_is_no_lease_is_left_alone_and_in_nobodys_way(paths: StorePaths, name: str, kind: str) -> None:
    lease = take_lease(paths, [ONE], None, "a test")
    place(paths.leases / name, kind)
    before = witness(paths.leases / name)

    found, told = needs(paths), find_leases(paths)

    assert (found, len(told)) == (Needs(frozenset({ONE})), 1)
    assert witness(paths.leases / name) == before
    lease.release()


def place(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
        (path / "draft").write_text("mine")
    elif kind == "text":
        path.write_text("an offer for the house, and what it says")
    elif kind == "link":
        path.with_name("target").write_text("mine")
        path.symlink_to("target")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener, chdir(path.parent):  # whose path may have 107 bytes
            listener.bind(path.name)
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)


def witness(path: Path) -> object:
    status = path.lstat()
    within = sorted(path.iterdir()) if path.is_dir() else []
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, within


def test_no_lease_is_taken_while_they_are_excluded(paths: StorePaths) -> None:
    lock, taken, took = acquire(paths.leases_lock), [], threading.Event()

    def take() -> None:
        taken.append(take_lease(paths, [ONE], None, "a test"))
        took.set()

    taker = threading.Thread(target=take)
    taker.start()
    at_once, files = took.wait(0.05), os.listdir(paths.leases)

    lock.release()

    assert took.wait(TIMEOUT)
    taker.join(TIMEOUT)
    assert (at_once, files) == (False, [])
    assert needs(paths) == Needs(frozenset({ONE}))
    taken[0].release()


def test_lease_that_is_being_taken_is_waited_for(paths: StorePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a file, and no lock yet: who looks in that moment would remove it."""
    writing, go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> object:
        writing.set()
        assert go_on.wait(TIMEOUT)
        return acquire(path)

    monkeypatch.setattr(seams.LOCK_LEASE, slowly)
    taken, found = [], []
    taker = threading.Thread(target=lambda: taken.append(take_lease(paths, [ONE], None, "a test")))
    taker.start()
    assert writing.wait(TIMEOUT)
    monkeypatch.undo()
    looker = threading.Thread(target=lambda: found.append(needs(paths)))
    looker.start()
    looker.join(0.05)

    go_on.set()

    taker.join(TIMEOUT)
    looker.join(TIMEOUT)
    assert found == [Needs(frozenset({ONE}))]
    taken[0].release()


def test_lease_that_is_released_just_when_it_is_looked_at_is_none(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, is_locked = take_lease(paths, [ONE], None, "a test"), leases.is_locked

    def released_then(path: Path) -> bool:
        found = is_locked(path)
        lease.release()
        return found

    monkeypatch.setattr(seams.SEE_LEASE_LOCKED, released_then)

    assert needs(paths) == Needs()


def test_leases_that_come_and_go_are_never_an_error_and_never_overlooked(paths: StorePaths) -> None:
    stop, stable = threading.Event(), take_lease(paths, [TWO], None, "a test")

    def churn() -> None:
        while not stop.is_set():
            take_lease(paths, [ONE], None, "a test").release()

    churners = [threading.Thread(target=churn) for _ in range(3)]
    for churner in churners:
        churner.start()
    found = {needs(paths) for _ in range(200)}
    stop.set()
    for churner in churners:
        churner.join(TIMEOUT)

    assert found <= {Needs(frozenset({TWO})), Needs(frozenset({ONE, TWO}))}
    stable.release()
    assert os.listdir(paths.leases) == []
