"""What a store takes out: prune, remove, leases, usage; beside puts, and with other processes that use the store."""

from __future__ import annotations

import os
import queue
import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from support import seams
from support.images import diff_id, docker_save, layer
from support.privileges import immutable
from support.processes import TIMEOUT, Program
from support.stores import opened

from pykka_imagestore import ImageInfo, InvalidNameError, LocalStore, NotFoundError, ReferenceStore, StoreClosedError
from pykka_imagestore.core.image import Recovery
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.checkpoint import read_checkpoint
from pykka_imagestore.runtime import Future, await_all, collect

BASE = layer({"etc/os-release": b"ID=test\n"})
OWN = {name: layer({f"app/{name}": name.encode() * 10_000}) for name in "abc"}
LEASE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pykka_imagestore import LocalStore
from pykka_imagestore.runtime import WorkerPool
store = LocalStore.start(sys.argv[1], pool=WorkerPool(executor=ThreadPoolExecutor(1)))
leased = store.get(sys.argv[2], lease=True).get()
store.close()
print("leased", flush=True)
input()
leased.release()
print("released", flush=True)
input()
"""


@pytest.fixture
def paths(tmp_path: Path) -> StorePaths:
    return StorePaths(tmp_path / "store")


@pytest.fixture
def images(store: LocalStore, tmp_path: Path) -> dict[str, ImageInfo]:
    """Put three images that have a layer in common and one each of their own; ``a`` was used first, ``c`` last."""
    archive = docker_save(tmp_path / "all.tar", {name: [BASE, own] for name, own in OWN.items()})
    images = {image.name[0]: image for image in store.load(archive).get(timeout=TIMEOUT)}
    for number, image in enumerate(images.values()):
        used_at(tmp_path, image, 1000 + number)
    return images


def used_at(tmp_path: Path, image: ImageInfo, seconds: float) -> None:
    os.utime(StorePaths(tmp_path / "store").config(str(image.config_digest)), (seconds, seconds))


def names(store: LocalStore) -> str:
    return "".join(image.name[0] for image in store.list().get(timeout=TIMEOUT))


def layers(paths: StorePaths) -> set[str]:
    return {path.name.replace("-", ":") for path in paths.layers.iterdir()}


def assert_swept(store: LocalStore, paths: StorePaths) -> None:
    store.swept().get(timeout=TIMEOUT)
    assert [os.listdir(directory) for directory in (paths.gc, paths.leases)] == [[], []]


# -- prune


def test_prune_without_options_takes_out_what_no_image_has_and_nothing_else(
    store: LocalStore, images: dict[str, ImageInfo], paths: StorePaths
) -> None:
    with ReferenceStore.start(paths.root) as references:
        references.remove("b").get(timeout=TIMEOUT)

    pruned = store.prune().get(timeout=TIMEOUT)

    assert (pruned.images, pruned.layers, pruned.configs) == ((), (diff_id(OWN["b"]),), (images["b"].config_digest,))
    assert pruned.kept_bytes == store.usage().get(timeout=TIMEOUT).bytes
    assert layers(paths) == {diff_id(BASE), diff_id(OWN["a"]), diff_id(OWN["c"])}
    assert len(os.listdir(paths.configs)) == 2
    assert names(store) == "ac"
    assert_swept(store, paths)
    again = store.prune().get(timeout=TIMEOUT)
    assert (again.images, again.layers, again.configs) == ((), (), ())


@pytest.mark.usefixtures("images")
def test_prune_forgets_what_was_not_used_for_so_long(store: LocalStore, paths: StorePaths) -> None:
    store.get("c").get(timeout=TIMEOUT)

    pruned = store.prune(unused_for=1000).get(timeout=TIMEOUT)

    assert [image.name for image in pruned.images] == ["a:latest", "b:latest"]
    assert names(store) == "c"
    assert layers(paths) == {diff_id(BASE), diff_id(OWN["c"])}
    assert_swept(store, paths)


@pytest.mark.usefixtures("images")
def test_budget_takes_the_least_recently_used_first_and_a_get_counts_as_use(store: LocalStore) -> None:
    store.get("a").get(timeout=TIMEOUT)
    whole = store.usage().get(timeout=TIMEOUT).bytes

    pruned = store.prune(budget_bytes=whole - 1).get(timeout=TIMEOUT)

    assert [image.name for image in pruned.images] == ["b:latest"]
    assert names(store) == "ac"
    assert pruned.kept_bytes == store.usage().get(timeout=TIMEOUT).bytes < whole


@pytest.mark.parametrize("use", ["put", "config", "lease"])
def test_other_uses_count_too(store: LocalStore, images: dict[str, ImageInfo], tmp_path: Path, use: str) -> None:
    if use == "put":
        store.load(tmp_path / "all.tar", select="a").get(timeout=TIMEOUT)
        for name in "bc":
            used_at(tmp_path, images[name], 1002)
    elif use == "config":
        store.config("a").get(timeout=TIMEOUT)
    else:
        store.get("a", lease=True).get(timeout=TIMEOUT).release()

    assert [image.name for image in store.prune(unused_for=1000).get(timeout=TIMEOUT).images] == [
        "b:latest",
        "c:latest",
    ]


@pytest.mark.usefixtures("images")
def test_budget_of_nothing_takes_all_but_what_is_to_be_kept(store: LocalStore, paths: StorePaths) -> None:
    pruned = store.prune(keep=["docker.io/library/b:latest", "gone"], budget_bytes=0).get(timeout=TIMEOUT)

    assert [image.name for image in pruned.images] == ["a:latest", "c:latest"]
    assert pruned.kept_bytes > 0
    assert names(store) == "b"
    assert layers(paths) == {diff_id(BASE), diff_id(OWN["b"])}


@pytest.mark.usefixtures("images")
def test_name_to_keep_that_is_none_fails_the_prune_and_nothing_is_taken_out(store: LocalStore) -> None:
    with pytest.raises(InvalidNameError):
        store.prune(keep=["UPPER"], budget_bytes=0).get(timeout=TIMEOUT)

    assert names(store) == "abc"


@pytest.mark.usefixtures("images")
def test_prunes_and_removals_at_once_do_not_wait_for_each_other_for_ever(store: LocalStore, paths: StorePaths) -> None:
    work: list[Future[Any]] = [
        store.prune(budget_bytes=0),
        store.remove("a"),
        store.prune(),
        store.usage(),
        store.remove("b"),
    ]

    await_all(work).get(timeout=TIMEOUT)

    assert names(store) == ""
    assert layers(paths) == set()
    assert_swept(store, paths)


def test_prune_of_a_closed_store_says_so(tmp_path: Path) -> None:
    store = LocalStore.start(tmp_path / "store")
    store.close()

    for work in (store.prune(), store.usage(), store.remove("a"), store.get("a", lease=True)):
        with pytest.raises(StoreClosedError):
            work.get(timeout=TIMEOUT)


# -- leases


def test_leased_image_stays_until_it_is_released(
    store: LocalStore, images: dict[str, ImageInfo], paths: StorePaths
) -> None:
    leased = store.get("a", lease=True).get(timeout=TIMEOUT)

    store.prune(budget_bytes=0).get(timeout=TIMEOUT)
    assert leased.image == images["a"]
    assert names(store) == "a"
    assert layers(paths) == {diff_id(BASE), diff_id(OWN["a"])}
    leased.release()
    leased.release()
    store.prune(budget_bytes=0).get(timeout=TIMEOUT)

    assert names(store) == ""
    assert layers(paths) == set()
    assert_swept(store, paths)


def test_leased_image_that_is_removed_keeps_its_layers_until_the_prune_after_the_lease(
    store: LocalStore, images: dict[str, ImageInfo]
) -> None:
    with store.get("a", lease=True).get(timeout=TIMEOUT) as leased:
        store.remove("a").get(timeout=TIMEOUT)
        store.prune().get(timeout=TIMEOUT)

        assert names(store) == "bc"
        assert (leased.image.layers[1].path / "app/a").is_file()
    pruned = store.prune().get(timeout=TIMEOUT)

    assert pruned.layers == (diff_id(OWN["a"]),)
    assert pruned.configs == (images["a"].config_digest,)


@pytest.mark.usefixtures("images")
def test_lease_outlives_its_store(store: LocalStore, paths: StorePaths) -> None:
    with LocalStore.start(paths.root) as other:
        leased = other.get("a", lease=True).get(timeout=TIMEOUT)

    store.prune(budget_bytes=0).get(timeout=TIMEOUT)

    assert names(store) == "a"
    leased.release()


def test_lease_of_what_is_not_there_is_refused_and_leaves_none(store: LocalStore, paths: StorePaths) -> None:
    with pytest.raises(NotFoundError):
        store.get("gone", lease=True).get(timeout=TIMEOUT)

    assert os.listdir(paths.leases) == []


@pytest.mark.usefixtures("images")
def test_image_leased_by_another_process_stays_until_that_releases_it(store: LocalStore, paths: StorePaths) -> None:
    with Program(LEASE, paths.root, "a") as other:
        assert other.line() == "leased"
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        assert names(store) == "a"

        other.tell()

        assert other.line() == "released"
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        assert names(store) == ""


@pytest.mark.usefixtures("images")
def test_image_leased_by_a_process_that_is_killed_goes(store: LocalStore, paths: StorePaths) -> None:
    with Program(LEASE, paths.root, "b") as other:
        assert other.line() == "leased"
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        before = names(store)

        other.kill()

        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        assert (before, names(store)) == ("b", "")
        assert layers(paths) == set()
        assert_swept(store, paths)


# -- usage and recovery


def test_store_within_its_budget_keeps_its_images_in_memory_once(tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "base.tar", {"base": [BASE]})

    with (
        patch(seams.READ_CHECKPOINT, side_effect=read_checkpoint) as read,
        opened(tmp_path / "store", budget_bytes=1 << 30) as store,
    ):
        store.put("base", archive).get(timeout=TIMEOUT)
        usage = store.usage().get(timeout=TIMEOUT)

    assert [image.name for image in usage.images] == ["base:latest"]
    assert read.call_count == 1


@pytest.mark.usefixtures("images")
def test_usage_is_what_each_image_and_layer_costs(store: LocalStore) -> None:
    store.remove("b").get(timeout=TIMEOUT)

    usage = store.usage().get(timeout=TIMEOUT)

    sizes = {layer.diff_id: layer.bytes for layer in usage.layers}
    assert set(sizes) == {diff_id(BASE), diff_id(OWN["a"]), diff_id(OWN["c"])}
    assert all(size > 0 for size in sizes.values())
    assert [(image.name, image.last_used) for image in usage.images] == [("a:latest", 1000), ("c:latest", 1002)]
    for image, name in zip(usage.images, "ac", strict=True):
        beside = image.own_bytes - sizes[diff_id(OWN[name])]
        assert 4096 < beside < 5000  # its config, and what is remembered of it
        assert image.bytes == image.own_bytes + sizes[diff_id(BASE)]
    assert usage.bytes == sizes[diff_id(BASE)] + sum(image.own_bytes for image in usage.images)
    assert usage.unused_bytes == 0
    assert {layer.diff_id: layer.images for layer in usage.layers}[diff_id(BASE)] == ("a:latest", "c:latest")


def test_recover_tells_what_it_found(store: LocalStore, images: dict[str, ImageInfo], paths: StorePaths) -> None:
    store.close()
    images["b"].layers[1].path.parent.rename(paths.root / "lost")
    (paths.staging / "0123456789abcdef" / "layer").mkdir(parents=True)
    (paths.gc / "fedcba9876543210").mkdir()

    with LocalStore.start(paths.root) as reopened:
        found = reopened.recover().get(timeout=TIMEOUT)
        reopened.swept().get(timeout=TIMEOUT)

        assert found == Recovery(images=3, incomplete=("b:latest",), orphans=2)
        assert os.listdir(paths.staging) == os.listdir(paths.gc) == []


@pytest.mark.usefixtures("images")
def test_recover_leaves_the_work_of_those_who_live(store: LocalStore, paths: StorePaths, tmp_path: Path) -> None:
    ours, theirs = os.pipe()  # a put that waits for its archive
    put = store.put("d", f"/proc/self/fd/{ours}")
    while not list(paths.staging.glob("*/lock")):
        assert put.is_pending()

    with LocalStore.start(paths.root) as other:
        assert other.recover().get(timeout=TIMEOUT) == Recovery(3, (), 0)

    assert len(list(paths.staging.glob("*/lock"))) == 1
    os.write(theirs, docker_save(tmp_path / "d.tar", {"d": [BASE]}).read_bytes())
    os.close(theirs)
    assert put.get(timeout=TIMEOUT).name == "d:latest"
    os.close(ours)


# -- beside puts


def test_prunes_beside_puts_never_lose_a_layer(store: LocalStore, tmp_path: Path, paths: StorePaths) -> None:
    """Two stores, as of two processes; what a put has acknowledged may be forgotten later, but never in part."""
    archives = {name: docker_save(tmp_path / f"{name}.tar", {name: [BASE, own]}) for name, own in OWN.items()}
    stop, errors = threading.Event(), queue.SimpleQueue()
    choose = random.Random(5)

    def prune(pruning: LocalStore) -> None:
        try:
            while not stop.is_set():
                pruning.prune(budget_bytes=choose.choice([None, 0, 30_000])).get(timeout=TIMEOUT)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.put(error)

    with LocalStore.start(paths.root, durable=False, workers=1) as other:
        pruners = [threading.Thread(target=prune, args=[each]) for each in (store, other)]
        for pruner in pruners:
            pruner.start()
        try:
            for _ in range(15):
                puts = [store.put(name, archive) for name, archive in archives.items()]
                for image in collect(puts).get(timeout=TIMEOUT):
                    assert len(image.layers) == 2
                for name in OWN:
                    with suppress(NotFoundError), store.get(name, lease=True).get(timeout=TIMEOUT) as leased:
                        assert (leased.image.layers[0].path / "etc/os-release").read_bytes() == b"ID=test\n"
                        assert (leased.image.layers[1].path / "app" / name).stat().st_size == 10_000
        finally:
            stop.set()
            for pruner in pruners:
                pruner.join(TIMEOUT)

        assert [repr(errors.get()) for _ in range(errors.qsize())] == []
        assert all(image.missing == () for image in store.list().get(timeout=TIMEOUT))
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        other.swept().get(timeout=TIMEOUT)
        assert (names(store), layers(paths), os.listdir(paths.configs)) == ("", set(), [])
        assert_swept(store, paths)


# -- what the kernel does not let go


@pytest.mark.root
@pytest.mark.parametrize("what", ["", "rootfs/etc/os-release"])
@pytest.mark.usefixtures("images")
def test_what_cannot_be_removed_is_told_and_keeps_no_other_removal(
    store: LocalStore, paths: StorePaths, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    with immutable(paths.layer(diff_id(BASE)) / what):
        for name in "abc":
            store.remove(name).get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)
        left = layers(paths), [path for path in paths.gc.glob("*/*") if path.name != "lock"]

    assert left[0] == (set() if what else {diff_id(BASE)})
    assert len(left[1]) == (1 if what else 0)
    (message,) = caplog.messages
    assert "sha256-" in message
    assert "Operation not permitted" in message
    store.prune().get(timeout=TIMEOUT)
    assert_swept(store, paths)
    assert layers(paths) == set()


@pytest.mark.root
@pytest.mark.usefixtures("images")
def test_prune_tells_only_what_it_took_out(store: LocalStore, paths: StorePaths) -> None:
    with immutable(paths.layer(diff_id(BASE))):
        pruned = store.prune(budget_bytes=0).get(timeout=TIMEOUT)

    assert set(pruned.layers) == {diff_id(own) for own in OWN.values()}
    assert pruned.kept_bytes > 0
    assert store.prune().get(timeout=TIMEOUT).freed_bytes == pruned.kept_bytes
