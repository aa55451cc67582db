"""What a store does to stay within its budget, and what put with a lease promises."""

from __future__ import annotations

import errno
import gc
import gzip
import os
import random
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from support import seams
from support.images import docker_save, layer, write_members
from support.processes import TIMEOUT, Program
from support.stores import opened

from pykka_imagestore import (
    DigestMismatchError,
    InvalidInputError,
    LeasedImage,
    LocalStore,
    NoSpaceError,
    OverBudgetError,
)
from pykka_imagestore.runtime import WorkerPool

SMALL = [layer({f"{n}/file": str(n).encode() * 20_000}) for n in range(6)]  # each image takes 45 KiB on disk
BUDGET = 150 << 10
HOLDER = """
import sys
from pathlib import Path
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.leases import take_over
_, lease = take_over(StorePaths(Path(sys.argv[1])), sys.argv[2])
print("took it", flush=True)
input()
lease.release()
input()
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    """Return a store that may hold three of the layers."""
    with opened(tmp_path / "store", durable=False, budget_bytes=BUDGET) as store:
        yield store


def archive(directory: Path, number: int) -> Path:
    # A config of its own, since that is what tells when it was used.
    return docker_save(directory / f"{number}.tar", {f"app:{number}": [SMALL[number]]}, config={"Env": [f"N={number}"]})


def names(store: LocalStore) -> list[str]:
    return [image.name for image in store.list().get(timeout=TIMEOUT)]


def put(store: LocalStore, directory: Path, number: int) -> None:
    image = store.put(f"app:{number}", archive(directory, number)).get(timeout=TIMEOUT)
    digest = str(image.config_digest).replace(":", "-")
    os.utime(directory / "store" / "configs" / digest, (1000 + number, 1000 + number))


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


def test_an_archive_that_lies_costs_no_image(store: LocalStore, tmp_path: Path) -> None:
    for number in range(3):
        put(store, tmp_path, number)
    lying = archive(tmp_path, 4)
    lying.write_bytes(lying.read_bytes().replace(b"4" * 20_000, b"x" * 20_000))

    with pytest.raises(DigestMismatchError):
        store.put("lie", lying).get(timeout=TIMEOUT)

    assert names(store) == ["app:0", "app:1", "app:2"]


def test_layers_that_a_failed_put_leaves_above_the_budget_go_alone(store: LocalStore, tmp_path: Path) -> None:
    for number in range(3):
        put(store, tmp_path, number)
    half = docker_save(tmp_path / "half.tar", {"half": [SMALL[3], SMALL[4]]})
    half.write_bytes(half.read_bytes().replace(b"4" * 20_000, b"x" * 20_000))

    with pytest.raises(DigestMismatchError):
        store.put("half", half).get(timeout=TIMEOUT)

    wait_until(lambda: store.usage().get(timeout=TIMEOUT).bytes <= BUDGET)
    assert names(store) == ["app:0", "app:1", "app:2"]


def test_room_is_made_before_only_where_the_disk_has_none_for_both(store: LocalStore, tmp_path: Path) -> None:
    for number in range(3):
        put(store, tmp_path, number)
    asked: list[int] = []

    def require(path: str, needed: int) -> None:
        asked.append(len(names_on_disk(tmp_path)))
        if len(asked) == 1:
            raise NoSpaceError(path, needed, 0)

    with patch(seams.REQUIRE_SPACE, require):
        put(store, tmp_path, 3)

    assert asked == [3, 2]
    assert names(store) == ["app:1", "app:2", "app:3"]


def names_on_disk(directory: Path) -> list[str]:
    return os.listdir(directory / "store" / "layers")


def test_compressed_image_over_the_budget_is_refused_once_it_is_known_and_nothing_is_forgotten(
    store: LocalStore, tmp_path: Path
) -> None:
    put(store, tmp_path, 0)
    large = layer({"file": b"x" * 2_000_000})
    archive = docker_save(tmp_path / "large.tar", {"large": [large]})
    squeezed = gzip.compress(large)
    members = {name: squeezed if data == large else data for name, data in read_members(archive).items()}

    with pytest.raises(OverBudgetError, match=r"the image alone takes at least 20\d{5}\.") as caught:
        store.put("large", write_members(archive, members)).get(timeout=TIMEOUT)

    assert caught.value.budget_bytes == BUDGET
    assert names(store) == ["app:0"]
    wait_until(lambda: store.usage().get(timeout=TIMEOUT).bytes <= BUDGET)


def read_members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: file.read() for member in archive if (file := archive.extractfile(member))}


def test_budget_that_leases_put_out_of_reach_forgets_nothing(
    store: LocalStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leased = over_budget(store, tmp_path, range(1, 5))

    put(store, tmp_path, 0)

    assert names(store) == [f"app:{number}" for number in range(5)]
    assert re.search(r"may take 153600 bytes: \d+ bytes and \d+ inodes are leased", caplog.text)
    leased[-1].release()
    wait_until(lambda: "app:0" not in names(store))


def test_what_nobody_leases_outgrows_the_budget_no_more_than_once(store: LocalStore, tmp_path: Path) -> None:
    over_budget_leases = over_budget(store, tmp_path, range(4))
    many = [docker_save(tmp_path / f"x{n}.tar", {f"x:{n}": [layer({f"x{n}": b"x" * 20_000})]}) for n in range(8)]

    for number, each in enumerate(many):
        store.put(f"x:{number}", each).get(timeout=TIMEOUT)

    wait_until(lambda: len([name for name in names(store) if name.startswith("x:")]) <= 3)
    assert "x:7" in names(store)
    for leased in over_budget_leases:
        leased.release()


def test_prune_for_a_budget_that_leases_put_out_of_reach_forgets_nothing(tmp_path: Path) -> None:
    big = layer({"big": os.urandom(1 << 20)})
    with LocalStore.start(tmp_path / "store", durable=False, workers=1) as store:
        for number in range(3):
            put(store, tmp_path, number)
        store.put("alias", docker_save(tmp_path / "alias.tar", {"alias": [big]})).get(timeout=TIMEOUT)
        with store.put("big", docker_save(tmp_path / "big.tar", {"big": [big]}), lease=True).get(timeout=TIMEOUT):
            pruned = store.prune(budget_bytes=500_000).get(timeout=TIMEOUT)

    assert (pruned.images, pruned.freed_bytes, pruned.is_out_of_reach) == ((), 0, True)
    assert 1 << 20 < pruned.least_bytes < pruned.kept_bytes


def test_configs_and_names_count_for_the_budget(tmp_path: Path) -> None:
    with LocalStore.start(tmp_path / "store", durable=False, workers=1, budget_bytes=200_000) as store:
        for number in range(6):
            large = docker_save(tmp_path / f"{number}.tar", {f"app:{number}": []}, comment=f"{number}" * 60_000)
            store.put(f"app:{number}", large).get(timeout=TIMEOUT)
            time.sleep(0.01)  # their times tell which one was used first

        wait_until(lambda: names(store) == ["app:3", "app:4", "app:5"])
        assert store.usage().get(timeout=TIMEOUT).bytes <= 200_000


def test_a_budget_of_inodes_forgets_images_of_many_files(tmp_path: Path) -> None:
    with LocalStore.start(tmp_path / "store", durable=False, workers=1, budget_inodes=250) as store:
        for number in range(4):
            files = layer({f"{number}/{n}": b"" for n in range(100)})
            store.put(f"app:{number}", docker_save(tmp_path / "a.tar", {"a": [files]}, number=number)).get(
                timeout=TIMEOUT
            )
            time.sleep(0.01)

        wait_until(lambda: names(store) == ["app:2", "app:3"])
        assert 2 * 100 < store.usage().get(timeout=TIMEOUT).inodes <= 250
        large = docker_save(tmp_path / "l.tar", {"l": [layer({f"{n}": b"" for n in range(300)})]})
        with pytest.raises(OverBudgetError, match="may take 250 inodes, and the image alone takes at least 30"):
            store.put("large", large).get(timeout=TIMEOUT)
        assert names(store) == ["app:2", "app:3"]


def test_a_load_keeps_all_its_images_until_it_is_done(store: LocalStore, tmp_path: Path) -> None:
    put(store, tmp_path, 0)
    many = docker_save(tmp_path / "many.tar", {f"m:{n}": [SMALL[n]] for n in range(1, 6)})

    images = store.load(many).get(timeout=TIMEOUT)

    assert [image.name for image in images] == [f"m:{n}" for n in range(1, 6)]
    wait_until(lambda: names(store) == ["m:3", "m:4", "m:5"])


def test_a_load_of_many_images_holds_one_lease(tmp_path: Path) -> None:
    many = docker_save(tmp_path / "many.tar", {f"m:{n}": [SMALL[n % 6]] for n in range(60)})
    most = 0

    def look(_: object) -> None:
        nonlocal most
        most = max(most, len(os.listdir(tmp_path / "store" / "leases")))

    with LocalStore.start(tmp_path / "store", durable=False, workers=1) as store:
        images = store.load(many, progress=look).get(timeout=TIMEOUT)

    assert len(images) == 60
    assert most == 1


def test_images_that_share_layers_share_what_is_said_of_them(tmp_path: Path) -> None:
    many = docker_save(tmp_path / "many.tar", {f"m:{n}": SMALL[:3] for n in range(4)})

    with LocalStore.start(tmp_path / "store", durable=False, workers=1) as store:
        images = store.load(many).get(timeout=TIMEOUT)
        listed = store.list().get(timeout=TIMEOUT)

    assert images == listed
    for some in (images, listed):
        assert len({id(layer) for image in some for layer in image.layers}) == 3


def over_budget(store: LocalStore, directory: Path, numbers: Iterable[int] = range(4)) -> list[LeasedImage]:
    """Put more images than there is room for, each with a lease."""
    leased = [store.put(f"app:{n}", archive(directory, n), lease=True).get(timeout=TIMEOUT) for n in numbers]
    for number, each in zip(numbers, leased, strict=True):
        use = 1000 + number
        os.utime(
            each.image.layers[0].path.parents[2] / "configs" / str(each.image.config_digest).replace(":", "-"),
            (use, use),
        )
    assert store.usage().get(timeout=TIMEOUT).bytes > BUDGET
    return leased


def watches() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "imagestore-lease-watch"]


def test_a_budget_holds_again_when_a_lease_is_released(store: LocalStore, tmp_path: Path) -> None:
    leased = over_budget(store, tmp_path)

    leased[2].release()

    wait_until(lambda: names(store) == ["app:0", "app:1", "app:3"])
    assert store.usage().get(timeout=TIMEOUT).bytes <= BUDGET
    wait_until(lambda: watches() == [])
    for each in leased:
        each.release()
    assert names(store) == ["app:0", "app:1", "app:3"]


def test_a_budget_holds_again_when_many_leases_end_at_once(store: LocalStore, tmp_path: Path) -> None:
    leased = over_budget(store, tmp_path, range(6))

    for each in leased:
        each.release()

    wait_until(lambda: store.usage().get(timeout=TIMEOUT).bytes <= BUDGET)
    assert len(names(store)) == 3


def test_a_budget_holds_again_when_nobody_has_the_lease_any_more(store: LocalStore, tmp_path: Path) -> None:
    leased = over_budget(store, tmp_path)

    cycle: list[object] = [leased.pop()]
    cycle.append(cycle)
    del cycle
    gc.collect()

    wait_until(lambda: names(store) == ["app:0", "app:1", "app:2"])
    assert len(leased) == 3


@pytest.mark.parametrize("end", ["release", "kill"])
def test_a_budget_holds_again_when_a_lease_of_another_process_ends(store: LocalStore, tmp_path: Path, end: str) -> None:
    leased = over_budget(store, tmp_path)
    with Program(HOLDER, tmp_path / "store", leased[0].token) as other:
        other.line()
        leased[0].release()
        store.prune(budget_bytes=BUDGET).get(timeout=TIMEOUT)
        assert len(names(store)) == 4

        other.kill() if end == "kill" else other.tell()

        wait_until(lambda: names(store) == ["app:1", "app:2", "app:3"])


def test_a_budget_holds_again_when_a_lease_of_a_closed_store_ends(store: LocalStore, tmp_path: Path) -> None:
    with LocalStore.start(tmp_path / "store", durable=False, workers=1) as other:
        outlived = other.put("app:0", archive(tmp_path, 0), lease=True).get(timeout=TIMEOUT)
    leased = over_budget(store, tmp_path)
    leased[0].release()
    store.prune(budget_bytes=BUDGET).get(timeout=TIMEOUT)
    assert len(names(store)) == 4

    outlived.release()

    wait_until(lambda: names(store) == ["app:1", "app:2", "app:3"])


def test_a_closed_store_does_nothing_when_leases_end(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        pool = WorkerPool(executor=threads)
        with LocalStore.start(tmp_path / "store", durable=False, budget_bytes=BUDGET, pool=pool) as store:
            leased = over_budget(store, tmp_path)
            assert watches() != []
    assert watches() == []

    for each in leased:
        each.release()

    with LocalStore.start(tmp_path / "store", durable=False, workers=1) as other:
        assert len(names(other)) == 4


def test_nothing_is_watched_while_a_budget_holds(store: LocalStore, tmp_path: Path) -> None:
    for number in range(5):
        store.put(f"app:{number}", archive(tmp_path, number), lease=True).get(timeout=TIMEOUT).release()

    wait_until(lambda: watches() == [])
    assert len(names(store)) == 3


def test_a_store_that_cannot_watch_leases_says_so_and_the_next_put_prunes(
    store: LocalStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with patch(seams.WATCH_LEASES, side_effect=OSError(errno.EMFILE, "injected")):
        leased = over_budget(store, tmp_path)
    for each in leased:
        each.release()
    assert len(names(store)) == 4

    put(store, tmp_path, 4)

    assert len(names(store)) == 3
    assert "stays over its budget until the next put, even if leases end: [Errno 24] injected" in caplog.text


def test_tasks_that_lease_images_under_a_budget_never_miss_one(tmp_path: Path) -> None:
    """See benchmarks/budget.py for more of them."""
    archives = [archive(tmp_path, number) for number in range(len(SMALL))]

    def work(store: LocalStore, number: int) -> bool:
        with store.put(f"app:{number}", archives[number], lease=True).get(timeout=TIMEOUT) as leased:
            return (leased.image.layers[0].path / str(number) / "file").is_file()

    with (
        ThreadPoolExecutor(2) as workers,
        ThreadPoolExecutor(8) as tasks,
        LocalStore.start(
            tmp_path / "store", durable=False, budget_bytes=60 << 10, pool=WorkerPool(executor=workers)
        ) as store,
    ):
        choose = random.Random(3)
        numbers = [choose.randrange(len(SMALL)) for _ in range(150)]

        assert all(tasks.map(work, [store] * len(numbers), numbers))
        wait_until(lambda: store.usage().get(timeout=TIMEOUT).bytes <= 60 << 10)


class Pipe:
    """An archive that comes when the test says so: puts that name it meanwhile are one."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._ours, self._theirs = os.pipe()
        self.path = f"/proc/{os.getpid()}/fd/{self._ours}"

    def write(self) -> None:
        os.write(self._theirs, self._archive.read_bytes())
        os.close(self._theirs)

    def close(self) -> None:
        os.close(self._ours)


def test_each_caller_of_one_put_who_wants_a_lease_has_one_of_its_own(store: LocalStore, tmp_path: Path) -> None:
    pipe, leases = Pipe(archive(tmp_path, 0)), tmp_path / "store" / "leases"
    plain = [store.put("app:0", pipe.path) for _ in range(2)]
    wanted = [store.put("app:0", pipe.path, lease=True) for _ in range(3)]
    plain.append(store.put("app:0", pipe.path))

    pipe.write()
    leased = [put.get(timeout=TIMEOUT) for put in wanted]

    assert {put.get(timeout=TIMEOUT) for put in plain} == {each.image for each in leased}
    assert sorted(each.token for each in leased) == sorted(os.listdir(leases))
    assert [lease.purpose for lease in store.usage().get(timeout=TIMEOUT).leases] == ["lease of app:0"] * 3
    for left in (2, 1):
        leased.pop().release()
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        assert (names(store), len(os.listdir(leases))) == (["app:0"], left)
    leased.pop().release()
    store.prune(budget_bytes=0).get(timeout=TIMEOUT)
    assert names(store) == []
    pipe.close()


@pytest.mark.parametrize("end", ["discard", "drop", "discard when it is there"])
def test_a_leased_put_that_nobody_wants_any_more_leaves_no_lease(store: LocalStore, tmp_path: Path, end: str) -> None:
    pipe, leases = Pipe(archive(tmp_path, 0)), tmp_path / "store" / "leases"
    other = store.put("app:0", pipe.path)
    given_up = store.put("app:0", pipe.path, lease=True)
    if end == "discard":
        given_up.discard()
        given_up.on_any(lambda _: pipe.write())
    else:
        pipe.write()
        given_up.on_any(lambda given_up: end != "drop" and given_up.discard())

    other.get(timeout=TIMEOUT)
    given_up.recover(lambda _: None).get(timeout=TIMEOUT)
    assert given_up.is_discarded() == (end == "discard")
    del given_up, other

    wait_until(lambda: os.listdir(leases) == [])
    pipe.close()


def test_a_lease_that_cannot_be_given_fails_the_put_of_its_caller_alone(store: LocalStore, tmp_path: Path) -> None:
    pipe = Pipe(archive(tmp_path, 0))
    plain = store.put("app:0", pipe.path)
    with patch(seams.LEASE_IMAGE, side_effect=OSError(errno.EMFILE, "injected")):
        wanted = store.put("app:0", pipe.path, lease=True)
        pipe.write()
        with pytest.raises(OSError, match="injected"):
            wanted.get(timeout=TIMEOUT)

    assert plain.get(timeout=TIMEOUT).name == "app:0"
    pipe.close()


@pytest.mark.parametrize("options", [{"keep": "app"}, {"budget_bytes": -1}, {"unused_for": -0.1}, {"keep": ["A B"]}])
def test_a_prune_that_is_not_meant_so_is_refused(store: LocalStore, tmp_path: Path, options: dict[str, Any]) -> None:
    put(store, tmp_path, 0)

    with pytest.raises(InvalidInputError):
        store.prune(**options).get(timeout=TIMEOUT)

    assert names(store) == ["app:0"]


def test_a_dry_run_of_a_prune_tells_and_changes_nothing(store: LocalStore, tmp_path: Path) -> None:
    put(store, tmp_path, 0)

    pruned = store.prune(budget_bytes=0, dry_run=True).get(timeout=TIMEOUT)

    assert [image.name for image in pruned.images] == names(store) == ["app:0"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # what the store does by itself: there is nothing to wait on
