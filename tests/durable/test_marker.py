from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support import seams
from support.disks import DyingDisk, FailingDisk, PowerCutError
from support.trees import describe

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.layout import make_store, require_readable
from pykka_imagestore.durable.references import Put, References
from pykka_imagestore.errors import NotAStoreError, StoreFormatError

APP = DockerImage("app:latest", (DiffID(sha256(b"one")),))


def of_an_earlier_release(paths: StorePaths) -> None:
    paths.marker.unlink()


def test_new_store_says_what_it_is(paths: StorePaths) -> None:
    first, *sentences = paths.marker.read_text().splitlines()

    assert first == "imagestore 1"
    assert len(sentences) == 1
    assert paths.marker.stat().st_mode & 0o777 == 0o644


def test_store_of_an_earlier_release_opens_and_gets_its_marker(paths: StorePaths) -> None:
    References(paths, Disk()).commit([Put(APP)])
    of_an_earlier_release(paths)
    require_readable(paths)
    assert not paths.marker.exists()  # who reads changes nothing

    make_store(paths, Disk())

    assert paths.marker.read_text().startswith("imagestore 1\n")
    assert len(References(paths, Disk()).list()) == 1


@pytest.mark.parametrize(
    "left", ["everything", "directories", "one directory", "a journal aside", "lost+found", "nothing"]
)
def test_what_an_earlier_release_may_have_left_of_a_store_it_was_making_is_one(paths: StorePaths, left: str) -> None:
    of_an_earlier_release(paths)
    if left == "a journal aside":
        paths.journal.with_name("storedImages.journal.new").write_bytes(b"IMGJ")
    elif left == "lost+found":
        (paths.root / "lost+found").mkdir()
    elif left != "everything":
        for lock in paths.locks.iterdir():
            lock.unlink()
        for piece in paths.reserve.iterdir():
            piece.unlink()
        paths.reserve.rmdir()
        for directory in paths.directories[0 if left == "nothing" else 1 if left == "one directory" else 7 :]:
            directory.rmdir()

    make_store(paths, Disk())

    assert paths.marker.exists()


def test_store_that_mesos_made_is_one(tmp_path: Path) -> None:
    paths = StorePaths(tmp_path / "mesos")
    for directory in (paths.layers, paths.staging / "x1v7Qz", paths.gc):
        directory.mkdir(parents=True)
    paths.stored_images.write_bytes(b"\0\0\0\0")

    make_store(paths, Disk())

    assert paths.marker.exists()
    assert (paths.staging / "x1v7Qz").is_dir()


@pytest.mark.parametrize(
    "found",
    [
        "leases/house.odt",
        "staging/draft/chapter-1.txt",
        "layers/roads.shp",
        "locks/front-door.stl",
        "gc/lost+found/x",
        "configs/nginx.conf",
        "reserve/wine.ods",
        "notes.txt",
        ".git/HEAD",
        "imagestore",
        "imagestore/setup.py",
    ],
)
def test_directory_with_somebodys_own_files_is_refused_and_left_as_it_is(tmp_path: Path, found: str) -> None:
    paths = StorePaths(tmp_path / "project")
    for directory in ("leases", "layers", "staging/0123456789abcdef"):
        (paths.root / directory).mkdir(parents=True)
    (paths.root / "staging/0123456789abcdef/draft.txt").write_text("mine")
    (paths.root / found).parent.mkdir(parents=True, exist_ok=True)
    (paths.root / found).write_text("mine")
    before = describe(paths.root)

    for open_it in (lambda: make_store(paths, Disk()), lambda: require_readable(paths)):
        with pytest.raises(NotAStoreError) as caught:
            open_it()
        name = "/".join(found.split("/")[: 1 if found.startswith((".git", "imagestore")) else 2])
        assert str(caught.value).startswith(f"{paths.root} is no image store, and not empty: it has {name}. ")

    assert describe(paths.root) == before


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "text", "later"])
def test_marker_that_is_none_is_refused_and_left_as_it_is(paths: StorePaths, kind: str) -> None:
    paths.marker.unlink()
    if kind == "symlink":
        paths.marker.symlink_to(paths.root.parent / "somewhere")
    elif kind == "fifo":
        os.mkfifo(paths.marker)
    elif kind == "directory":
        paths.marker.mkdir()
    else:
        paths.marker.write_text("#!/bin/sh\n" if kind == "text" else "imagestore 2\nof the future\n")
    before = describe(paths.root)

    with pytest.raises(StoreFormatError if kind == "later" else NotAStoreError) as caught:
        make_store(paths, Disk())

    assert "Nothing was changed" in str(caught.value)
    assert describe(paths.root) == before


@pytest.mark.parametrize("data", [b"", b"\0" * 100])
def test_marker_that_a_power_cut_emptied_is_written_anew(paths: StorePaths, data: bytes) -> None:
    paths.marker.write_bytes(data)

    make_store(paths, Disk())

    assert paths.marker.read_text().startswith("imagestore 1\n")


@pytest.mark.parametrize("calls_before_cut", range(12))
def test_store_is_a_store_wherever_the_power_was_cut_while_it_was_made(tmp_path: Path, calls_before_cut: int) -> None:
    paths = StorePaths(tmp_path / "store")
    try:
        make_store(paths, DyingDisk(calls_before_cut))
    except PowerCutError:
        pass
    else:
        assert calls_before_cut > 4

    make_store(paths, Disk())

    assert paths.marker.exists()


@pytest.mark.parametrize("failing", ["sync_file", "rename"])
def test_marker_that_cannot_be_written_is_no_matter(tmp_path: Path, failing: str) -> None:
    paths = StorePaths(tmp_path / "store")

    make_store(paths, FailingDisk(failing))

    assert sorted(os.listdir(paths.root)) == sorted([*(directory.name for directory in paths.directories), "reserve"])
    make_store(paths, Disk())
    assert paths.marker.exists()


def test_marker_is_looked_for_and_not_guessed_at_when_it_may_not_be_read(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(seams.READ_MARKER, refuse)

    with pytest.raises(OSError, match="Input/output error"):
        make_store(paths, Disk())
