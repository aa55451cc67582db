"""Provisioner with the backends of this machine: where mounts are, what becomes of them, and of work under way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import seams
from support.images import docker_save, layer, long_layer, worker_pids
from support.processes import TIMEOUT, names, wait_for
from support.rootfs import names_in, points_below, read, write
from support.stores import opened

from pykka_imagestore import InvalidInputError, LocalStore, Provisioner, Rootfs, RootfsError
from pykka_imagestore.runtime import DiscardedError, Future, WorkerDiedError

pytestmark = [pytest.mark.root, pytest.mark.overlay, pytest.mark.usefixtures("mounts")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    layers = [layer({"etc/hosts": b"lower", "etc/group": b""}), layer({"etc/hosts": b"upper"})]
    archive = docker_save(tmp_path / "app.tar", {"app:1": layers, "one:1": layers[:1]})
    with opened(tmp_path / "store", durable=False) as store:
        store.load(archive).get(timeout=TIMEOUT)
        yield store


@pytest.fixture
def provisioner(store: LocalStore) -> Iterator[Provisioner]:
    with Provisioner.start(store, durable=False) as provisioner:
        yield provisioner


@pytest.mark.parametrize(
    ("image", "read_only", "backend"),
    [("app:1", False, "overlay"), ("app:1", True, "overlay"), ("one:1", True, "bind")],
)
def test_the_best_that_works_is_taken_and_told(
    provisioner: Provisioner, tmp_path: Path, image: str, read_only: bool, backend: str
) -> None:
    rootfs = provisioner.provision("box-1", image, read_only=read_only).get(timeout=TIMEOUT)

    assert (rootfs.backend, rootfs.namespace_pid) == (backend, None)
    assert "works here" in rootfs.reason
    assert names_in(rootfs.fd, "etc") == ["group", "hosts"]
    assert points_below(tmp_path) == [rootfs.path]
    provisioner.destroy("box-1").get(timeout=TIMEOUT)
    assert points_below(tmp_path) == []


def test_a_kernel_that_tells_no_mounts_number_is_asked_through_proc(
    provisioner: Provisioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seams.MOUNT_NUMBER, lambda *_: None)  # before Linux 5.8
    (tmp_path / "target").mkdir()
    for container_id, target in [("box-1", None), ("box-2", tmp_path / "target")]:
        rootfs = provisioner.provision(container_id, "app:1", target=target).get(timeout=TIMEOUT)
        assert points_below(tmp_path) == [rootfs.path]

        provisioner.destroy(container_id).get(timeout=TIMEOUT)

        assert points_below(tmp_path) == []


@pytest.mark.parametrize("is_symlink", [False, True])
@pytest.mark.parametrize("backend", ["overlay", "copy", "link"])
def test_target_is_where_it_is_found_also_by_the_next_process(
    store: LocalStore, tmp_path: Path, backend: str, is_symlink: bool
) -> None:
    target = tmp_path / "target"
    (tmp_path / "real").mkdir()
    if is_symlink:
        target.symlink_to("real")
    else:
        target.mkdir()
    is_read_only = backend == "link"
    with Provisioner.start(store) as before:
        rootfs = before.provision("box-1", "app:1", backend=backend, target=target, read_only=is_read_only)
        assert rootfs.get(timeout=TIMEOUT).path == str(target)

    with Provisioner.start(store) as after:
        (adopted,) = after.recover(["box-1"]).get(timeout=TIMEOUT).adopted
        assert adopted.path == str(target)
        assert read(adopted.fd, "etc/hosts") == "upper"
        after.destroy("box-1").get(timeout=TIMEOUT)
    assert (points_below(tmp_path), names(target)) == ([], [])


@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_target_that_was_moved_is_found(provisioner: Provisioner, tmp_path: Path, backend: str) -> None:
    target = tmp_path / "above" / "target"
    target.mkdir(parents=True)
    provisioner.provision("box-1", "app:1", backend=backend, target=target).get(timeout=TIMEOUT)
    other = provisioner.provision("box-2", "app:1", backend=backend).get(timeout=TIMEOUT)
    target.parent.rename(tmp_path / "moved")

    provisioner.destroy("box-1").get(timeout=TIMEOUT)

    assert points_below(tmp_path) == [other.path]
    provisioner.destroy("box-2").get(timeout=TIMEOUT)


@pytest.mark.parametrize(("image", "backend"), [("app:1", "overlay"), ("app:1", "copy"), ("one:1", "bind")])
def test_symlink_of_another_user_in_place_of_a_target_keeps_no_container(
    provisioner: Provisioner, tmp_path: Path, image: str, backend: str
) -> None:
    target, elsewhere = tmp_path / "above" / "target", tmp_path / "elsewhere"
    target.mkdir(parents=True)
    elsewhere.mkdir()
    order = provisioner.provision("box-1", image, backend=backend, read_only=backend == "bind", target=target)
    order.get(timeout=TIMEOUT)
    target.parent.rename(tmp_path / "moved")
    target.parent.symlink_to(elsewhere)
    os.lchown(target.parent, 54321, 54321)

    provisioner.destroy("box-1").get(timeout=TIMEOUT)

    assert (points_below(tmp_path), names(tmp_path / "store/containers")) == ([], [])


def test_layer_is_unmounted_though_its_target_was_moved_and_another_container_shows_it_too(
    provisioner: Provisioner, tmp_path: Path
) -> None:
    targets = [tmp_path / name / "target" for name in ("above", "other")]
    for number, target in enumerate(targets):
        target.mkdir(parents=True)
        order = provisioner.provision(f"box-{number}", "one:1", backend="bind", read_only=True, target=target)
        order.get(timeout=TIMEOUT)
    targets[0].parent.rename(tmp_path / "moved")

    provisioner.destroy("box-0").get(timeout=TIMEOUT)

    assert points_below(tmp_path) == [str(targets[1])]
    provisioner.destroy("box-1").get(timeout=TIMEOUT)
    assert points_below(tmp_path) == []


@pytest.mark.parametrize("is_adopted", [False, True])
def test_what_a_runtime_mounted_in_a_plain_copy_comes_off_with_it(
    store: LocalStore, tmp_path: Path, is_adopted: bool
) -> None:
    with Provisioner.start(store) as before:
        rootfs = before.provision("box-1", "app:1", backend="copy", for_runtime=True).get(timeout=TIMEOUT)
        assert points_below(tmp_path) == []
        for place in (f"{rootfs.path}/etc", f"{rootfs.path}/etc/inner"):
            Path(place).mkdir(exist_ok=True)
            assert os.system(f"mount -t tmpfs -o size=1m none {place}") == 0
        if not is_adopted:
            before.destroy("box-1").get(timeout=TIMEOUT)
    if is_adopted:
        with Provisioner.start(store) as after:
            after.recover(["box-1"]).get(timeout=TIMEOUT)
            after.destroy("box-1").get(timeout=TIMEOUT)

    assert points_below(tmp_path) == []
    wait_for(lambda: names(tmp_path / "store/gc") == [])


def test_target_that_is_not_empty_is_refused_and_nothing_is_left(provisioner: Provisioner, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        provisioner.provision("box-1", "app:1", target=tmp_path).get(timeout=TIMEOUT)

    assert names(tmp_path / "store/containers") == []


def test_what_is_attached_nowhere_is_found_by_its_descriptor_alone(provisioner: Provisioner, tmp_path: Path) -> None:
    rootfs = provisioner.provision("box-1", "app:1", attach=False).get(timeout=TIMEOUT)
    write(rootfs.fd, "etc/new", "written")

    assert (rootfs.path, points_below(tmp_path)) == (None, [])
    assert read(rootfs.fd, "etc/new") == "written"
    provisioner.close()
    with opened(tmp_path / "store") as store, Provisioner.start(store) as after:
        assert after.recover(["box-1"]).get(timeout=TIMEOUT).lost == ("box-1",)


def test_container_that_somebody_unmounted_is_lost(store: LocalStore) -> None:
    with Provisioner.start(store) as before:
        path = before.provision("box-1", "app:1").get(timeout=TIMEOUT).path
    assert os.system(f"umount {path}") == 0

    with Provisioner.start(store) as after:
        assert after.recover(["box-1"]).get(timeout=TIMEOUT).lost == ("box-1",)


@pytest.mark.parametrize(("backend", "read_only"), [("copy", False), ("copy", True), ("link", True)])
def test_files_that_nothing_shows_any_more_are_shown_again(
    store: LocalStore, tmp_path: Path, backend: str, read_only: bool
) -> None:
    with Provisioner.start(store) as before:
        rootfs = before.provision("box-1", "app:1", backend=backend, read_only=read_only).get(timeout=TIMEOUT)
        flags = os.fstatvfs(rootfs.fd).f_flag
    assert os.system(f"umount {rootfs.path}") == 0

    with Provisioner.start(store) as after:
        (adopted,) = after.recover(["box-1"]).get(timeout=TIMEOUT).adopted
        assert (adopted.path, points_below(tmp_path)) == (rootfs.path, [rootfs.path])
        assert os.fstatvfs(adopted.fd).f_flag == flags
        assert read(adopted.fd, "etc/hosts") == "upper"
        after.destroy("box-1").get(timeout=TIMEOUT)
    assert points_below(tmp_path) == []


def test_recovery_unmounts_what_waits_to_be_deleted(store: LocalStore, tmp_path: Path) -> None:
    with Provisioner.start(store) as before:
        before.provision("box-1", "app:1").get(timeout=TIMEOUT)
    waiting = tmp_path / "store/gc" / "0123456789abcdef"
    waiting.mkdir()
    (waiting / "lock").touch()
    (tmp_path / "store/containers/box-1").rename(waiting / "container.0")
    assert points_below(tmp_path) != []

    with Provisioner.start(store) as after:
        after.recover().get(timeout=TIMEOUT)
        assert points_below(tmp_path) == []
        wait_for(lambda: names(tmp_path / "store/gc") == [])


def test_bound_that_the_file_system_cannot_keep_is_refused_in_a_sentence(
    provisioner: Provisioner, tmp_path: Path
) -> None:
    with pytest.raises(RootfsError, match="quota"):
        provisioner.provision("box-1", "app:1", upper_bytes=1 << 20).get(timeout=TIMEOUT)

    assert not (tmp_path / "store/containers").exists()


@contextmanager
def copying(directory: Path, workers: int) -> Iterator[tuple[Provisioner, Future[Rootfs]]]:
    """Lend a provisioner that is copying a long layer for ``box-1``, in a store below a directory.

    What is deleted in the background is gone in the end.
    """
    archive = docker_save(directory / "long.tar", {"long:1": [long_layer()]})
    with LocalStore.start(directory / "store", durable=False, workers=workers) as store:
        store.put("long:1", archive).get(timeout=TIMEOUT)
        with Provisioner.start(store, durable=False) as provisioner:
            coming = provisioner.provision("box-1", "long:1", backend="copy")
            wait_for(lambda: any((directory / "store/containers").glob("box-1/rootfs/f/*")))
            yield provisioner, coming
        store.swept().get(timeout=TIMEOUT)
        wait_for(lambda: names(directory / "store/gc") == [])


@pytest.mark.parametrize("end", ["discard", "destroy", "close"])
def test_copying_is_stopped_and_nothing_of_it_is_left(tmp_path: Path, end: str) -> None:
    with copying(tmp_path, workers=2) as (provisioner, coming):
        if end == "discard":
            coming.discard()
        elif end == "destroy":
            provisioner.destroy("box-1").get(timeout=TIMEOUT)
        else:
            provisioner.close()

        with pytest.raises(DiscardedError):
            coming.get(timeout=TIMEOUT)
        assert names(tmp_path / "store/containers") == []


def test_killed_worker_costs_no_container(tmp_path: Path) -> None:
    with copying(tmp_path, workers=1) as (provisioner, coming):
        for pid in worker_pids():
            os.kill(pid, 9)

        rootfs = coming.recover(lambda future: future.error()).get(timeout=TIMEOUT)

        assert not isinstance(rootfs, Exception) or isinstance(rootfs, WorkerDiedError)
        found = sum(len(names(each)) for each in (tmp_path / "store/containers/box-1/rootfs/f").iterdir())
        assert found == 40_000
        provisioner.destroy("box-1").get(timeout=TIMEOUT)
