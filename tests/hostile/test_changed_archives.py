"""Archives that become something else between the moment they are asked for, their index and their layers."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future as PlainFuture
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.compressions import COMPRESS
from support.images import diff_id, docker_save, layer, write_members
from support.layers import request_into
from support.layouts import Layout
from support.processes import TIMEOUT

from pykka_imagestore import ArchiveChangedError, ArchiveError, ImageInfo, LocalStore, StoreError
from pykka_imagestore.core.archive_index import ArchivedImage
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.jobs.archive.layer_file import layer_file
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.find_archive import find_archive
from pykka_imagestore.jobs.hash_layer import hash_layer
from pykka_imagestore.jobs.unpack.target import Target
from pykka_imagestore.jobs.unpack_into import unpack_into
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer
from pykka_imagestore.runtime import WorkerPool

OLD = layer({"version": b"old" * 1000})
NEW = layer({"version": b"new" * 1000})
SECRET = b"secret" * 1000
LEAF = "a" * 64


def write_docker(path: Path, data: bytes) -> Path:
    return docker_save(path, {"app": [data]})


def write_legacy(path: Path, data: bytes) -> Path:
    repositories = f'{{"app":{{"latest":"{LEAF}"}}}}'.encode()
    return write_members(
        path, {f"{LEAF}/json": b'{"os":"linux"}', f"{LEAF}/layer.tar": data, "repositories": repositories}
    )


def layout_of(data: bytes) -> Layout:
    layout = Layout()
    layout.name(layout.manifest(data), "app:latest")
    return layout


def write_oci(path: Path, data: bytes) -> Path:
    return layout_of(data).write_tar(path)


FORMS = {"docker": write_docker, "legacy": write_legacy, "oci": write_oci}


class Swap:
    """What somebody does to a path; what was there is put aside."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, path: Path) -> None:
        {
            "written": self._write,
            "touched": os.utime,
            "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
            "grown": lambda path: os.truncate(path, path.stat().st_size + 10_000),
        }.get(self._kind, self._replace)(path)

    def _write(self, path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data.replace(b"old", b"new"))

    def _replace(self, path: Path) -> None:
        aside = path.with_name("aside")
        path.rename(aside)
        beside = path.with_name("beside")
        if self._kind == "pipe":
            os.mkfifo(path)
        elif self._kind == "device":
            os.mknod(path, 0o20600, os.makedev(10, 130))  # opening the watchdog starts it
        elif self._kind == "directory":
            path.mkdir()
        elif self._kind == "copy":
            shutil.copy2(aside, path)
        elif self._kind == "other file":
            path.write_bytes(SECRET)
        elif self._kind == "link to a pipe":
            os.mkfifo(beside)
            path.symlink_to(beside)
        elif self._kind == "link to a device":
            path.symlink_to("/dev/zero")
        elif self._kind == "link to a secret":
            beside.write_bytes(SECRET)
            path.symlink_to(beside)


REPLACING = [
    "pipe",
    "directory",
    "copy",
    "other file",
    "link to a pipe",
    "link to a device",
    "link to a secret",
    "gone",
]
IN_PLACE = ["written", "touched", "cut", "grown"]
SWAPS = [*REPLACING, *IN_PLACE, pytest.param("device", marks=pytest.mark.root)]


@contextlib.contextmanager
def patient(path: Path) -> Iterator[None]:
    """Let go of whoever waits for a pipe at ``path`` after all, so that a test that fails ends."""
    try:
        yield
    finally:
        for pipe in (path, path.with_name("beside")):
            with contextlib.suppress(OSError):
                if pipe.is_fifo():
                    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))


def index(path: Path, tmp_path: Path) -> ArchivedImage:
    (image,) = untar_image(UntarImage(str(path), str(tmp_path / "inflated"))).images
    return image


def first_diff_id(image: ArchivedImage) -> DiffID:
    assert image.diff_ids
    return image.diff_ids[0]


# -- job by job


@pytest.mark.combinations
@pytest.mark.parametrize("kind", SWAPS)
@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_an_archive_that_changes_between_index_and_layer(tmp_path, write, kind):
    path = write(tmp_path / "app.tar", OLD)
    image = index(path, tmp_path)
    claimed = image.diff_ids[0] if image.diff_ids else diff_id(OLD)

    with patient(path):
        Swap(kind)(path)
        with pytest.raises(ArchiveChangedError, match=r"changed while it was read: it was inode \d+ .* and is "):
            untar_layer(UntarLayer(image.layers[0], str(tmp_path / "target"), claimed))

    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("kind", SWAPS)
def test_an_old_archive_that_changes_before_its_layers_are_hashed(tmp_path, kind):
    path = write_legacy(tmp_path / "app.tar", OLD)
    image = index(path, tmp_path)

    with patient(path):
        Swap(kind)(path)
        with pytest.raises(ArchiveChangedError):
            hash_layer(image.layers[0])


@pytest.mark.combinations
@pytest.mark.parametrize("kind", ["pipe", "directory", "copy", "link to a pipe", "link to a secret", *IN_PLACE])
@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_an_archive_that_changes_between_asking_and_index(tmp_path, write, kind):
    path = write(tmp_path / "app.tar", OLD)
    found = find_archive(None, str(path), None)

    with patient(path):
        Swap(kind)(path)
        with pytest.raises(ArchiveChangedError):
            untar_image(UntarImage(str(path), str(tmp_path / "inflated"), identity=found.identity))


@pytest.mark.parametrize("kind", [*REPLACING, *IN_PLACE[:3]])
def test_a_member_of_a_directory_that_changes_between_index_and_layer(tmp_path, kind):
    directory = layout_of(OLD).write_directory(tmp_path / "layout")
    image = index(directory, tmp_path)
    path = directory / image.layers[0].name

    with patient(path):
        Swap(kind)(path)
        with pytest.raises(ArchiveChangedError, match=r"the file with its member 'blobs/sha256/\w+' changed"):
            untar_layer(UntarLayer(image.layers[0], str(tmp_path / "target"), first_diff_id(image)))


@pytest.mark.parametrize("kind", REPLACING)
def test_a_directory_that_becomes_something_else_between_index_and_layer(tmp_path, kind):
    directory = layout_of(OLD).write_directory(tmp_path / "layout")
    image = index(directory, tmp_path)

    with patient(directory):
        if kind == "copy":
            directory.rename(tmp_path / "aside")
            shutil.copytree(tmp_path / "aside", directory)
        else:
            Swap(kind)(directory)
        with pytest.raises(ArchiveChangedError):
            untar_layer(UntarLayer(image.layers[0], str(tmp_path / "target"), first_diff_id(image)))


@pytest.mark.combinations
@pytest.mark.parametrize("kind", REPLACING)
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_archive_is_needed_no_more_once_it_is_inflated(tmp_path, compression, kind):
    plain = write_docker(tmp_path / "plain.tar", OLD)
    path = tmp_path / "app.tar"
    path.write_bytes(COMPRESS[compression](plain.read_bytes()))
    image = index(path, tmp_path)

    Swap(kind)(path)

    assert untar_layer(UntarLayer(image.layers[0], str(tmp_path / "target"), first_diff_id(image))).entries == 1


@pytest.mark.parametrize("change", [os.chmod, os.link])
@pytest.mark.parametrize("write", [write_docker, write_oci])
def test_an_archive_whose_mode_or_links_change_is_the_same(tmp_path, write, change):
    path = write(tmp_path / "app.tar", OLD)
    image = index(path, tmp_path)

    change(path, 0o600 if change is os.chmod else tmp_path / "backup.tar")

    assert untar_layer(UntarLayer(image.layers[0], str(tmp_path / "target"), first_diff_id(image))).entries == 1


def test_bytes_that_no_digest_tells_must_not_change_although_the_time_is_set_back(tmp_path):
    path = write_legacy(tmp_path / "app.tar", OLD)
    os.utime(path, (1, 1))
    image = index(path, tmp_path)

    Swap("written")(path)
    os.utime(path, (1, 1))

    with pytest.raises(ArchiveChangedError):
        hash_layer(image.layers[0])


@pytest.mark.parametrize("kind", IN_PLACE)
def test_bytes_that_no_digest_tells_must_not_change_while_they_are_read(tmp_path, kind):
    path = write_legacy(tmp_path / "app.tar", OLD)
    image = index(path, tmp_path)

    with pytest.raises(ArchiveChangedError), open_blob(image.layers[0], is_verified=False):
        Swap(kind)(path)


# -- one layer, unpacked by itself


@pytest.mark.parametrize("kind", SWAPS)
def test_a_layer_file_that_changes_before_it_is_unpacked(tmp_path, kind):
    path = tmp_path / "layer.tar"
    path.write_bytes(OLD)
    with patient(path), Target(str(tmp_path / "target")) as target:
        request = request_into(target, layer_file(str(path)))
        Swap(kind)(path)
        with pytest.raises(ArchiveChangedError, match=r"layer.tar: it changed while it was read"):
            unpack_into(request)


# -- whole puts


class Interrupted(ThreadPoolExecutor):
    """Does the work of a store; before the n-th piece, from 0, something happens."""

    def __init__(self, number: int, happen: Callable[[], object]) -> None:
        super().__init__(4)
        self._number, self._happen = number, happen
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PlainFuture[Any]:
        return super().submit(self._run, function, *args, **kwargs)

    def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            number, self._number = self._number, self._number - 1
        if number == 0:
            self._happen()
        return function(*args, **kwargs)


@contextlib.contextmanager
def interrupted_store(tmp_path: Path, number: int, happen: Callable[[], object]) -> Iterator[LocalStore]:
    with (
        Interrupted(number, happen) as threads,
        LocalStore.start(tmp_path / "store", durable=False, pool=WorkerPool(executor=threads)) as store,
    ):
        yield store


# Before the n-th of a put's jobs: the index, what hashes the layer if nobody claims a DiffID, and what unpacks it.
JOBS = [(write, job) for write in FORMS.values() for job in range(3 if write is write_legacy else 2)]


@pytest.mark.combinations
@pytest.mark.parametrize("kind", SWAPS)
@pytest.mark.parametrize(("write", "job"), JOBS, ids=[f"{write.__name__}-{job}" for write, job in JOBS])
def test_a_put_of_an_archive_that_changes_stores_nothing_of_it(tmp_path, write, job, kind):
    path = write(tmp_path / "app.tar", OLD)
    good = docker_save(tmp_path / "good.tar", {"app": [OLD]})

    with patient(path), interrupted_store(tmp_path, job, lambda: Swap(kind)(path)) as store:
        with pytest.raises((ArchiveError, FileNotFoundError)):
            store.put("app", path).get(timeout=TIMEOUT)

        assert store.list().get(timeout=TIMEOUT) == ()
        assert os.listdir(tmp_path / "store" / "staging") == []
        assert os.listdir(tmp_path / "store" / "layers") == []
        assert store.put("app", good).get(timeout=TIMEOUT).layers[0].diff_id == diff_id(OLD)


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "other file", "gone"])
def test_all_puts_that_joined_one_of_an_archive_that_changes_end_with_it(tmp_path, kind):
    path = write_docker(tmp_path / "app.tar", OLD)
    good = docker_save(tmp_path / "good.tar", {"app": [OLD]})

    with patient(path), interrupted_store(tmp_path, 1, lambda: Swap(kind)(path)) as store:
        puts = [store.put("app", path) for _ in range(10)]
        errors = []
        for put in puts:
            with pytest.raises(ArchiveChangedError) as caught:
                put.get(timeout=TIMEOUT)
            errors.append(caught.value)

        assert len({str(error) for error in errors}) == 1
        good.rename(path)
        assert store.put("app", path).get(timeout=TIMEOUT).layers[0].diff_id == diff_id(OLD)


def test_a_put_that_needs_the_layer_of_an_archive_that_changed_takes_its_own(tmp_path):
    path = write_docker(tmp_path / "app.tar", OLD)
    good = docker_save(tmp_path / "good.tar", {"other": [OLD]})
    puts = []

    def swap():
        puts.append(store.put("other", good))
        Swap("pipe")(path)

    with patient(path), interrupted_store(tmp_path, 1, swap) as store:
        with pytest.raises(ArchiveChangedError):
            store.put("app", path).get(timeout=TIMEOUT)

        assert puts[0].get(timeout=TIMEOUT).layers[0].diff_id == diff_id(OLD)


@pytest.mark.parametrize("how", ["renamed over", "written in place, its time set back"])
@pytest.mark.parametrize("form", ["tar", "directory"])
def test_a_put_of_a_replaced_archive_is_no_put_of_the_old_one(tmp_path, form, how):
    path, new = tmp_path / "app", tmp_path / "new"
    if form == "tar":
        write_docker(path, OLD)
        write_docker(new, NEW)
        changed, source = path, new
    else:
        layout_of(OLD).write_directory(path)
        layout_of(NEW).write_directory(new)
        shutil.copytree(new / "blobs", path / "blobs", dirs_exist_ok=True)
        changed, source = path / "index.json", new / "index.json"

    def replace() -> None:
        if how == "renamed over":
            source.rename(changed)
            return
        before = changed.stat()
        changed.write_bytes(source.read_bytes())
        os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))

    seconds = []

    def replace_and_put() -> None:
        replace()
        seconds.append(store.put("app", path).get(timeout=60))

    with interrupted_store(tmp_path, 1, replace_and_put) as store:
        first = store.put("app", path)
        with contextlib.suppress(ArchiveChangedError):
            assert [each.diff_id for each in first.get(timeout=TIMEOUT).layers] == [diff_id(OLD)]

    assert [each.diff_id for each in seconds[0].layers] == [diff_id(NEW)]


# -- a race


def read_version(image: ImageInfo) -> set[bytes]:
    return {(each.path / "version").read_bytes()[:3] for each in image.layers}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tar", "directory"])
def test_a_put_beside_somebody_who_swaps_the_archive_is_the_old_one_the_new_one_or_an_error(tmp_path, form):
    layers = {b"old": [OLD, layer({"version": b"old"})], b"new": [NEW, layer({"version": b"new"})]}
    place = tmp_path / "place"
    place.mkdir()
    choices = []
    for version, its in layers.items():
        if form == "tar":
            choices.append(docker_save(place / version.decode(), {"app": its}))
        else:
            layout = Layout()
            layout.name(layout.manifest(*its), "app:latest")
            choices.append(layout.write_directory(place / version.decode()))
    os.mkfifo(place / "pipe")
    (place / "secret").write_bytes(SECRET)
    choices += [place / "pipe", place / "secret", Path("/dev/zero"), place / "nowhere"]
    path, aside, stop = place / "app", place / "link", threading.Event()

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            aside.symlink_to(choices[number % 2 if number % 3 else number // 3 % len(choices)])
            aside.rename(path)
            time.sleep(0.001 * (number % 40))

    path.symlink_to(choices[0])
    outcomes = {b"old": 0, b"new": 0, b"error": 0}
    swapper = threading.Thread(target=swap)
    with LocalStore.start(tmp_path / "store", workers=2, durable=False) as store:
        swapper.start()
        try:
            end = time.monotonic() + 8
            while time.monotonic() < end:
                try:
                    image = store.put("app", path).get(timeout=60)
                except (StoreError, FileNotFoundError):
                    outcomes[b"error"] += 1
                else:
                    (version,) = read_version(image)
                    assert [each.diff_id for each in image.layers] == [diff_id(each) for each in layers[version]]
                    outcomes[version] += 1
                store.prune().get(timeout=60)
        finally:
            stop.set()
            swapper.join()
        aside.symlink_to(choices[1])
        aside.rename(path)
        assert read_version(store.put("app", path).get(timeout=TIMEOUT)) == {b"new"}
        report = store.check(deep=True).get(timeout=TIMEOUT)

    assert (report.faults, report.unchecked) == ((), ())
    assert sum(outcomes.values()) > 0
