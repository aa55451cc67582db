"""What somebody else put where a store has files of its own: none of it is followed, read, waited for or changed."""

from __future__ import annotations

import importlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import pytest
from support.images import diff_id, docker_save, layer
from support.privileges import ORDINARY_USER, as_ordinary_user, with_umask
from support.processes import TIMEOUT, Program
from support.stores import opened
from support.trees import describe

from pykka_imagestore import ForeignStoreError, LocalStore, NotAStoreError, StoreError, UnsafeStoreError
from pykka_imagestore.cli import main
from pykka_imagestore.core.digest import directory_name
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.layout import make_store
from pykka_imagestore.fs.remove_tree import remove_tree

# Imported before privileges are given up: Python need not be readable for everybody.
for module in ("cli.command", *(f"cli.verbs.{verb}" for verb in ("get", "list", "put"))):
    importlib.import_module(f"pykka_imagestore.{module}")

BASE = layer({"etc/os-release": b"ID=test\n"})
APP = layer({"app/main.py": b"print('hello')\n"})
RANDOM = "0123456789abcdef"
DIGEST = "sha256-" + "a" * 64
# Every path below its directory that a store opens, makes or removes.
PLACES = [
    "imagestore",
    "imagestore.new",
    "storedImages",
    "storedImages.new",
    "storedImages.journal",
    "storedImages.journal.new",
    "locks/references",
    "locks/layers",
    "locks/leases",
    "locks/staging",
    "locks/gc",
    f"leases/{RANDOM}",
    "leases/flat-2024.pdf",
    f"staging/{RANDOM}",
    f"staging/{RANDOM}/lock",
    f"staging/{RANDOM}/archive.tar",
    f"gc/{RANDOM}",
    f"gc/{RANDOM}/lock",
    f"configs/{DIGEST}",
    "configs/<the image's>",
    f"layers/{DIGEST}",
    f"layers/{directory_name(diff_id(BASE))}",
    f"layers/{directory_name(diff_id(BASE))}/layer.pb",
    f"layers/{directory_name(diff_id(BASE))}/tar-split.zst",
    f"layers/{directory_name(diff_id(BASE))}/rootfs",
    "reserve/0",
    "locks",
    "leases",
    "staging",
    "gc",
    "configs",
    "layers",
    "reserve",
]
KINDS = [
    "symlink to a file",
    "symlink to a directory",
    "symlink to nothing",
    "hard link",
    "fifo",
    "socket",
    "device",
    "directory",
]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a directory that is none of the store's, with what nobody may read, write, remove or date."""
    outside = tmp_path / "outside"
    (outside / "directory" / "below").mkdir(parents=True)
    for path in (
        "file",
        "directory/file",
        "directory/below/file",
        f"directory/{RANDOM}",
        "directory/lock",
        "directory/references",
    ):
        (outside / path).write_bytes(b"as it was")
    for below in outside.rglob("*"):
        os.utime(below, (1, 1))
    return outside


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, Path]:
    return {
        "app": docker_save(tmp_path / "app.tar", {"app": [BASE]}),
        "other": docker_save(tmp_path / "other.tar", {"other": [BASE, APP]}),
    }


def plant(place: Path, kind: str, outside: Path) -> None:
    """Put something there, in the place of what there is."""
    if place.is_dir():
        place.rename(place.with_name(f"{place.name}.was"))
    else:
        place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    if kind.startswith("symlink"):
        place.symlink_to(outside / kind.rpartition(" ")[2])
    elif kind == "hard link":
        os.link(outside / "file", place)
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener, chdir(place.parent):  # whose path may have 107 bytes
            listener.bind(place.name)
    elif kind == "device":
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, which has no end
    else:
        (place / "mine").mkdir(parents=True)


def verbs(archives: dict[str, Path]) -> Iterator[Callable[[LocalStore], Any]]:
    """Yield all that a store can do."""
    yield lambda store: store.recover()
    yield lambda store: store.list()
    yield lambda store: store.get("app")
    yield lambda store: store.config("app")
    yield lambda store: store.usage()
    yield lambda store: store.check(deep=True)
    yield lambda store: store.put("app", archives["app"])
    yield lambda store: store.put("other", archives["other"])
    yield lambda store: store.remove("other")
    yield lambda store: store.take_over(RANDOM)
    yield lambda store: store.prune()
    yield lambda store: store.repair(deep=True)
    yield lambda store: store.put("again", archives["app"])
    yield lambda store: store.prune(budget_bytes=0)
    yield lambda store: store.swept()


@pytest.mark.combinations
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.root) if kind == "device" else kind for kind in KINDS]
)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_planted_leads_to_nothing_outside_and_keeps_nobody_waiting(
    tmp_path: Path, outside: Path, archives: dict[str, Path], place: str, kind: str
) -> None:
    with opened(tmp_path / "store") as store:
        store.put("app", archives["app"]).get(timeout=TIMEOUT)
    (config,) = os.listdir(tmp_path / "store" / "configs")
    plant(tmp_path / "store" / place.replace("<the image's>", config), kind, outside)
    before = describe(outside)

    with opened(tmp_path / "store") as store:
        for ask in verbs(archives):
            with suppress(StoreError, OSError):
                ask(store).get(timeout=TIMEOUT)

    assert describe(outside) == before


def test_what_is_no_stores_own_is_left_as_it_is_and_is_in_nobodys_way(
    tmp_path: Path, outside: Path, archives: dict[str, Path]
) -> None:
    paths = StorePaths(tmp_path / "store")
    make_store(paths, Disk())
    theirs = []
    for directory in (*paths.directories, paths.reserve):
        for kind in KINDS[:4] + KINDS[7:]:
            theirs.append(directory / kind)
            plant(theirs[-1], kind, outside)
        for name in ("lost+found", f"{RANDOM}0"):
            theirs.append(directory / name)
            (directory / name).mkdir()
            (directory / name / "draft.txt").write_text("mine")
    for directory in (paths.staging, paths.gc):
        theirs.append(directory / RANDOM)
        (directory / RANDOM).mkdir()
        (directory / RANDOM / "draft.txt").write_text("mine")
    theirs += [paths.leases / RANDOM, paths.root / "notes.txt", paths.reserve / "7"]
    for path in theirs[-3:]:
        path.unlink(missing_ok=True)
        path.write_text("mine, and no lease")
    before = {path: describe(path) if path.is_dir() else path.lstat() for path in theirs}

    with opened(paths.root) as store:
        for name in ("app", "other"):
            store.put(name, archives[name]).get(timeout=TIMEOUT)
        lease = store.get("app", lease=True).get(timeout=TIMEOUT)
        store.remove("other").get(timeout=TIMEOUT)
        lease.release()
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)
        store.put("app", archives["app"]).get(timeout=TIMEOUT)
        assert store.repair(deep=True).get(timeout=TIMEOUT).faults == ()
    with opened(paths.root) as store:
        store.recover().get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)

    assert {path: describe(path) if path.is_dir() else path.lstat() for path in theirs} == before


def test_directory_that_is_none_of_a_stores_is_refused_by_whatever_is_asked(
    tmp_path: Path, archives: dict[str, Path]
) -> None:
    home = tmp_path / "project"
    for path in ("leases/flat-2024.pdf", "leases/house.odt", f"staging/{RANDOM}/draft.txt", f"leases/{RANDOM}"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("mine")
    (home / "layers").mkdir()
    before = describe(home)

    for ask in list(verbs(archives))[:-1]:
        with opened(home) as store, pytest.raises(NotAStoreError):
            ask(store).get(timeout=TIMEOUT)

    assert describe(home) == before


# -- other users


def outcome(store: Path, archive: Path) -> str:
    """Return what a put says, or that it was done."""
    try:
        with opened(store) as opened_store:
            opened_store.put("app", archive).get(timeout=TIMEOUT)
    except (StoreError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def makes_a_store(store: Path, archive: Path) -> None:
    assert outcome(store, archive) == "done"


def makes_a_trap(store: Path, target: Path, name: str) -> None:
    store.mkdir(mode=0o755)
    store.chmod(0o777)
    (store / name).parent.mkdir(exist_ok=True)
    (store / name).symlink_to(target)


@pytest.fixture
def everybodys_directory(users_directory: Path) -> Path:
    """Return a directory like /tmp."""
    os.chown(users_directory, 0, 0)
    users_directory.chmod(0o1777)
    return users_directory


@pytest.mark.root
@pytest.mark.parametrize("name", ["storedImages.journal.new", "storedImages.new", "imagestore.new", "locks", "leases"])
def test_directory_that_another_user_made_first_is_refused_by_root(
    everybodys_directory: Path, archives: dict[str, Path], name: str
) -> None:
    roots_file, store = everybodys_directory / "precious", everybodys_directory / "store"
    roots_file.write_text("precious")
    roots_file.chmod(0o600)
    as_ordinary_user(makes_a_trap, store, roots_file, name)
    before = describe(everybodys_directory)

    said = outcome(store, archives["app"])

    assert said.startswith(
        f"ForeignStoreError: the store at {store} belongs to user {ORDINARY_USER}, and this is user 0"
    )
    assert describe(everybodys_directory) == before


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_users_store_is_refused_by_root_whatever_is_asked(
    users_directory: Path, archives: dict[str, Path], mode: int
) -> None:
    archive = users_directory / "app.tar"
    archive.write_bytes(archives["app"].read_bytes())
    archive.chmod(0o644)
    as_ordinary_user(makes_a_store, users_directory / "store", archive)
    (users_directory / "store").chmod(mode)
    before = describe(users_directory / "store")

    for ask in list(verbs(archives))[:-1]:
        with opened(users_directory / "store") as store, pytest.raises(ForeignStoreError):
            ask(store).get(timeout=TIMEOUT)
    for line in ("list", "get app", "inspect app", "du", "check"):
        assert main(["--store", str(users_directory / "store"), *line.split()]) == 1

    assert describe(users_directory / "store") == before


@pytest.mark.root
def test_symlink_that_another_user_made_to_a_store_of_ones_own_is_refused(
    everybodys_directory: Path, archives: dict[str, Path]
) -> None:
    own, link = everybodys_directory / "own", everybodys_directory / "link"
    assert outcome(own, archives["app"]) == "done"
    before = describe(own)
    link.symlink_to(own)
    os.lchown(link, ORDINARY_USER, ORDINARY_USER)

    said = outcome(link, archives["app"])

    assert said.startswith((f"ForeignStoreError: the store at {link} belongs to", "PermissionError"))
    assert describe(own) == before


@pytest.mark.root
@pytest.mark.parametrize("place", ["storedImages.journal", "locks/references", "locks/leases", "imagestore", "layers"])
def test_what_another_user_planted_in_ones_own_store_is_refused(
    everybodys_directory: Path, archives: dict[str, Path], place: str
) -> None:
    store = everybodys_directory / "store"
    assert outcome(store, archives["app"]) == "done"
    os.chown(store / place, ORDINARY_USER, ORDINARY_USER)
    before = describe(store)

    said = outcome(store, archives["other"])

    assert said.startswith(f"ForeignStoreError: the store at {store} has files of user {ORDINARY_USER}")
    assert describe(store) == before


@pytest.mark.parametrize("directory", ["", "layers", "leases", "locks"])
def test_store_that_everybody_may_write_into_is_refused(
    tmp_path: Path, archives: dict[str, Path], directory: str
) -> None:
    store = tmp_path / "store"
    assert outcome(store, archives["app"]) == "done"
    (store / directory).chmod(0o777)
    before = describe(store)

    for ask in list(verbs(archives))[:-1]:
        with opened(store) as opened_store, pytest.raises(UnsafeStoreError, match="whose mode is 777"):
            ask(opened_store).get(timeout=TIMEOUT)

    assert describe(store) == before


@pytest.mark.parametrize("directory", ["", "layers", "reserve"])
def test_store_that_a_group_may_write_into_is_told(
    tmp_path: Path, archives: dict[str, Path], caplog: pytest.LogCaptureFixture, directory: str
) -> None:
    store = tmp_path / "store"
    make_store(StorePaths(store), Disk())
    (store / directory).chmod(0o775)

    assert outcome(store, archives["app"]) == "done"

    assert caplog.messages.count(next(text for text in caplog.messages if "can be written to by group" in text)) == 1


def test_root_of_a_file_system_with_the_sticky_bit_may_be_a_store(tmp_path: Path, archives: dict[str, Path]) -> None:
    (tmp_path / "store" / "lost+found").mkdir(parents=True)
    (tmp_path / "store").chmod(0o1777)

    assert outcome(tmp_path / "store", archives["app"]) == "done"


@pytest.mark.root
def test_directory_that_another_user_made_in_a_sticky_directory_is_not_taken(
    everybodys_directory: Path, archives: dict[str, Path]
) -> None:
    as_ordinary_user(os.mkdir, everybodys_directory / "layers")

    said = outcome(everybodys_directory, archives["app"])

    assert said.startswith(f"ForeignStoreError: the store at {everybodys_directory} has files of user {ORDINARY_USER}")
    assert os.listdir(everybodys_directory) == ["layers"]


@pytest.mark.parametrize("umask", [0, 0o077])
def test_store_is_closed_to_others_whatever_the_umask(tmp_path: Path, archives: dict[str, Path], umask: int) -> None:
    with_umask(umask, makes_a_store, tmp_path / "above" / "it" / "store", archives["app"])

    made = tmp_path / "above"
    layers = made / "it" / "store" / "layers"
    for path in (made, *made.rglob("*")):
        if path.parent != layers and layers not in path.parent.parents:  # what is in a layer has its own modes
            assert not path.lstat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path


SWAPPER = """
import os, random, sys
above, target, user = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.setgroups([]), os.setresgid(user, user, user), os.setresuid(user, user, user)
names = ["layers", "locks", "leases", "staging", "gc", "configs", "reserve", "imagestore", "imagestore.new",
         "storedImages", "storedImages.new", "storedImages.journal", "storedImages.journal.new"]
acts = [os.mkfifo, os.mkdir, os.unlink, os.unlink, os.rmdir, lambda path: open(path, "x").close(),
        lambda path: os.symlink(target, path), lambda path: os.symlink(os.path.dirname(target), path)]
print("swaps", flush=True)
while True:
    try:
        random.choice(acts)(os.path.join(above, random.choice(os.listdir(above)), random.choice(names)))
    except (OSError, IndexError):
        pass
"""


@pytest.mark.root
@pytest.mark.slow
def test_user_who_swaps_names_in_a_sticky_directory_while_a_store_is_made_there_gains_nothing(
    everybodys_directory: Path, archives: dict[str, Path], outside: Path
) -> None:
    """He may keep it from being made, and no more."""
    before, ends = describe(outside), []
    with Program(SWAPPER, everybodys_directory, outside / "file", ORDINARY_USER) as swapper:
        assert swapper.line() == "swaps"
        for number in range(100):
            store = everybodys_directory / f"{number}"
            store.mkdir()
            store.chmod(0o1777)

            ends.append(outcome(store, archives["app"]))

            if ends[-1] == "done":
                layers = StorePaths(store).layers
                assert {path.lstat().st_uid for path in (layers, *layers.rglob("*"))} == {0}
            store.chmod(0o755)
            remove_tree(str(store))
    assert describe(outside) == before
    assert len(set(ends)) > 1, "it was never in the way"
