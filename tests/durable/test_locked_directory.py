from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from support.processes import TIMEOUT, Program

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.durable.locked_directory import LockedDirectory, find_orphans
from pykka_imagestore.durable.locks import is_locked, locked

ONE, TWO, CONFIG = DiffID(sha256(b"one")), DiffID(sha256(b"two")), sha256(b"{}")
OWNER = """
import sys
from pathlib import Path
from pykka_imagestore.durable.locked_directory import LockedDirectory
directory = LockedDirectory.below(Path(sys.argv[1]), Path(sys.argv[2]))
directory.make()
print(directory.path, flush=True)
input()
"""


@pytest.fixture
def guard(tmp_path):
    (tmp_path / "locks").mkdir()
    return tmp_path / "locks" / "staging"


@pytest.fixture
def staging(tmp_path):
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


def test_directory_has_a_name_before_it_is_made_and_a_lock_after(staging, guard):
    directory = LockedDirectory.below(staging, guard)
    assert os.listdir(staging) == []

    directory.make()

    assert directory.path.parent == staging
    assert os.listdir(directory.path) == ["lock"]
    assert directory.path.stat().st_mode & 0o777 == 0o700
    directory.release()


def test_directories_have_different_names(staging, guard):
    assert len({LockedDirectory.below(staging, guard).path for _ in range(100)}) == 100


def test_directory_is_no_orphan_while_its_owner_holds_it(staging, guard):
    first, second = LockedDirectory.below(staging, guard), LockedDirectory.below(staging, guard)
    first.make()
    second.make()

    assert find_orphans(staging, guard) == []
    first.release()
    assert find_orphans(staging, guard) == [first.path]
    second.release()
    assert set(find_orphans(staging, guard)) == {first.path, second.path}


def test_release_twice_or_in_vain_does_no_harm(staging, guard):
    directory = LockedDirectory.below(staging, guard)

    directory.release()
    directory.make()
    directory.release()
    directory.release()

    assert find_orphans(staging, guard) == [directory.path]


def test_directory_that_nobody_has_any_more_is_an_orphan(staging, guard):
    directory = LockedDirectory.below(staging, guard)
    directory.make()
    path = directory.path

    del directory

    assert find_orphans(staging, guard) == [path]


def test_owner_that_is_killed_lets_go(staging, guard):
    with Program(OWNER, staging, guard) as owner:
        path = Path(owner.line())
        assert find_orphans(staging, guard) == []

        owner.kill()

        assert find_orphans(staging, guard) == [path]


@pytest.mark.parametrize(
    "left", [[], ["archive.tar", "archive.tar.stop"], ["config"], ["layer", "layer.helpers"], [f"sha256-{'a' * 64}"]]
)
def test_directory_whose_lock_is_gone_or_was_never_made_is_an_orphan(staging, guard, left):
    directory = staging / "0123456789abcdef"
    directory.mkdir()
    for name in left:
        (directory / name).touch()

    assert find_orphans(staging, guard) == [directory]


def test_what_a_process_put_beside_its_lock_is_its_own(staging, guard):
    directory = LockedDirectory.below(staging, guard)
    directory.make()
    (directory.path / "whatever").touch()
    directory.release()

    assert find_orphans(staging, guard) == [directory.path]


def test_what_no_process_made_is_no_orphan(staging, guard):
    names = [f"{number:016x}" for number in range(7)]
    (staging / names[0]).touch()
    (staging / names[1]).symlink_to("nowhere")
    (staging / names[2]).symlink_to(staging.parent)
    os.mkfifo(staging / names[3])
    for name in names[4:]:
        (staging / name).mkdir()
        (staging / name / "draft.txt").write_text("mine")
    (staging / names[5] / "lock").write_text("a lock that holds something is none of a store's")
    (staging / names[6] / "lock").mkdir()

    assert find_orphans(staging, guard) == []


@pytest.mark.root
def test_directory_of_another_user_is_no_orphan(staging, guard):
    directory = LockedDirectory.below(staging, guard)
    directory.make()
    directory.release()
    os.chown(directory.path, 65534, 65534)

    assert find_orphans(staging, guard) == []


@pytest.mark.parametrize("name", ["thesis", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "x1v7Qz"])
def test_what_has_another_name_is_somebody_elses(staging, guard, name):
    (staging / name).mkdir()

    assert find_orphans(staging, guard) == []


def test_lock_that_is_a_symlink_is_not_followed(tmp_path, staging, guard):
    (tmp_path / "other").mkdir()
    directory = LockedDirectory.below(tmp_path / "other", guard)
    directory.make()
    (staging / "0123456789abcdef").mkdir()
    (staging / "0123456789abcdef" / "lock").symlink_to(directory.path / "lock")

    assert find_orphans(staging, guard) == [staging / "0123456789abcdef"]
    assert is_locked(directory.path / "lock")
    directory.release()


def test_looking_does_not_take_the_lock(staging, guard):
    directory = LockedDirectory.below(staging, guard)
    directory.make()
    directory.release()

    assert find_orphans(staging, guard) == find_orphans(staging, guard) == [directory.path]


def test_missing_directory_has_no_orphans(tmp_path, guard):
    assert find_orphans(tmp_path / "missing", guard) == []


def test_store_without_locks_has_no_orphans_and_gets_none(tmp_path, staging):
    (staging / "old").mkdir()

    assert find_orphans(staging, tmp_path / "locks" / "staging") == []
    assert not (tmp_path / "locks").exists()


def test_directory_is_made_only_while_nobody_looks_for_orphans(staging, guard):
    directory, made = LockedDirectory.below(staging, guard), threading.Event()
    maker = threading.Thread(target=lambda: (directory.make(), made.set()))
    with locked(guard):
        maker.start()
        is_made_at_once = made.wait(0.05)
        listed = os.listdir(staging)

    assert made.wait(TIMEOUT)
    maker.join(TIMEOUT)
    assert (is_made_at_once, listed) == (False, [])
    directory.release()


def test_directory_that_is_being_made_is_no_orphan(tmp_path, staging, guard):
    seen, stop = [], threading.Event()

    def sweep():
        while not stop.is_set():
            seen.extend(path for path in find_orphans(staging, guard) if path.exists())

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    for number in range(1000):
        directory = LockedDirectory.below(staging, guard)
        directory.make()
        directory.path.rename(tmp_path / str(number))
        directory.release()
    stop.set()
    sweeper.join(timeout=TIMEOUT)

    assert seen == []
