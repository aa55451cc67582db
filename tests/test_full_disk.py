"""A disk without a free byte, or without an inode: what makes room works, and so do leases; and then puts again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from device import new_device, why_not
from support.containers import provisioning
from support.images import docker_save, layer
from support.processes import TIMEOUT
from support.stores import opened

from pykka_imagestore import ImageInfo, LocalStore
from pykka_imagestore.durable.disk import Disk

IMAGES = 30
LEASES = 6
LONG = "x" * 100
BASE = layer({"etc/os-release": b"ID=test\n"})

pytestmark = pytest.mark.root


@contextlib.contextmanager
def ext4(directory: Path) -> Iterator[Path]:
    reason = why_not(directory)
    if reason is not None:
        pytest.skip(reason)
    with new_device(directory, "12M") as device:
        yield device.directory


@contextlib.contextmanager
def tmpfs(directory: Path) -> Iterator[Path]:
    mount = directory / "mounted"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m,nr_inodes=2000", "none", str(mount)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs a tmpfs, which cannot be had here: {mounted.stderr.decode().strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)  # what failed may have files open yet


DISKS = {"ext4": ext4, "tmpfs": tmpfs}


@pytest.fixture(params=[*DISKS])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with DISKS[request.param](tmp_path) as directory:
        yield directory


def name(number: int) -> str:
    return f"{LONG}:{number}"


def put_images(store: LocalStore, directory: Path) -> list[ImageInfo]:
    """Put many, whose names are long: a removal of each is more than a block of the journal."""
    archive = docker_save(
        directory / "all.tar", {name(n): [BASE, layer({f"{n}": b"%d" % n * 5000})] for n in range(IMAGES)}
    )
    return list(store.load(archive).get(timeout=TIMEOUT))


def fill(disk: Path, what: str) -> None:
    """Leave no byte, or no inode, of a file system, where room that was kept or deleted is free a little later only."""
    filler = disk / "filler"
    filler.mkdir(exist_ok=True)
    Disk().sync_file_system(disk)
    while take_bytes(filler) if what == "byte" else take_inodes(filler):
        Disk().sync_file_system(disk)


def take_bytes(filler: Path) -> int:
    """Write files as long as there is room; return how many."""
    size, written = 1 << 20, 0
    while size >= 512:
        try:
            (filler / f"{size}-{os.urandom(4).hex()}").write_bytes(bytes(size))
            written += 1
        except OSError:
            size //= 2
    return written


def take_inodes(filler: Path) -> int:
    made = 0
    with contextlib.suppress(OSError):
        while True:
            (filler / os.urandom(8).hex()).touch()
            made += 1
    return made


def empty(disk: Path) -> None:
    subprocess.run(["rm", "-rf", disk / "filler"], check=True)
    Disk().sync_file_system(disk)


def require_full(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        (disk / "store" / "one-more").write_bytes(b"x")
    (disk / "store" / "one-more").unlink(missing_ok=True)


@pytest.mark.parametrize("what", ["byte", "inode"])
def test_images_are_removed_one_by_one_while_somebody_fills_the_disk_again(
    disk: Path, tmp_path: Path, what: str
) -> None:
    with opened(disk / "store") as store:
        put_images(store, tmp_path)
        for number in range(IMAGES):
            fill(disk, what)
            require_full(disk)

            assert store.remove(name(number)).get(timeout=TIMEOUT).name == name(number)

            store.swept().get(timeout=TIMEOUT)
        assert store.list().get(timeout=TIMEOUT) == ()
        assert os.listdir(disk / "store" / "layers") == []


@pytest.mark.parametrize("what", ["byte", "inode"])
def test_a_prune_makes_room_on_a_disk_that_was_full_when_the_store_was_opened(
    disk: Path, tmp_path: Path, what: str
) -> None:
    with opened(disk / "store") as store:
        images = put_images(store, tmp_path)
    fill(disk, what)
    require_full(disk)

    with opened(disk / "store") as store:
        pruned = store.prune(keep=[name(0)], budget_bytes=0).get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)

        assert len(pruned.images) == IMAGES - 1
        assert store.list().get(timeout=TIMEOUT) == (images[0],)
        more = docker_save(tmp_path / "more.tar", {"more": [layer({"more": b"more"})]})
        assert store.put("more", more).get(timeout=TIMEOUT).name == "more:latest"


@pytest.mark.parametrize("what", ["byte", "inode"])
def test_leases_are_taken_handed_on_and_released_on_a_full_disk(disk: Path, tmp_path: Path, what: str) -> None:
    with opened(disk / "store") as store:
        images = put_images(store, tmp_path)
        fill(disk, what)
        require_full(disk)

        leased = [store.get(name(n), lease=True).get(timeout=TIMEOUT) for n in range(LEASES)]
        leased += [store.take_over(each.token).get(timeout=TIMEOUT) for each in leased]

        pruned = store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        assert {image.name for image in pruned.images} == {name(n) for n in range(LEASES, IMAGES)}
        assert [each.image for each in leased] == images[:LEASES] * 2
        for each in leased:
            each.release()
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        assert store.list().get(timeout=TIMEOUT) == ()


def test_a_put_fails_on_a_full_disk_and_leaves_the_reserve_to_what_makes_room(disk: Path, tmp_path: Path) -> None:
    with opened(disk / "store") as store:
        put_images(store, tmp_path)
        reserve = disk / "store" / "reserve"
        more = docker_save(tmp_path / "more.tar", {"more": [layer({"more": b"more" * 10_000})]})
        fill(disk, "byte")
        before = sorted(os.listdir(reserve))

        for _ in range(5):
            with pytest.raises(OSError, match="No space left on device"):
                store.put("more", more).get(timeout=TIMEOUT)

        assert sorted(os.listdir(reserve)) == before
        empty(disk)
        assert store.put("more", more).get(timeout=TIMEOUT).name == "more:latest"


def test_the_reserve_is_made_again_when_there_is_room(disk: Path, tmp_path: Path) -> None:
    with opened(disk / "store") as store:
        put_images(store, tmp_path)
        reserve = disk / "store" / "reserve"
        whole = len(os.listdir(reserve))
        fill(disk, "byte")
        leased = [store.get(name(n), lease=True).get(timeout=TIMEOUT) for n in range(LEASES)]
        given_up = whole - len(os.listdir(reserve))
        empty(disk)

        store.remove(name(20)).get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)

        assert given_up > 0
        assert len(os.listdir(reserve)) == whole
        for each in leased:
            each.release()


@pytest.mark.parametrize("what", ["byte", "inode"])
def test_containers_of_an_agent_that_ended_are_adopted_and_removed(disk: Path, tmp_path: Path, what: str) -> None:
    with opened(disk / "store") as store:
        store.put("app:1", docker_save(tmp_path / "app.tar", {"app:1": [BASE]})).get(timeout=TIMEOUT)
        with provisioning(store) as before:
            for box in ("known", "unknown"):
                before.provision(box, "app:1").get(timeout=TIMEOUT)
        fill(disk, what)

        with provisioning(store) as after:
            recovery = after.recover(["known"]).get(timeout=TIMEOUT)

            assert [rootfs.container_id for rootfs in recovery.adopted] == ["known"]
            assert (recovery.lost, recovery.destroyed, recovery.left) == ((), ("unknown",), ())
