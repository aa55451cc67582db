from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from pykka_imagestore.durable.staging import Staging, find_orphans

OWNER = """
import sys, time
from pathlib import Path
sys.path[:] = sys.argv[2:]
from pykka_imagestore.durable.staging import Staging
staging = Staging.below(Path(sys.argv[1]))
staging.make()
print(staging.path, flush=True)
time.sleep(60)
"""


def orphans(folder):
    return list(find_orphans(folder))


def test_folder_has_a_name_before_it_is_made_and_a_lock_after(tmp_path):
    staging = Staging.below(tmp_path)
    assert os.listdir(tmp_path) == []

    staging.make()

    assert staging.path.parent == tmp_path
    assert os.listdir(staging.path) == ["lock"]
    staging.release()


def test_folders_have_different_names(tmp_path):
    assert len({Staging.below(tmp_path).path for _ in range(100)}) == 100


def test_folder_is_no_orphan_while_its_owner_holds_it(tmp_path):
    first, second = Staging.below(tmp_path), Staging.below(tmp_path)
    first.make()
    second.make()

    assert orphans(tmp_path) == []
    first.release()
    assert orphans(tmp_path) == [first.path]
    second.release()
    assert set(orphans(tmp_path)) == {first.path, second.path}


def test_release_twice_or_in_vain_does_no_harm(tmp_path):
    staging = Staging.below(tmp_path)

    staging.release()
    staging.make()
    staging.release()
    staging.release()

    assert orphans(tmp_path) == [staging.path]


def test_owner_that_is_killed_lets_go(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path, *sys.path], stdout=subprocess.PIPE, text=True)
    path = owner.stdout.readline().strip()
    assert [str(orphan) for orphan in orphans(tmp_path)] == []

    owner.send_signal(signal.SIGKILL)
    owner.wait(timeout=10)

    assert [str(orphan) for orphan in orphans(tmp_path)] == [path]
    owner.stdout.close()


def test_what_was_never_locked_is_an_orphan(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")

    assert [path.name for path in orphans(tmp_path)] == ["file", "folder", "link"]


def test_lock_that_is_a_symlink_is_not_followed(tmp_path):
    staging = Staging.below(tmp_path / "other")
    staging.make()
    (tmp_path / "staging" / "forged").mkdir(parents=True)
    (tmp_path / "staging" / "forged" / "lock").symlink_to(staging.path / "lock")

    assert orphans(tmp_path / "staging") == [tmp_path / "staging" / "forged"]
    staging.release()


def test_looking_does_not_take_the_lock(tmp_path):
    staging = Staging.below(tmp_path)
    staging.make()
    staging.release()

    assert orphans(tmp_path) == orphans(tmp_path) == [staging.path]


def test_missing_folder_has_no_orphans(tmp_path):
    assert orphans(tmp_path / "missing") == []


def test_folder_that_is_being_made_is_no_orphan(tmp_path):
    folder, seen, stop = tmp_path / "staging", [], threading.Event()

    def sweep():
        while not stop.is_set():
            seen.extend(path for path in find_orphans(folder) if path.exists())

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    for number in range(1000):
        staging = Staging.below(folder)
        staging.make()
        staging.path.rename(tmp_path / str(number))
        staging.release()
    stop.set()
    sweeper.join(timeout=10)

    assert seen == []
