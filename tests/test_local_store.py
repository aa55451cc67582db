from __future__ import annotations

import gzip
import itertools
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest
from support import seams
from support.images import diff_id, docker_save, layer, long_layer, worker_pids, write_members
from support.layouts import AMD64, ARM64, Layout
from support.processes import TIMEOUT, wait_for
from support.stores import opened

from pykka_imagestore import (
    AmbiguousImageError,
    DigestMismatchError,
    ImageIncompleteError,
    ImageInfo,
    InvalidInputError,
    InvalidNameError,
    LocalStore,
    NoArchiveError,
    NotFoundError,
    Progress,
    StoreClosedError,
    StoreError,
)
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.runtime import (
    Actor,
    DiscardedError,
    Future,
    WorkerDiedError,
    await_all,
    collect,
    defer,
)

BASE = layer({"etc/os-release": b"ID=test\n", "bin/sh": b"#!"})
APP = layer({"app/main.py": b"print('hello')\n"})
OTHER = layer({"app/other.py": b"print('other')\n"})


@pytest.fixture(scope="module")
def slow() -> bytes:
    return long_layer()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore.start(tmp_path / "store", archive_dir=tmp_path, workers=2) as store:
        yield store


def staging(tmp_path: Path) -> list[str]:
    return os.listdir(tmp_path / "store" / "staging")


def published(tmp_path: Path) -> set[str]:
    return {name.replace("-", ":") for name in os.listdir(tmp_path / "store" / "layers")}


class Underway:
    """A progress listener that lets a test wait until a put unpacks entries."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        self._unpacking = threading.Event()

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)
        if progress.entries_done:
            self._unpacking.set()

    def wait(self) -> None:
        assert self._unpacking.wait(TIMEOUT)


@pytest.mark.parametrize("name", [None, 5, b"app"])
def test_a_name_that_is_no_text_is_refused(store: LocalStore, tmp_path: Path, name: str) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [APP]})

    for future in (store.put(name, archive), store.get(name), store.remove(name)):
        with pytest.raises(InvalidNameError, match="it is no text"):
            future.get(timeout=TIMEOUT)


def test_a_long_directory_for_temporary_files_is_no_hindrance(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    archive = docker_save(tmp_path / "app.tar", {"app": [APP]})
    program = (
        "from pykka_imagestore import LocalStore\n"
        f"with LocalStore.start({str(tmp_path / 'store')!r}) as store:\n"
        f"    print(store.put('app', {str(archive)!r}).get().name)"
    )

    environment = {**os.environ, "TMPDIR": str(directory)}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=TIMEOUT, check=False
    )

    assert (ran.stdout, ran.stderr) == (b"app:latest\n", b"")


def test_image_named_by_a_digest_is_found_with_and_without_its_tag(tmp_path: Path) -> None:
    layout = Layout()
    manifest = layout.manifest(APP)
    layout.name(manifest)
    archive = layout.write_tar(tmp_path / "app.tar")
    name, labelled = f"app@{manifest['digest']}", f"app:1@{manifest['digest']}"

    with LocalStore.start(tmp_path / "store") as store:
        assert store.put(labelled, archive).get(timeout=TIMEOUT).name == labelled
        with pytest.raises(DigestMismatchError, match=f"but has {manifest['digest']}"):
            store.put(f"app@sha256:{'a' * 64}", archive).get(timeout=TIMEOUT)
    with LocalStore.start(tmp_path / "store") as store:
        for spelling in (name, labelled, f"docker.io/library/app:other@{manifest['digest']}"):
            assert store.get(spelling).get(timeout=TIMEOUT).name == labelled
        assert store.prune(keep=[name], unused_for=0).get(timeout=TIMEOUT).images == ()
        assert store.put(name, archive).get(timeout=TIMEOUT).name == name
        assert [image.name for image in store.list().get(timeout=TIMEOUT)] == [name]
        store.remove(labelled).get(timeout=TIMEOUT)
        assert store.list().get(timeout=TIMEOUT) == ()


def test_put_image_is_there_again_after_a_restart(tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app:v1": [BASE, APP]})
    with LocalStore.start(tmp_path / "store") as store:
        put = store.put("app:v1", archive).get(timeout=TIMEOUT)

    with LocalStore.start(tmp_path / "store") as reopened:
        got = reopened.get("docker.io/library/app:v1").get(timeout=TIMEOUT)

        assert got == put
        assert [layer.diff_id for layer in got.layers] == [diff_id(BASE), diff_id(APP)]
        assert (got.layers[1].path / "app/main.py").read_bytes() == b"print('hello')\n"
        assert diff_id(reopened.config("app:v1").get(timeout=TIMEOUT)) == got.config_digest
    assert staging(tmp_path) == []


def test_put_without_an_archive_takes_that_of_the_name(store: LocalStore, tmp_path: Path) -> None:
    docker_save(tmp_path / "app:v1.tar", {"app:v1": [BASE]})
    docker_save(tmp_path / "base.tar", {"base": [BASE]})

    assert store.put("app:v1").get(timeout=TIMEOUT).name == "app:v1"
    assert store.put("base").get(timeout=TIMEOUT).name == "base:latest"
    with pytest.raises(NoArchiveError, match=r"there is no .*/gone:latest\.tar"):
        store.put("gone").get(timeout=TIMEOUT)


@pytest.mark.parametrize("name", ["../secret", "..", "/etc/passwd", "a/../../b", "", "UPPER", "x" * 5000])
def test_a_name_never_leads_out_of_the_archive_directory(store: LocalStore, name: str) -> None:
    with pytest.raises(InvalidNameError):
        store.put(name).get(timeout=TIMEOUT)


def test_load_puts_every_image_under_every_name(store: LocalStore, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "two.tar", {"a:1,registry.example/b:2": [BASE, APP], "c": [BASE, OTHER]})

    loaded = store.load(archive).get(timeout=TIMEOUT)

    names = ["a:1", "registry.example/b:2", "c:latest"]
    assert [image.name for image in loaded] == names
    assert [image.name for image in store.list().get(timeout=TIMEOUT)] == sorted(names)
    assert loaded[0].layers == loaded[1].layers


@pytest.mark.parametrize("beside", [{}, {"a:1": [APP]}])
def test_an_image_without_a_name_is_there_by_its_config_digest(tmp_path: Path, beside: dict[str, list[bytes]]) -> None:
    archive = docker_save(tmp_path / "unnamed.tar", {**beside, "": [BASE]})

    with LocalStore.start(tmp_path / "store") as store:
        *named, image = store.load(archive).get(timeout=TIMEOUT)
        assert [each.name for each in named] == [*beside]
        assert image.name == image.config_digest
        assert [layer.diff_id for layer in image.layers] == [diff_id(BASE)]
    with LocalStore.start(tmp_path / "store") as store:
        assert store.get(image.name).get(timeout=TIMEOUT) == image
        assert store.list().get(timeout=TIMEOUT) == (*named, image)
        pruned = store.prune(keep=[image.name], unused_for=0).get(timeout=TIMEOUT)
        assert [each.name for each in pruned.images] == [*beside]
        with store.get(image.name, lease=True).get(timeout=TIMEOUT) as leased:
            assert store.take_over(leased.token).get(timeout=TIMEOUT).image == image
        assert store.config(image.name).get(timeout=TIMEOUT)
        store.remove(image.name).get(timeout=TIMEOUT)
        with pytest.raises(NotFoundError, match=f"no image {image.name} is in the store"):
            store.get(image.name).get(timeout=TIMEOUT)


def test_the_digest_of_a_config_finds_its_image(store: LocalStore, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app:1": [BASE]})
    image = store.put("app:1", archive).get(timeout=TIMEOUT)
    store.put("app:0", archive).get(timeout=TIMEOUT)
    digest = image.config_digest
    assert digest is not None

    assert store.get(digest).get(timeout=TIMEOUT).name == "app:0"
    with store.get(digest, lease=True).get(timeout=TIMEOUT) as leased:
        assert leased.image.config_digest == digest
    assert store.config(digest).get(timeout=TIMEOUT) == store.config("app:1").get(timeout=TIMEOUT)
    with pytest.raises(NotFoundError):
        store.get(f"sha256:{'0' * 64}").get(timeout=TIMEOUT)
    with pytest.raises(NotFoundError):
        store.remove(digest).get(timeout=TIMEOUT)


def test_prune_keeps_an_image_that_is_named_by_its_digest(store: LocalStore, tmp_path: Path) -> None:
    image = store.put("app:1", docker_save(tmp_path / "app.tar", {"app:1": [BASE]})).get(timeout=TIMEOUT)

    pruned = store.prune(keep=[image.config_digest or ""], budget_bytes=0).get(timeout=TIMEOUT)

    assert pruned.images == ()
    assert store.get("app:1").get(timeout=TIMEOUT) == image


def test_a_put_gives_an_image_without_a_name_one(store: LocalStore, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "unnamed.tar", {"": [BASE]})

    image = store.put("mine", archive).get(timeout=TIMEOUT)

    assert image.name == "mine:latest"
    with pytest.raises(InvalidNameError, match="image ID"):
        store.put(str(image.config_digest), archive).get(timeout=TIMEOUT)


def test_put_chooses_an_image_by_its_name_or_by_select(store: LocalStore, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "two.tar", {"a": [BASE, APP], "b": [BASE, OTHER]})

    by_name = store.put("b", archive).get(timeout=TIMEOUT)
    selected = store.put("mine", archive, select="b").get(timeout=TIMEOUT)
    by_digest = store.put("third", archive, select=str(by_name.config_digest)[7:23]).get(timeout=TIMEOUT)

    assert by_name.layers == selected.layers == by_digest.layers
    with pytest.raises(AmbiguousImageError, match="select one; it holds a, b"):
        store.put("mine", archive).get(timeout=TIMEOUT)
    with pytest.raises(AmbiguousImageError, match="no image in it is 'd'"):
        store.put("mine", archive, select="d").get(timeout=TIMEOUT)


def test_ten_puts_at_once_unpack_each_layer_once(store: LocalStore, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [BASE, APP]})

    puts = [store.put("app", archive, tmp_path / "sandbox") for _ in range(10)]
    images = collect(puts).get(timeout=TIMEOUT)

    assert len(set(images)) == 1
    said = (tmp_path / "sandbox" / "stdout").read_text()
    assert said.count(diff_id(BASE)) == said.count(diff_id(APP)) == 1


def test_two_images_unpack_a_common_layer_once(store: LocalStore, tmp_path: Path, slow: bytes) -> None:
    first = docker_save(tmp_path / "first.tar", {"first": [slow, APP]})
    second = docker_save(tmp_path / "second.tar", {"second": [slow, OTHER]})

    puts = [store.put("first", first, tmp_path / "said"), store.put("second", second, tmp_path / "said")]
    collect(puts).get(timeout=TIMEOUT)

    assert (tmp_path / "said" / "stdout").read_text().count(diff_id(slow)) == 1


def test_discard_of_the_only_handle_stops_the_worker_and_leaves_nothing(
    store: LocalStore, tmp_path: Path, slow: bytes
) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [slow]})
    underway = Underway()
    put = store.put("app", archive, progress=underway)
    underway.wait()

    put.discard()

    with pytest.raises(DiscardedError):
        put.get(timeout=TIMEOUT)
    assert staging(tmp_path) == []
    assert published(tmp_path) == set()
    assert store.put("app", archive).get(timeout=TIMEOUT).name == "app:latest"


def test_discard_that_comes_when_the_image_is_stored_is_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: queue.SimpleQueue[None] = queue.SimpleQueue()
    discarded: queue.SimpleQueue[None] = queue.SimpleQueue()
    sync_data = Disk.sync_data

    def sync_and_wait(disk: Disk, descriptor: int) -> None:
        sync_data(disk, descriptor)
        synced.put(None)
        discarded.get(timeout=TIMEOUT)

    monkeypatch.setattr(Disk, "sync_data", sync_and_wait)
    archive = docker_save(tmp_path / "app.tar", {"app:1": [BASE]})
    with opened(tmp_path / "s") as store:
        put = store.put("app:1", archive)
        synced.get(timeout=TIMEOUT)
        put.discard()
        discarded.put(None)

        assert put.get(timeout=TIMEOUT).name == "app:1"
        assert store.get("app:1").get(timeout=TIMEOUT) == put.get()


def test_discard_of_one_of_two_handles_leaves_the_other_alone(store: LocalStore, tmp_path: Path, slow: bytes) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [slow]})
    underway = Underway()
    kept, dropped = store.put("app", archive, progress=underway), store.put("app", archive)
    underway.wait()

    dropped.discard()

    with pytest.raises(DiscardedError):
        dropped.get(timeout=TIMEOUT)
    assert kept.get(timeout=TIMEOUT).name == "app:latest"


def test_discard_of_a_put_leaves_another_that_needs_the_same_layer(
    store: LocalStore, tmp_path: Path, slow: bytes
) -> None:
    underway = Underway()
    first = store.put("first", docker_save(tmp_path / "1.tar", {"first": [slow, APP]}), progress=underway)
    second = store.put("second", docker_save(tmp_path / "2.tar", {"second": [slow, OTHER]}))
    underway.wait()

    first.discard()

    assert second.get(timeout=TIMEOUT).name == "second:latest"
    with pytest.raises(NotFoundError):
        store.get("first").get(timeout=TIMEOUT)
    with pytest.raises(DiscardedError):  # it may end after the second
        first.get(timeout=TIMEOUT)
    assert staging(tmp_path) == []


@pytest.mark.parametrize("killed", [slice(0, 1), slice(1, 2), slice(0, 2)], ids=["one", "another", "both"])
def test_a_worker_killed_in_mid_layer_costs_nothing(
    store: LocalStore, tmp_path: Path, slow: bytes, killed: slice
) -> None:
    underway = Underway()
    put = store.put("app", docker_save(tmp_path / "app.tar", {"app": [slow]}), progress=underway)
    underway.wait()

    for pid in sorted(worker_pids())[killed]:  # one unpacks the layer, and one helps it
        os.kill(pid, signal.SIGKILL)

    image = put.get(timeout=TIMEOUT)
    assert len(list(image.layers[0].path.rglob("*"))) == 40_000 + 80 + 1
    assert staging(tmp_path) == []


def test_a_worker_killed_again_fails_that_put_alone(tmp_path: Path, slow: bytes) -> None:
    with LocalStore.start(tmp_path / "store", workers=1) as store:
        store.put("good", docker_save(tmp_path / "good.tar", {"good": [BASE]})).get(timeout=TIMEOUT)
        kills: queue.SimpleQueue[None] = queue.SimpleQueue()

        def kill_twice(progress: Progress) -> None:
            if progress.entries_done and kills.qsize() < 2:
                kills.put(None)
                for pid in worker_pids():
                    os.kill(pid, signal.SIGKILL)

        put = store.put("app", docker_save(tmp_path / "app.tar", {"app": [slow]}), progress=kill_twice)

        with pytest.raises(WorkerDiedError, match="signal 9"):
            put.get(timeout=TIMEOUT)
        assert staging(tmp_path) == []
        assert store.get("good").get(timeout=TIMEOUT).name == "good:latest"


def test_a_layer_that_is_not_what_the_config_says_is_refused(store: LocalStore, tmp_path: Path) -> None:
    archive = tmp_path / "app.tar"
    lying = docker_save(archive, {"app": [BASE, APP]}).read_bytes().replace(b"print('hello')", b"print('evil!')")
    archive.write_bytes(lying)

    with pytest.raises(DigestMismatchError, match=f"should have digest {diff_id(APP)}"):
        store.put("app", archive, tmp_path / "sandbox").get(timeout=TIMEOUT)

    assert "should have digest" in (tmp_path / "sandbox" / "stderr").read_text()
    assert staging(tmp_path) == []
    assert diff_id(APP) not in published(tmp_path)
    with pytest.raises(NotFoundError):
        store.get("app").get(timeout=TIMEOUT)


def test_a_bad_copy_of_a_layer_does_not_fail_the_put_that_has_a_good_one(
    store: LocalStore, tmp_path: Path, slow: bytes
) -> None:
    bad = docker_save(tmp_path / "bad.tar", {"bad": [slow]})
    bad.write_bytes(bad.read_bytes()[: len(slow) // 2].ljust(bad.stat().st_size, b"\0"))
    write_members(
        tmp_path / "bad.tar",
        {
            "config.json": b'{"rootfs":{"diff_ids":["%s"]}}' % diff_id(slow).encode(),
            "layer.tar": slow[: len(slow) // 2],
            "manifest.json": b'[{"Config":"config.json","RepoTags":["bad"],"Layers":["layer.tar"]}]',
        },
    )
    good = docker_save(tmp_path / "good.tar", {"good": [slow]})
    underway = Underway()

    failing = store.put("bad", bad, progress=underway)
    underway.wait()
    succeeding = store.put("good", good)

    with pytest.raises(StoreError):
        failing.get(timeout=TIMEOUT)
    assert succeeding.get(timeout=TIMEOUT).name == "good:latest"


def test_get_answers_while_a_put_runs(store: LocalStore, tmp_path: Path, slow: bytes) -> None:
    store.put("good", docker_save(tmp_path / "good.tar", {"good": [BASE]})).get(timeout=TIMEOUT)
    underway = Underway()
    put = store.put("app", docker_save(tmp_path / "app.tar", {"app": [slow]}), progress=underway)
    underway.wait()

    image = store.get("good").get(timeout=TIMEOUT)

    assert put.is_pending()
    assert image.name == "good:latest"
    put.get(timeout=TIMEOUT)


def test_an_image_that_lost_a_layer_is_listed_but_not_served_until_it_is_put_again(
    store: LocalStore, tmp_path: Path
) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [BASE, APP]})
    image = store.put("app", archive).get(timeout=TIMEOUT)
    image.layers[1].path.parent.rename(tmp_path / "lost")

    (listed,) = store.list().get(timeout=TIMEOUT)
    with pytest.raises(ImageIncompleteError, match=f"the store lacks {diff_id(APP)}; put it again"):
        store.get("app").get(timeout=TIMEOUT)

    assert listed.missing == (diff_id(APP),)
    store.put("app", archive).get(timeout=TIMEOUT)
    assert store.get("app").get(timeout=TIMEOUT) == image


def test_remove_deletes_the_layers_that_nobody_else_has(store: LocalStore, tmp_path: Path) -> None:
    store.load(docker_save(tmp_path / "two.tar", {"a": [BASE, APP], "b": [BASE, OTHER]})).get(timeout=TIMEOUT)

    removed = store.remove("a").get(timeout=TIMEOUT)
    store.swept().get(timeout=TIMEOUT)

    assert removed.name == "a:latest"
    assert published(tmp_path) == {diff_id(BASE), diff_id(OTHER)}
    assert os.listdir(tmp_path / "store" / "gc") == []
    assert len(os.listdir(tmp_path / "store" / "configs")) == 1
    assert store.get("b").get(timeout=TIMEOUT).name == "b:latest"
    with pytest.raises(NotFoundError, match="no image a:latest is in the store"):
        store.remove("a").get(timeout=TIMEOUT)


def test_a_removal_that_is_discarded_goes_on_and_frees_the_layers(store: LocalStore, tmp_path: Path) -> None:
    store.put("app", docker_save(tmp_path / "app.tar", {"app": [BASE, APP]})).get(timeout=TIMEOUT)

    removal = store.remove("app")
    removal.discard()

    assert removal.get(timeout=TIMEOUT).name == "app:latest"
    assert published(tmp_path) == set()
    assert os.listdir(tmp_path / "store" / "configs") == []


def test_removals_beside_puts_never_lose_a_layer(store: LocalStore, tmp_path: Path) -> None:
    archives = [docker_save(tmp_path / f"{n}.tar", {f"i{n}": [BASE, APP]}) for n in range(4)]

    for _ in range(10):
        work: list[Future[ImageInfo]] = []
        for number, archive in enumerate(archives):
            work += [store.put(f"i{number}", archive), store.remove(f"i{(number + 1) % 4}")]
        await_all(work).get(timeout=TIMEOUT)

        images = store.list().get(timeout=TIMEOUT)
        assert all(image.missing == () for image in images)
        assert all(store.config(image.name).get(timeout=TIMEOUT) for image in images)


def test_progress_ends_with_all_bytes_and_entries(store: LocalStore, tmp_path: Path, slow: bytes) -> None:
    underway = Underway()
    archive = docker_save(tmp_path / "app.tar", {"app": [slow, APP]})
    told: queue.SimpleQueue[Progress] = queue.SimpleQueue()

    class Agent(Actor):
        def hear(self, progress: Progress) -> None:
            told.put(progress)

    agent = Agent.start()

    first = store.put("app", archive, progress=underway)
    second = store.put("app", archive, progress=defer(agent, Agent.hear))
    collect([first, second]).get(timeout=TIMEOUT)

    last = told.get(timeout=TIMEOUT)
    while not last.done:
        last = told.get(timeout=TIMEOUT)
    assert last.names == ("app:latest",)
    assert last.bytes_done == last.bytes_expected == len(slow) + len(APP)
    assert last.entries_done == last.entries_expected == 40_000 + 1
    assert any(0 < seen.bytes_done < seen.bytes_expected for seen in underway.seen)


def test_a_progress_listener_that_fails_hurts_nobody(store: LocalStore, tmp_path: Path) -> None:
    def fail(_: Progress) -> None:
        raise RuntimeError("listener")

    image = store.put("app", docker_save(tmp_path / "app.tar", {"app": [APP]}), progress=fail).get(timeout=TIMEOUT)

    assert image.name == "app:latest"


def test_close_during_a_put_stops_it_and_leaves_nothing(tmp_path: Path, slow: bytes) -> None:
    store = LocalStore.start(tmp_path / "store")
    underway = Underway()
    put = store.put("app", docker_save(tmp_path / "app.tar", {"app": [slow]}), progress=underway)
    underway.wait()

    store.close()
    store.close()

    assert put.is_discarded()
    assert staging(tmp_path) == []
    assert worker_pids() == set()
    with pytest.raises(StoreClosedError):
        store.get("app").get(timeout=TIMEOUT)


@pytest.mark.parametrize("waits_before", [0, 1, 2, 3])
def test_interrupted_close_leaves_nothing_running(
    tmp_path: Path, slow: bytes, monkeypatch: pytest.MonkeyPatch, waits_before: int
) -> None:
    store = LocalStore.start(tmp_path / "store", workers=1)
    underway = Underway()
    put = store.put("app", docker_save(tmp_path / "app.tar", {"app": [slow]}), progress=underway)
    underway.wait()
    get, waits = Future.get, itertools.count()

    def interrupted(future: Future[Any], *, timeout: float | None = None) -> Any:
        if threading.current_thread() is threading.main_thread() and next(waits) == waits_before:
            raise KeyboardInterrupt
        return get(future, timeout=timeout)

    monkeypatch.setattr(seams.WAIT_FOR_FUTURE, interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.close()
    monkeypatch.undo()

    wait_for(lambda: pykka.ActorRegistry.get_all() == [])  # one whose end was waited for when this was interrupted
    assert worker_pids() == set()
    with pytest.raises((DiscardedError, StoreClosedError)):
        put.get(timeout=TIMEOUT)


def test_close_right_after_a_put_stops_it_and_leaves_nothing(tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [BASE]})

    for number in range(20):
        store = LocalStore.start(tmp_path / "store", workers=1)
        puts: list[Future[Any]] = [
            store.put("app", archive),
            store.put("app", archive, lease=True),
            store.load(archive),
        ]
        store.close()

        assert all(isinstance(put.error(), (DiscardedError, StoreClosedError)) for put in puts), number
        assert not (tmp_path / "store" / "staging").exists() or staging(tmp_path) == []


def test_close_right_after_a_discard_waits_for_what_it_stops(tmp_path: Path, slow: bytes) -> None:
    store = LocalStore.start(tmp_path / "store")
    underway = Underway()
    put = store.put("app", docker_save(tmp_path / "app.tar", {"app": [slow]}), progress=underway)
    underway.wait()

    put.discard()
    store.close()

    assert put.is_discarded()
    assert staging(tmp_path) == []


def test_a_discard_during_the_clean_up_of_a_failed_put_does_not_stop_it(tmp_path: Path) -> None:
    archives = [tmp_path / f"bad{number}.tar" for number in range(100)]
    for archive in archives:
        archive.write_bytes(b"x")

    with LocalStore.start(tmp_path / "store") as store:
        for waited_for in range(0, 100, 20):
            puts = [store.put(f"app{number}", archive) for number, archive in enumerate(archives)]
            puts[waited_for].recover(lambda _: None).get(timeout=TIMEOUT)
            for put in puts:
                put.discard()
            await_all(puts).get(timeout=TIMEOUT)

            assert staging(tmp_path) == []


def test_an_unreadable_checkpoint_stops_the_store_and_stays(tmp_path: Path) -> None:
    checkpoint = tmp_path / "store" / "storedImages"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"\xff\xff\xff\xff garbage")
    archive = docker_save(tmp_path / "app.tar", {"app": [APP]})

    with LocalStore.start(tmp_path / "store") as store:
        for operation in (store.list, store.recover, lambda: store.get("app"), lambda: store.put("app", archive)):
            with pytest.raises(StoreError, match="storedImages: it says it has 4294967295 bytes"):
                _get(operation)

    assert checkpoint.read_bytes() == b"\xff\xff\xff\xff garbage"


def _get(operation: Callable[[], Future[Any]]) -> object:
    return operation().get(timeout=TIMEOUT)


@pytest.mark.parametrize("entries", [0, 1, 15_000, 30_000])
def test_a_killed_program_leaves_a_store_that_a_new_one_puts_right(tmp_path: Path, slow: bytes, entries: int) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [APP, slow]})
    program = textwrap.dedent(
        f"""
        import os, signal
        from pykka_imagestore import LocalStore
        store = LocalStore.start({str(tmp_path / "store")!r})
        store.put("first", {str(docker_save(tmp_path / "first.tar", {"first": [BASE]}))!r}).get()
        def die(progress):
            if progress.entries_done >= {entries}:
                os.kill(os.getpid(), signal.SIGKILL)
        store.put("app", {str(archive)!r}, progress=die).get()
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, timeout=TIMEOUT)
    assert ended.returncode == -signal.SIGKILL

    with LocalStore.start(tmp_path / "store") as store:
        names = [image.name for image in store.list().get(timeout=TIMEOUT)]
        store.recover().get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)
        assert staging(tmp_path) == []
        assert "first:latest" in names
        assert all(store.get(name).get(timeout=TIMEOUT) for name in names)
        store.put("app", archive).get(timeout=TIMEOUT)


@pytest.mark.root
def test_a_full_disk_fails_the_put_and_leaves_the_store_as_it_was(tmp_path: Path, slow: bytes) -> None:
    mount = tmp_path / "store"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", mount], check=False)
    if mounted.returncode != 0:
        pytest.skip("needs to mount a tmpfs")
    try:
        with LocalStore.start(mount) as store:
            store.put("good", docker_save(tmp_path / "good.tar", {"good": [BASE]})).get(timeout=TIMEOUT)

            with pytest.raises(OSError, match=r"No space left on device: .*/staging/"):
                store.put("app", docker_save(tmp_path / "app.tar", {"app": [slow]})).get(timeout=TIMEOUT)

            assert staging(tmp_path) == []
            assert [image.name for image in store.list().get(timeout=TIMEOUT)] == ["good:latest"]
            store.put("more", docker_save(tmp_path / "more.tar", {"more": [APP]})).get(timeout=TIMEOUT)
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_compressed_archive_is_inflated_once_and_its_copy_removed(store: LocalStore, tmp_path: Path) -> None:
    plain = docker_save(tmp_path / "app.tar", {"app": [BASE, APP]})
    wrapped = tmp_path / "app.tar.gz"
    wrapped.write_bytes(gzip.compress(plain.read_bytes()))

    image = store.put("app", wrapped).get(timeout=TIMEOUT)

    assert [layer.diff_id for layer in image.layers] == [diff_id(BASE), diff_id(APP)]
    assert staging(tmp_path) == []


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        ("gone.tar", "No such file or directory"),
        (".", "is no image archive"),
        ("/dev/zero", "is no file"),
        ("empty.tar", "is no image archive"),
        ("text.tar", "is no image archive"),
    ],
)
def test_what_is_no_archive_is_refused(store: LocalStore, tmp_path: Path, archive: str, sentence: str) -> None:
    (tmp_path / "empty.tar").touch()
    (tmp_path / "text.tar").write_text("hello\n" * 1000)

    with pytest.raises((StoreError, OSError), match=sentence):
        store.put("app", tmp_path / archive).get(timeout=TIMEOUT)

    assert staging(tmp_path) == []


def test_actors_of_the_store_are_gone_after_close(tmp_path: Path) -> None:
    store = LocalStore.start(tmp_path / "store")
    store.list().get(timeout=TIMEOUT)

    store.close()

    assert pykka.ActorRegistry.get_all() == []


def test_layers_lie_where_only_their_owner_may_enter(store: LocalStore, tmp_path: Path) -> None:
    store.list().get(timeout=TIMEOUT)

    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_platform_chooses_among_images_of_one_name(store: LocalStore, tmp_path: Path) -> None:
    layout = Layout()
    arm64 = layout.manifest(APP, config=layout.config(APP, **ARM64), platform=ARM64)
    layout.name(layout.index(layout.manifest(BASE, platform=AMD64), arm64), "app:1")
    directory = layout.write_directory(tmp_path / "layout")

    one = store.put("one", directory, platform="linux/amd64")
    two = store.put("one", directory, platform="linux/arm64/v8")
    (own,) = store.load(directory, platform="linux/arm64").get(timeout=TIMEOUT)

    assert [image.layers[0].diff_id for image in collect([one, two]).get(timeout=TIMEOUT)] == [
        diff_id(BASE),
        diff_id(APP),
    ]
    assert (own.name, own.layers[0].diff_id) == ("app:1", diff_id(APP))


def test_platform_that_is_none_is_refused(store: LocalStore, tmp_path: Path) -> None:
    for put in (store.put("app", tmp_path, platform="arm64"), store.load(tmp_path, platform="")):
        with pytest.raises(InvalidInputError, match=r"is no platform: it should be os/architecture"):
            put.get(timeout=TIMEOUT)


def test_what_came_through_a_pipe_is_not_asked_for_again_when_its_worker_dies(
    store: LocalStore, tmp_path: Path
) -> None:
    ours, theirs = os.pipe()
    archive = docker_save(tmp_path / "app.tar", {"app:1": [BASE]}).read_bytes()
    os.write(theirs, archive[:2000])
    put = store.put("app", f"/proc/{os.getpid()}/fd/{ours}")
    wait_until(lambda: any((tmp_path / "store" / "staging").glob("*/archive.tar")))

    for pid in worker_pids():
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerDiedError):
        put.get(timeout=TIMEOUT)
    os.close(ours)
    os.close(theirs)
    assert staging(tmp_path) == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # another process' file: there is nothing to wait on
