from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import seams
from support.processes import TIMEOUT, Program

from pykka_imagestore import LocalStore
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.durable import locks
from pykka_imagestore.durable.locks import acquire, is_locked, layer_byte, locked, require_locks
from pykka_imagestore.errors import LocksUnsupportedError, MisplacedFileError

HOLDER = """
import sys
from pathlib import Path
from pykka_imagestore.durable.locks import acquire
path, byte, shared = sys.argv[1:]
lock = acquire(Path(path), int(byte), shared=shared == "True")
print("holds it", flush=True)
input()
lock.release()
print("let go", flush=True)
input()
"""
diff_ids = st.binary().map(sha256).map(DiffID)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def holder(path: Path, byte: int = 0, *, shared: bool = False) -> Program:
    program = Program(HOLDER, path, byte, shared)
    assert program.line() == "holds it"
    return program


def is_free(path: Path, byte: int = 0, *, shared: bool = False) -> bool:
    try:
        acquire(path, byte, shared=shared, wait=False).release()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in this process", "in another process"])
@pytest.mark.parametrize("byte", [0, 1, 1 << 62])
def test_lock_excludes_others_until_it_is_released(path: Path, elsewhere: bool, byte: int) -> None:
    if elsewhere:
        with holder(path, byte) as other:
            found = is_free(path, byte), is_free(path, byte, shared=True)
            other.tell()
            assert other.line() == "let go"
            assert is_free(path, byte)
    else:
        lock = acquire(path, byte)
        found = is_free(path, byte), is_free(path, byte, shared=True)
        lock.release()
        assert is_free(path, byte)

    assert found == (False, False)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in this process", "in another process"])
def test_shared_locks_exclude_an_exclusive_one_alone(path: Path, elsewhere: bool) -> None:
    if elsewhere:
        with holder(path, shared=True):
            found = is_free(path, shared=True), is_free(path)
    else:
        lock = acquire(path, shared=True)
        found = is_free(path, shared=True), is_free(path)
        lock.release()

    assert found == (True, False)
    assert is_free(path)


def test_locks_on_different_bytes_and_files_do_not_meet(path: Path, tmp_path: Path) -> None:
    with locked(path, 5):
        assert is_free(path, 4)
        assert is_free(path, 6)
        assert is_free(tmp_path / "other", 5)


def test_lock_of_a_killed_process_is_free(path: Path) -> None:
    with holder(path) as other:
        assert is_locked(path)

        other.kill()

        assert not is_locked(path)
        assert is_free(path)


def test_who_waits_gets_the_lock_when_it_is_released(path: Path) -> None:
    lock, got = acquire(path), threading.Event()
    waiter = threading.Thread(target=lambda: (acquire(path).release(), got.set()))
    waiter.start()
    before = got.wait(0.05)

    lock.release()

    assert got.wait(TIMEOUT)
    waiter.join(TIMEOUT)
    assert not before


def test_lock_is_released_twice_without_harm_to_who_has_the_descriptor_now(path: Path) -> None:
    lock = acquire(path)
    assert lock.is_held()
    lock.release()
    other = acquire(path)

    lock.release()

    assert not lock.is_held()
    assert not is_free(path)
    other.release()


def test_lock_that_nobody_has_any_more_is_free(path: Path) -> None:
    lock = acquire(path)

    del lock
    gc.collect()

    assert is_free(path)


def test_lock_of_a_block_that_fails_is_free(path: Path) -> None:
    with pytest.raises(LookupError), locked(path):
        raise LookupError(is_free(path))

    assert is_free(path)


def test_lock_that_is_not_free_is_an_error_with_its_path(path: Path) -> None:
    with locked(path), pytest.raises(BlockingIOError) as caught:
        acquire(path, wait=False)

    assert (caught.value.errno, caught.value.filename) == (errno.EAGAIN, str(path))


def test_no_descriptor_is_left_by_a_lock_that_was_not_got(path: Path) -> None:
    with locked(path):
        before = os.listdir("/proc/self/fd")
        for _ in range(10):
            assert not is_free(path)

        assert os.listdir("/proc/self/fd") == before


def test_lock_does_not_reach_a_program_that_is_started(path: Path) -> None:
    lock = acquire(path)
    with Program("import time; print('runs', flush=True); input()") as child:
        child.line()

        lock.release()

        assert is_free(path)


@contextlib.contextmanager
def forked(work: Callable[[], object]) -> Iterator[bool]:
    """Fork a child that does some work and then lives to the end of the block; lend whether the work returned true."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(theirs, b"1" if work() else b"0")
            signal.pause()
        finally:
            os._exit(1)
    try:
        yield os.read(ours, 1) == b"1"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ours)
        os.close(theirs)


def test_forked_child_that_lives_on_does_not_keep_the_lock(path: Path) -> None:
    lock = acquire(path)
    with forked(lock.is_held) as is_held_in_child:
        before = is_free(path)

        lock.release()

        assert is_free(path)
        assert (is_held_in_child, before) == (False, False)


def test_forked_child_that_ends_does_not_end_the_lock(path: Path) -> None:
    lock = acquire(path)

    with forked(lock.release):
        pass

    assert not is_free(path)
    lock.release()


def test_looking_tells_whether_somebody_holds_it_and_changes_nothing(path: Path) -> None:
    assert not is_locked(path)
    assert not path.exists()
    lock = acquire(path)
    assert is_locked(path)
    assert is_locked(path)
    lock.release()
    assert not is_locked(path)
    with locked(path, 1):
        assert not is_locked(path)
    with locked(path, shared=True):
        assert is_locked(path)


def test_what_is_no_file_is_locked_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")

    with locked(tmp_path / "file"):
        for path in (tmp_path, tmp_path / "link", tmp_path / "file" / "below"):
            assert not is_locked(path)


def test_failure_to_look_is_no_answer(path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        is_locked(path.with_name("x" * 300))


def test_symlink_is_never_locked(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(MisplacedFileError, match="is a symbolic link, and a store has a file there"):
        acquire(path)

    assert not (tmp_path / "elsewhere").exists()


def test_lock_file_is_for_its_owner_alone(path: Path) -> None:
    acquire(path).release()

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 0


# -- file systems without locks

CALL = fcntl.fcntl


def test_locks_that_exclude_are_good(path: Path) -> None:
    require_locks(path)

    assert is_free(path, 1)


def test_locks_are_good_also_while_another_process_tries_them(path: Path) -> None:
    with holder(path, 1) as other:
        threading.Timer(0.05, other.tell).start()

        require_locks(path)

        assert is_free(path, 1)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_system_that_has_no_locks_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(fcntl, "fcntl", refusing(code))

    with pytest.raises(LocksUnsupportedError, match=f"^{path} cannot be locked: its file system has no locks"):
        acquire(path)
    with pytest.raises(LocksUnsupportedError):
        require_locks(path)


def test_file_system_whose_locks_do_nothing_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "fcntl", lambda *_: b"")

    with pytest.raises(LocksUnsupportedError):
        require_locks(path)


def test_other_errors_pass_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "fcntl", refusing(errno.EIO))

    with pytest.raises(OSError, match="injected") as caught:
        acquire(path)

    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("call", [lambda *_: b"", None], ids=["they do nothing", "ENOLCK"])
def test_store_on_a_file_system_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call) -> None:
    monkeypatch.setattr(fcntl, "fcntl", call or refusing(errno.ENOLCK))
    lock = tmp_path / "store" / "locks" / "references"

    with LocalStore.start(tmp_path / "store") as store:
        for work in (store.recover, store.list, lambda: store.get("app"), lambda: store.put("app", tmp_path / "a.tar")):
            with pytest.raises(LocksUnsupportedError) as caught:
                work().get(timeout=TIMEOUT)

            assert str(caught.value) == (
                f"{lock} cannot be locked: its file system has no locks that hold between processes. Nothing was "
                "changed; move the store to a local disk"
            )
        monkeypatch.undo()
        assert store.recover().get(timeout=TIMEOUT).images == 0


def refusing(code: int):
    def call(*_: object) -> None:
        raise OSError(code, "injected")

    return call


# -- layers


@given(diff_ids)
def test_layers_byte_can_be_locked(diff_id: DiffID) -> None:
    assert 1 << 62 <= layer_byte(diff_id) < (1 << 63) - 1


@given(st.lists(diff_ids, unique=True, max_size=50))
def test_layers_have_bytes_of_their_own(found: list[DiffID]) -> None:
    assert len(set(map(layer_byte, found))) == len(found)


# -- files that somebody removes


def test_lock_file_that_is_removed_while_it_is_waited_for_splits_nobody(path: Path) -> None:
    first, got = acquire(path), []
    waiter = threading.Thread(target=lambda: got.append(acquire(path)))
    waiter.start()
    wait_until(lambda: "->" in Path("/proc/locks").read_text())
    path.unlink()
    third = acquire(path)

    first.release()  # to whom it waits for the removed file

    waiter.join(0.2)
    assert got == []
    third.release()
    waiter.join(TIMEOUT)
    assert not is_free(path)
    got[0].release()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_lock_is_on_the_file_that_is_there_when_it_is_got(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    opened, left = locks.open_file, [1, 2, 3]

    def open_then_lose(path: Path, flags: int) -> int:
        descriptor = opened(path, flags)
        if left:
            left.pop()
            path.unlink()
            if how == "replaced":
                path.touch()
        return descriptor

    monkeypatch.setattr(seams.OPEN_LOCK, open_then_lose)

    lock = acquire(path)

    assert lock.descriptor is not None
    assert os.path.samestat(os.fstat(lock.descriptor), path.stat())
    assert not is_free(path)
    lock.release()


def test_lock_file_that_is_removed_for_ever_is_an_error_and_costs_no_descriptor(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = locks.open_file

    def open_then_lose(path: Path, flags: int) -> int:
        descriptor = opened(path, flags)
        path.unlink()
        return descriptor

    monkeypatch.setattr(seams.OPEN_LOCK, open_then_lose)
    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match="removed again and again"):
        acquire(path)

    assert os.listdir("/proc/self/fd") == before


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # the kernel's: there is nothing to wait on
