"""What a store does to stay within its budget, and what put with a lease promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest
from images import docker_save, layer
from processes import TIMEOUT

from pykka_imagestore import DigestMismatchError, InvalidInputError, LocalStore, NotFoundError, OverBudgetError
from pykka_imagestore.local_store import LocalStoreActor
from pykka_imagestore.runtime import WorkerPool

SMALL = [layer({f"{n}/file": str(n).encode() * 20_000}) for n in range(6)]  # 28 KiB each on disk
BUDGET = 100 << 10


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    """Return a store that may hold three of the layers."""
    with (
        ThreadPoolExecutor(2) as threads,
        LocalStore.start(
            tmp_path / "store", durable=False, budget_bytes=BUDGET, pool=WorkerPool(executor=threads)
        ) as store,
    ):
        yield store


def archive(folder: Path, number: int) -> Path:
    # A config of its own, since that is what tells when it was used.
    return docker_save(folder / f"{number}.tar", {f"app:{number}": [SMALL[number]]}, config={"Env": [f"N={number}"]})


def names(store: LocalStore) -> list[str]:
    return [image.name for image in store.list().get(timeout=TIMEOUT)]


def put(store: LocalStore, folder: Path, number: int) -> None:
    image = store.put(f"app:{number}", archive(folder, number)).get(timeout=TIMEOUT)
    digest = str(image.config_digest).replace(":", "-")
    os.utime(folder / "store" / "configs" / digest, (1000 + number, 1000 + number))


def test_a_put_past_the_budget_forgets_the_least_recently_used(store: LocalStore, tmp_path: Path) -> None:
    for number in range(3):
        put(store, tmp_path, number)
    store.get("app:0").get(timeout=TIMEOUT)

    put(store, tmp_path, 3)

    assert names(store) == ["app:0", "app:2", "app:3"]
    assert store.usage().get(timeout=TIMEOUT).bytes <= BUDGET


def test_what_is_leased_stays_however_old(store: LocalStore, tmp_path: Path) -> None:
    with store.put("app:0", archive(tmp_path, 0), lease=True).get(timeout=TIMEOUT) as leased:
        for number in range(1, 5):
            put(store, tmp_path, number)

        assert names(store) == ["app:0", "app:3", "app:4"]
        assert (leased.image.layers[0].path / "0" / "file").is_file()


def test_an_image_over_the_budget_is_refused_and_nothing_is_forgotten(store: LocalStore, tmp_path: Path) -> None:
    put(store, tmp_path, 0)
    large = docker_save(tmp_path / "large.tar", {"large": [layer({"file": b"x" * 200_000})]})

    with pytest.raises(OverBudgetError, match="nothing was removed for it"):
        store.put("large", large).get(timeout=TIMEOUT)

    assert names(store) == ["app:0"]


def test_an_archive_that_lies_takes_no_more_than_its_room(store: LocalStore, tmp_path: Path) -> None:
    for number in range(3):
        put(store, tmp_path, number)
    lying = archive(tmp_path, 4)
    lying.write_bytes(lying.read_bytes().replace(b"4" * 20_000, b"x" * 20_000))

    with pytest.raises(DigestMismatchError):
        store.put("lie", lying).get(timeout=TIMEOUT)

    assert names(store) == ["app:1", "app:2"]


def test_a_load_keeps_all_its_images_until_it_is_done(store: LocalStore, tmp_path: Path) -> None:
    put(store, tmp_path, 0)
    many = docker_save(tmp_path / "many.tar", {f"m:{n}": [SMALL[n]] for n in range(1, 6)})

    store.load(many).get(timeout=TIMEOUT)

    assert names(store) == [f"m:{n}" for n in range(1, 6)]


def test_a_leased_put_whose_image_is_removed_at_once_is_put_again(store: LocalStore, tmp_path: Path) -> None:
    lease, removals = LocalStoreActor.lease, iter([True, False])

    async def removed_first(actor: LocalStoreActor, name: str) -> object:
        if next(removals):
            await actor._collector.remove(name)
        return await lease(actor, name)

    with patch.object(LocalStoreActor, "lease", removed_first):
        leased = store.put("app:0", archive(tmp_path, 0), lease=True).get(timeout=TIMEOUT)

    store.remove("app:0").get(timeout=TIMEOUT)
    assert leased.image.layers[0].path.is_dir()
    with pytest.raises(NotFoundError):
        store.get("app:0").get(timeout=TIMEOUT)
    leased.release()


@pytest.mark.parametrize("options", [{"keep": "app"}, {"budget_bytes": -1}, {"unused_for": -0.1}, {"keep": ["A B"]}])
def test_a_prune_that_is_not_meant_so_is_refused(store: LocalStore, tmp_path: Path, options: dict[str, object]) -> None:
    put(store, tmp_path, 0)

    with pytest.raises(InvalidInputError):
        store.prune(**options).get(timeout=TIMEOUT)

    assert names(store) == ["app:0"]


def test_a_dry_run_of_a_prune_tells_and_changes_nothing(store: LocalStore, tmp_path: Path) -> None:
    put(store, tmp_path, 0)

    pruned = store.prune(budget_bytes=0, dry_run=True).get(timeout=TIMEOUT)

    assert [image.name for image in pruned.images] == names(store) == ["app:0"]
