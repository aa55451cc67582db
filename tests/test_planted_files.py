"""What somebody else put where a store has files of its own: none of it is followed, read, waited for or changed."""

from __future__ import annotations

import importlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from images import diff_id, docker_save, layer
from privileges import ORDINARY_USER, as_ordinary_user, with_umask
from processes import TIMEOUT
from trees import describe

from pykka_imagestore import ForeignStoreError, LocalStore, NotAStoreError, StoreError, UnsafeStoreError
from pykka_imagestore.cli import main
from pykka_imagestore.core.digest import DiffID, directory_name
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.layout import make_store
from pykka_imagestore.runtime import WorkerPool

# Imported before privileges are given up: Python need not be readable for everybody.
for module in ("cli.command", *(f"cli.{verb}" for verb in ("get", "list", "put"))):
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
KINDS = ["symlink to a file", "symlink to a folder", "symlink to nothing", "hard link", "fifo", "socket", "device", "folder"]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder that is none of the store's, with what nobody may read, write, remove or date."""
    outside = tmp_path / "outside"
    (outside / "folder" / "below").mkdir(parents=True)
    for path in ("file", "folder/file", "folder/below/file", f"folder/{RANDOM}", "folder/lock", "folder/references"):
        (outside / path).write_bytes(b"as it was")
    for path in outside.rglob("*"):
        os.utime(path, (1, 1))
    return outside


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, Path]:
    return {
        "app": docker_save(tmp_path / "app.tar", {"app": [BASE]}),
        "other": docker_save(tmp_path / "other.tar", {"other": [BASE, APP]}),
    }


def opened(store: Path) -> LocalStore:
    return LocalStore.start(store, pool=WorkerPool(executor=ThreadPoolExecutor(2)))


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
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(place.parent)
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


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.root) if kind == "device" else kind for kind in KINDS])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_planted_leads_to_nothing_outside_and_keeps_nobody_waiting(
    tmp_path: Path, outside: Path, archives: dict[str, Path], place: str, kind: str
) -> None:
    with opened(tmp_path / "store") as store:
        store.put("app", archives["app"]).get(timeout=TIMEOUT)
    plant(tmp_path / "store" / place, kind, outside)
    before = describe(outside)

    with opened(tmp_path / "store") as store:
        for ask in verbs(archives):
            try:
                ask(store).get(timeout=TIMEOUT)
            except (StoreError, OSError) as error:
                assert str(error)

    assert describe(outside) == before
