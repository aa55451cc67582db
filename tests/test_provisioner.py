"""Provisioner: containers are made whole or not at all, keep what they need, and go without leaving anything."""

from __future__ import annotations

import errno
import os
import re
import select
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pykka
import pytest
from support import seams
from support.containers import Plain, provisioning, refused
from support.images import docker_save, layer
from support.processes import TIMEOUT, names, wait_for
from support.stores import opened

from pykka_imagestore import (
    ContainerDestroyed,
    ContainerExistsError,
    ContainerHeldError,
    ContainerNotFoundError,
    ContainerProvisioned,
    ContainerRecordError,
    ContainerRecovery,
    ImageInfo,
    InvalidInputError,
    InvalidNameError,
    LocalStore,
    MisplacedFileError,
    NotFoundError,
    Provisioner,
    Rootfs,
    RootfsError,
    StateError,
    StoreClosedError,
)
from pykka_imagestore.core.container import Container
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.durable.containers import read_container
from pykka_imagestore.durable.layout import find_missing
from pykka_imagestore.jobs.export_tar import ExportedTar
from pykka_imagestore.provisioner import THREADS, WRITERS
from pykka_imagestore.runtime import DiscardedError, Future

PATIENCE = 30  # seconds, for what another export must not hold up


@pytest.fixture
def paths(tmp_path: Path) -> StorePaths:
    return StorePaths(tmp_path / "store")


@pytest.fixture
def image(store: LocalStore, tmp_path: Path) -> ImageInfo:
    layers = [layer({"etc/hosts": b"lower"}), layer({"etc/hosts": b"upper", "bin/sh": b"#!"})]
    archive = docker_save(tmp_path / "app.tar", {"app:1": layers}, config={"Cmd": ["sh"], "Env": ["A=1"]})
    return store.put("app:1", archive).get(timeout=TIMEOUT)


@pytest.fixture
def backend() -> Plain:
    return Plain()


@pytest.fixture
def provisioner(store: LocalStore, image: ImageInfo, backend: Plain) -> Iterator[Provisioner]:
    assert image.name == "app:1"
    with provisioning(store, backend) as provisioner:
        yield provisioner


def require_nothing_left(paths: StorePaths) -> None:
    """Require that no container is there, and that what there was of any is deleted."""
    assert names(paths.containers) == []
    wait_for(lambda: names(paths.gc) == [])
    assert all(names(directory) == ["lock"] for directory in paths.staging.iterdir())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- provision


def test_container_has_what_its_image_is_of_and_how_it_is_to_be_run(
    provisioner: Provisioner, backend: Plain, image: ImageInfo, paths: StorePaths
) -> None:
    rootfs = provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)

    (request,) = backend.requests
    assert [each.path for each in request.layers][:2] == [str(each.path) for each in image.layers]
    assert request.directory == str(paths.containers / "box-1")
    assert (rootfs.container_id, rootfs.backend) == ("box-1", "copy")
    assert rootfs.path == str(paths.containers / "box-1/rootfs")
    assert (rootfs.config.command, rootfs.config.environment) == (("sh",), (("A", "1"),))
    assert os.path.samestat(os.stat(rootfs.fd), os.stat(rootfs.path))
    assert repr(rootfs) == f"<Rootfs of 'box-1': copy at {rootfs.path!r}, fd {rootfs.fd}>"


def test_list_shows_the_containers_of_all_processes(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths
) -> None:
    with provisioning(store, owner="other") as other:
        provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
        other.provision("box-2", "app:1", attach=False, read_only=True).get(timeout=TIMEOUT)
        with opened(paths.root) as elsewhere, provisioning(elsewhere) as third:
            first, second = third.list().get(timeout=TIMEOUT)

    assert (first.container_id, first.image, first.backend, first.owner) == ("box-1", "app:1", "copy", "default")
    assert (first.path, first.read_only, first.is_held) == (str(paths.containers / "box-1/rootfs"), False, True)
    assert (second.container_id, second.path, second.read_only, second.owner) == ("box-2", None, True, "other")


def test_image_whose_config_is_gone_is_named_and_nothing_is_left(
    provisioner: Provisioner, image: ImageInfo, paths: StorePaths
) -> None:
    paths.config(str(image.config_digest)).unlink()

    with pytest.raises(NotFoundError, match="app:1 with a config"):
        provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)

    assert not paths.containers.exists()


@pytest.mark.parametrize("is_same_process", [True, False])
def test_id_that_is_taken_is_refused_and_what_has_it_stays(
    provisioner: Provisioner, paths: StorePaths, is_same_process: bool
) -> None:
    rootfs = provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)

    with opened(paths.root) as elsewhere, provisioning(elsewhere) as other:
        again = (provisioner if is_same_process else other).provision("box-1", "app:1")
        with pytest.raises(ContainerExistsError, match="box-1"):
            again.get(timeout=TIMEOUT)
        assert os.listdir(rootfs.path or "") == []
        assert [each.container_id for each in provisioner.list().get(timeout=TIMEOUT)] == ["box-1"]


@pytest.mark.usefixtures("image")
def test_one_id_wanted_by_many_at_once_is_had_by_one(store: LocalStore, paths: StorePaths) -> None:
    with provisioning(store) as one, opened(paths.root) as elsewhere, provisioning(elsewhere) as other:
        wanted = [provisioner.provision("box-1", "app:1") for provisioner in [one, other] * 10]
        ends = [each.recover(lambda future: future.error()).get(timeout=TIMEOUT) for each in wanted]
        one.destroy("box-1").recover(lambda _: other.destroy("box-1")).get(timeout=TIMEOUT)
        for provisioner in (one, other):
            provisioner.swept().get(timeout=TIMEOUT)  # a store that is closed leaves that to the next one

    assert sum(isinstance(end, Rootfs) for end in ends) == 1
    assert sum(isinstance(end, ContainerExistsError) for end in ends) == 19
    require_nothing_left(paths)


def test_image_may_be_named_by_the_digest_of_its_config(provisioner: Provisioner, image: ImageInfo) -> None:
    provisioner.provision("box-1", image.config_digest or "").get(timeout=TIMEOUT)

    (container,) = provisioner.list().get(timeout=TIMEOUT)
    assert container.image == "app:1"


def test_image_that_is_not_there_makes_no_container(provisioner: Provisioner, paths: StorePaths) -> None:
    with pytest.raises(NotFoundError, match="app:2"):
        provisioner.provision("box-1", "app:2").get(timeout=TIMEOUT)

    assert not paths.containers.exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"container_id": ""}, InvalidInputError),
        ({"container_id": ".hidden"}, InvalidInputError),
        ({"container_id": "a/b"}, InvalidInputError),
        ({"container_id": "a" * 129}, InvalidInputError),
        ({"container_id": 1}, InvalidInputError),
        ({"name": "Not A Name"}, InvalidNameError),
        ({"name": None}, InvalidInputError),
        ({"backend": "aufs"}, InvalidInputError),
        ({"read_only": 1}, InvalidInputError),
        ({"attach": "no"}, InvalidInputError),
        ({"for_runtime": None}, InvalidInputError),
        ({"target": ""}, InvalidInputError),
        ({"target": "/mnt", "attach": False}, InvalidInputError),
        ({"upper_bytes": 0}, InvalidInputError),
        ({"upper_bytes": 1 << 20, "read_only": True}, InvalidInputError),
    ],
)
def test_argument_that_makes_no_sense_fails_the_future(
    provisioner: Provisioner, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        provisioner.provision(**{"container_id": "box-1", "name": "app:1", **arguments}).get(timeout=TIMEOUT)


@pytest.mark.parametrize("arguments", [{"owner": "no owner"}, {"owner": None}, {"durable": 1}])
def test_parameter_that_makes_no_sense_starts_nothing(store: LocalStore, arguments: dict[str, Any]) -> None:
    threads = threading.active_count()
    with pytest.raises(InvalidInputError):
        Provisioner.start(store, **arguments)
    with pytest.raises(InvalidInputError, match="a LocalStore"):
        Provisioner.start("store")  # type: ignore[arg-type]

    assert threading.active_count() == threads


# -- which backend


@pytest.mark.usefixtures("image")
def test_backend_that_refuses_or_fails_leaves_the_next_one_to_it_and_that_is_told(
    store: LocalStore, paths: StorePaths
) -> None:
    overlay, copy = Plain("overlay", refuses="the kernel does not know it"), Plain("copy")
    link = Plain("link", fails=refused("box-1", "link", "too many links"))
    with provisioning(store, overlay, link, copy) as provisioner:
        rootfs = provisioner.provision("box-1", "app:1", read_only=True).get(timeout=TIMEOUT)

        assert rootfs.backend == "copy"
        assert "overlay: the kernel does not know it" in rootfs.reason
        assert "link: too many links" in rootfs.reason
        assert provisioner.list().get(timeout=TIMEOUT)[0].backend == "copy"
        provisioner.destroy("box-1").get(timeout=TIMEOUT)
    require_nothing_left(paths)


@pytest.mark.usefixtures("image")
def test_backend_that_was_asked_for_and_cannot_fails_with_its_sentence_and_leaves_nothing(
    store: LocalStore, paths: StorePaths
) -> None:
    backends = Plain("overlay", refuses="not here"), Plain("link", fails=refused("box-1", "link", "nor here"))
    with provisioning(store, *backends) as provisioner:
        for backend, why in {"overlay": "not here", "link": "nor here"}.items():
            with pytest.raises(RootfsError) as raised:
                provisioner.provision("box-1", "app:1", backend=backend).get(timeout=TIMEOUT)
            assert raised.value.reasons == ((backend, why),)
        with pytest.raises(RootfsError, match="overlay: not here"):
            provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
    require_nothing_left(paths)


@pytest.mark.parametrize("fails", [OSError(28, "full"), ValueError("a fault of ours")])
def test_provision_that_fails_leaves_nothing(
    provisioner: Provisioner, backend: Plain, paths: StorePaths, fails: Exception
) -> None:
    provisioner.provision("other", "app:1").get(timeout=TIMEOUT)
    before, backend.fails = descriptors(), fails

    with pytest.raises(type(fails)):
        provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)

    assert names(paths.containers) == ["other"]
    wait_for(lambda: names(paths.gc) == [])
    provisioner.destroy("other").get(timeout=TIMEOUT)
    require_nothing_left(paths)
    wait_for(lambda: descriptors() < before)


@pytest.mark.parametrize("stop", ["discard", "destroy", "close"])
def test_provision_that_is_stopped_while_it_mounts_leaves_nothing(
    provisioner: Provisioner, backend: Plain, paths: StorePaths, stop: str
) -> None:
    backend.goes_on.clear()
    coming = provisioner.provision("box-1", "app:1")
    assert backend.begun.wait(TIMEOUT)

    if stop == "discard":
        coming.discard()
        backend.goes_on.set()
    elif stop == "destroy":
        threading.Timer(0.2, backend.goes_on.set).start()
        provisioner.destroy("box-1").get(timeout=TIMEOUT)
    else:
        threading.Timer(0.2, backend.goes_on.set).start()
        provisioner.close()

    with pytest.raises(DiscardedError):
        coming.get(timeout=TIMEOUT)
    require_nothing_left(paths)
    assert not any("rootfs" in os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


# -- what a container needs


def test_container_keeps_its_layers_and_config_until_it_is_destroyed(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths
) -> None:
    provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
    there = names(paths.layers), names(paths.configs)

    store.remove("app:1").get(timeout=TIMEOUT)
    store.prune(budget_bytes=0).get(timeout=TIMEOUT)
    assert (names(paths.layers), names(paths.configs)) == there

    provisioner.destroy("box-1").get(timeout=TIMEOUT)
    store.prune().get(timeout=TIMEOUT)
    assert (names(paths.layers), names(paths.configs)) == ([], [])


@pytest.mark.parametrize("is_put_again", [True, False])
def test_image_that_is_removed_before_it_is_needed_is_looked_up_again(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths, tmp_path: Path, is_put_again: bool
) -> None:
    is_removed = False

    def look_late(*args: Any) -> frozenset[Any]:
        nonlocal is_removed
        if not is_removed:
            is_removed = True
            (paths.containers / "box-1").rename(tmp_path / "aside")  # as if it had not been seen
            store.remove("app:1").get(timeout=TIMEOUT)
            (tmp_path / "aside").rename(paths.containers / "box-1")
            if is_put_again:
                store.put("app:1", tmp_path / "app.tar").get(timeout=TIMEOUT)
                store.swept().get(timeout=TIMEOUT)
                (paths.layers / names(paths.layers)[0]).rename(tmp_path / "gone")
                store.put("app:1", tmp_path / "app.tar").get(timeout=TIMEOUT)
        return find_missing(*args)

    with patch(seams.FIND_MISSING_OF_CONTAINER, look_late):
        coming = provisioner.provision("box-1", "app:1")
        if is_put_again:
            assert coming.get(timeout=TIMEOUT).container_id == "box-1"
        else:
            with pytest.raises(NotFoundError):
                coming.get(timeout=TIMEOUT)
            require_nothing_left(paths)


def test_record_that_cannot_be_read_keeps_everything_until_its_container_is_destroyed(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths
) -> None:
    provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
    record = paths.containers / "box-1/container.pb"
    record.write_bytes(record.read_bytes().replace(b"app:1", b"app:2"))

    with pytest.raises(ContainerRecordError, match="destroyed"):
        store.prune().get(timeout=TIMEOUT)
    assert provisioner.list().get(timeout=TIMEOUT) == ()
    assert store.usage().get(timeout=TIMEOUT).containers == ()
    assert provisioner.recover(()).get(timeout=TIMEOUT).destroyed == ()

    provisioner.destroy("box-1").get(timeout=TIMEOUT)
    store.prune().get(timeout=TIMEOUT)
    require_nothing_left(paths)


# -- destroy


def test_destroyed_container_is_gone_and_its_id_free_again(provisioner: Provisioner, paths: StorePaths) -> None:
    for _ in range(3):
        rootfs = provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
        provisioner.destroy("box-1").get(timeout=TIMEOUT)

        assert provisioner.list().get(timeout=TIMEOUT) == ()
        with pytest.raises(StateError, match="closed"):
            _ = rootfs.fd
        assert repr(rootfs).endswith("closed>")
    require_nothing_left(paths)


def test_calls_for_one_container_are_carried_out_in_their_order(provisioner: Provisioner, paths: StorePaths) -> None:
    provisioner.provision("box-1", "app:1")
    destroyed = [provisioner.destroy("box-1"), provisioner.destroy("box-1")]
    again = provisioner.provision("box-1", "app:1")

    for gone in destroyed:
        gone.get(timeout=TIMEOUT)
    assert again.get(timeout=TIMEOUT).container_id == "box-1"
    provisioner.destroy("box-1").get(timeout=TIMEOUT)
    require_nothing_left(paths)


def test_container_that_is_not_there_cannot_be_destroyed(provisioner: Provisioner) -> None:
    with pytest.raises(ContainerNotFoundError, match="box-9"):
        provisioner.destroy("box-9").get(timeout=TIMEOUT)
    with pytest.raises(InvalidInputError):
        provisioner.destroy("../box-1").get(timeout=TIMEOUT)


def test_container_of_a_living_process_is_left_alone(provisioner: Provisioner, paths: StorePaths) -> None:
    provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)

    with opened(paths.root) as elsewhere, provisioning(elsewhere) as other:
        with pytest.raises(ContainerHeldError, match="another provisioner, whose process is alive"):
            other.destroy("box-1").get(timeout=TIMEOUT)
        recovery = other.recover(["box-1"]).get(timeout=TIMEOUT)

        assert (recovery.adopted, recovery.lost, recovery.destroyed) == ((), (), ())
        assert names(paths.containers) == ["box-1"]


def test_many_that_are_destroyed_at_once_are_deleted_together(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths
) -> None:
    boxes = [f"box-{number}" for number in range(100)]
    for coming in [provisioner.provision(box, "app:1") for box in boxes]:
        coming.get(timeout=TIMEOUT)

    for gone in [provisioner.destroy(box) for box in boxes]:
        gone.get(timeout=TIMEOUT)

    require_nothing_left(paths)
    wait_for(lambda: store.stats().sweeps)
    stats = store.stats()
    assert (stats.containers_provisioned, stats.containers_destroyed) == (100, 100)
    assert stats.sweeps < 20


# -- export


def test_image_is_exported_as_what_its_layers_mean_and_replaces_no_file(
    provisioner: Provisioner, paths: StorePaths, tmp_path: Path
) -> None:
    exported = provisioner.export_image("app:1", tmp_path / "exported.tar").get(timeout=TIMEOUT)

    assert exported.size_bytes == (tmp_path / "exported.tar").stat().st_size
    with tarfile.open(tmp_path / "exported.tar") as tar:
        assert {entry.name: entry.size for entry in tar if entry.isfile()} == {"etc/hosts": 5, "bin/sh": 2}
    with pytest.raises(FileExistsError):
        provisioner.export_image("app:1", tmp_path / "exported.tar").get(timeout=TIMEOUT)
    assert names(paths.leases) == []


def test_container_is_exported_that_another_process_has(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths, tmp_path: Path
) -> None:
    with provisioning(store, owner="other") as other:
        rootfs = other.provision("box-1", "app:1").get(timeout=TIMEOUT)
        Path(str(rootfs.path), "written").write_text("here")
        with (tmp_path / "exported.tar").open("wb") as target:
            exported = provisioner.export("box-1", target.fileno()).get(timeout=TIMEOUT)
        (paths.containers / "box-1/rootfs/written").unlink()
        other.destroy("box-1").get(timeout=TIMEOUT)

    assert exported.left_out_count == 0
    with tarfile.open(tmp_path / "exported.tar") as tar:
        assert [entry.name for entry in tar if entry.isfile()] == ["written"]
    with pytest.raises(ContainerNotFoundError, match="box-1"):
        provisioner.export("box-1", tmp_path / "again.tar").get(timeout=TIMEOUT)
    assert not (tmp_path / "again.tar").exists()


@pytest.fixture
def stalled(store: LocalStore, provisioner: Provisioner, tmp_path: Path) -> Iterator[list[Future[ExportedTar]]]:
    """Exports to pipes that nobody reads, more than a provisioner has threads."""
    archive = docker_save(tmp_path / "large.tar", {"large:1": [layer({"large": b"x" * 1_000_000})]})
    store.put("large:1", archive).get(timeout=TIMEOUT)
    pipes = [os.pipe() for _ in range(THREADS + WRITERS)]
    exports = [provisioner.export_image("large:1", writing) for _, writing in pipes]
    readings = [reading for reading, _ in pipes]
    wait_for(lambda: len(select.select(readings, [], [], 0)[0]) >= THREADS)  # so many have begun
    yield exports
    for reading in readings:
        os.close(reading)
    provisioner.close()
    for _, writing in pipes:
        os.close(writing)


def test_readers_that_stall_hold_up_no_container(
    stalled: list[Future[ExportedTar]], provisioner: Provisioner, paths: StorePaths
) -> None:
    provisioner.provision("box-1", "app:1").get(timeout=PATIENCE)
    provisioner.destroy("box-1").get(timeout=PATIENCE)

    assert all(export.is_pending() for export in stalled)
    require_nothing_left(paths)


def test_export_to_a_reader_that_stalls_is_ended_by_a_discard(stalled: list[Future[ExportedTar]]) -> None:
    for export in stalled:
        export.discard()

    for export in stalled:
        with pytest.raises(DiscardedError):
            export.get(timeout=PATIENCE)


def test_close_ends_exports_to_readers_that_stall(stalled: list[Future[ExportedTar]], provisioner: Provisioner) -> None:
    closing = threading.Thread(target=provisioner.close)
    closing.start()
    closing.join(PATIENCE)

    assert not closing.is_alive()
    for export in stalled:
        with pytest.raises((DiscardedError, StoreClosedError)):
            export.get(timeout=PATIENCE)


# -- close and recover


@pytest.mark.usefixtures("image")
def test_closed_provisioner_lets_go_of_descriptors_and_leaves_containers(store: LocalStore, paths: StorePaths) -> None:
    with provisioning(store) as provisioner:
        rootfs = provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
    provisioner.close()

    with pytest.raises(StateError):
        _ = rootfs.fd
    with pytest.raises(StoreClosedError):
        provisioner.provision("box-2", "app:1").get(timeout=TIMEOUT)
    assert names(paths.containers) == ["box-1"]
    assert names(paths.staging) == []


def test_closed_provisioner_says_so_while_its_store_goes_on(store: LocalStore, image: ImageInfo) -> None:
    with provisioning(store) as provisioner:
        pass

    with pytest.raises(StoreClosedError, match="or the provisioner that was asked"):
        provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
    assert store.get("app:1").get(timeout=TIMEOUT).layers[0].diff_id == image.layers[0].diff_id


def test_provisioner_shows_whose_it_is_and_where(store: LocalStore, paths: StorePaths) -> None:
    with provisioning(store, owner="agent") as provisioner:
        assert repr(provisioner) == f"<Provisioner of 'agent' at {str(paths.root)!r}>"


def test_what_is_no_id_or_name_is_refused_with_what_to_write(provisioner: Provisioner, image: ImageInfo) -> None:
    rootfs = provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
    wrong: Any = image

    with pytest.raises(InvalidInputError, match="container_id is 'app:1'; the id comes first, then the image's name"):
        provisioner.provision("app:1", "box").get(timeout=TIMEOUT)
    with pytest.raises(InvalidInputError, match="it takes an image name, a str such as the name of an ImageInfo"):
        provisioner.provision("box-2", wrong).get(timeout=TIMEOUT)
    wrong = rootfs
    with pytest.raises(InvalidInputError, match="it has one, its container_id"):
        provisioner.destroy(wrong).get(timeout=TIMEOUT)


@pytest.mark.usefixtures("image")
def test_recover_adopts_what_is_known_and_whole_and_removes_the_rest(store: LocalStore, paths: StorePaths) -> None:
    with provisioning(store) as before:
        for box in ("known", "broken", "unknown", "detached"):
            before.provision(box, "app:1", attach=box != "detached").get(timeout=TIMEOUT)
    with provisioning(store, owner="other") as other:
        other.provision("others", "app:1").get(timeout=TIMEOUT)
    (paths.containers / "broken/rootfs").rmdir()

    with provisioning(store) as after:
        recovery = after.recover(["known", "broken", "detached", "never"]).get(timeout=TIMEOUT)

        (adopted,) = recovery.adopted
        assert (adopted.container_id, adopted.config.command) == ("known", ("sh",))
        assert os.path.samestat(os.stat(adopted.fd), os.stat(paths.containers / "known/rootfs"))
        assert recovery.lost == ("broken", "detached", "never")
        assert recovery.destroyed == ("unknown",)
        assert {each.container_id: each.is_held for each in after.list().get(timeout=TIMEOUT)} == {
            "known": True,
            "others": False,
        }
        assert after.recover(["known"]).get(timeout=TIMEOUT).lost == ()
        after.destroy("known").get(timeout=TIMEOUT)
        after.destroy("others").get(timeout=TIMEOUT)
    require_nothing_left(paths)


@pytest.mark.parametrize("for_runtime", [False, True])
@pytest.mark.usefixtures("image")
def test_what_is_made_for_a_runtime_stays_so(store: LocalStore, paths: StorePaths, for_runtime: bool) -> None:
    backend = Plain()
    with provisioning(store, backend) as before:
        before.provision("box-1", "app:1", for_runtime=for_runtime).get(timeout=TIMEOUT)

    with provisioning(store) as after:
        (adopted,) = after.recover(["box-1"]).get(timeout=TIMEOUT).adopted
        after.destroy("box-1").get(timeout=TIMEOUT)

    assert [request.for_runtime for request in backend.requests] == [for_runtime]
    assert adopted.container.for_runtime == for_runtime
    require_nothing_left(paths)


@pytest.mark.usefixtures("image")
def test_recover_that_failed_half_way_adopts_all_when_it_is_tried_again(store: LocalStore, paths: StorePaths) -> None:
    with provisioning(store) as before:
        for box in ("box-1", "box-2"):
            before.provision(box, "app:1").get(timeout=TIMEOUT)
    in_the_way = paths.containers / "box-2/container.pb.new"
    in_the_way.mkdir()

    with provisioning(store) as after:
        with pytest.raises(MisplacedFileError):
            after.recover(["box-1", "box-2"]).get(timeout=TIMEOUT)
        in_the_way.rmdir()
        recovery = after.recover(["box-1", "box-2"]).get(timeout=TIMEOUT)

        assert [rootfs.container_id for rootfs in recovery.adopted] == ["box-1", "box-2"]
        assert after.recover(["box-1", "box-2"]).get(timeout=TIMEOUT) == ContainerRecovery()
        for box in ("box-1", "box-2"):
            after.destroy(box).get(timeout=TIMEOUT)
    require_nothing_left(paths)


@pytest.mark.usefixtures("image")
def test_container_is_adopted_once_by_recoveries_at_the_same_time(store: LocalStore, paths: StorePaths) -> None:
    with provisioning(store) as before:
        before.provision("box-1", "app:1").get(timeout=TIMEOUT)

    with provisioning(store) as after:
        first, second = after.recover(["box-1"]), after.recover(["box-1"])

        assert [rootfs.container_id for rootfs in first.get(timeout=TIMEOUT).adopted] == ["box-1"]
        assert second.get(timeout=TIMEOUT) == ContainerRecovery()
        after.destroy("box-1").get(timeout=TIMEOUT)
    require_nothing_left(paths)


@pytest.mark.usefixtures("image")
def test_container_stays_if_this_process_may_open_no_more_files(store: LocalStore, paths: StorePaths) -> None:
    class Exhausted(Plain):
        def is_attached(self, _request: RootfsRequest) -> bool:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with provisioning(store) as before:
        before.provision("box-1", "app:1").get(timeout=TIMEOUT)

    with provisioning(store, Exhausted()) as exhausted, pytest.raises(OSError, match="Too many open files"):
        exhausted.recover(["box-1"]).get(timeout=TIMEOUT)
    with provisioning(store) as after:
        assert [each.container_id for each in after.recover(["box-1"]).get(timeout=TIMEOUT).adopted] == ["box-1"]
        after.destroy("box-1").get(timeout=TIMEOUT)
    require_nothing_left(paths)


@pytest.mark.usefixtures("image")
def test_container_of_another_start_of_the_machine_is_lost(store: LocalStore, paths: StorePaths) -> None:
    with patch(seams.BOOT_ID, lambda: "another"), provisioning(store) as before:
        before.provision("box-1", "app:1").get(timeout=TIMEOUT)

    with provisioning(store) as after:
        assert after.recover(["box-1"]).get(timeout=TIMEOUT).lost == ("box-1",)
    require_nothing_left(paths)


@pytest.mark.parametrize("record", [None, b"", bytes(100)], ids=["none", "empty", "zeros"])
@pytest.mark.usefixtures("image")
def test_what_a_power_cut_left_of_a_container_is_removed(
    store: LocalStore, paths: StorePaths, record: bytes | None
) -> None:
    (paths.containers / "box-1/upper").mkdir(parents=True)
    if record is not None:
        (paths.containers / "box-1/container.pb").write_bytes(record)
    store.prune().get(timeout=TIMEOUT)

    with provisioning(store) as provisioner:
        assert provisioner.recover().get(timeout=TIMEOUT).destroyed == ("box-1",)
    require_nothing_left(paths)


@pytest.mark.parametrize("known", ["box-1", 1, ["/etc"], [1]])
def test_what_is_no_list_of_ids_is_known_to_nobody(provisioner: Provisioner, known: Any) -> None:
    with pytest.raises(InvalidInputError):
        provisioner.recover(known).get(timeout=TIMEOUT)


# -- what another process does at the same time


def once(before: Callable[[], object], after: Callable[[], object]) -> Callable[..., Container | None]:
    """Return what reads a record, and has something happen around the first time."""
    calls = iter([(before, after)])

    def read(paths: StorePaths, container_id: str) -> Container | None:
        earlier, later = next(calls, (lambda: None, lambda: None))
        earlier()
        record = read_container(paths, container_id)
        later()
        return record

    return read


def test_container_that_is_made_while_somebody_destroys_its_id_stays(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths
) -> None:
    def provision() -> None:
        provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)

    with provisioning(store) as other, patch(seams.READ_CONTAINER_TO_REMOVE, once(lambda: None, provision)):
        with pytest.raises(ContainerHeldError):
            other.destroy("box-1").get(timeout=TIMEOUT)
        assert names(paths.containers / "box-1") == ["container.pb", "rootfs"]


def test_container_that_is_made_anew_while_two_destroy_the_one_before_stays(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths
) -> None:
    with provisioning(store) as before:
        before.provision("box-1", "app:1").get(timeout=TIMEOUT)

    def destroy_and_provision() -> None:
        with suppress(pykka.Timeout):
            provisioner.destroy("box-1").get(timeout=0.5)
            provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)

    with (
        provisioning(store) as other,
        patch(seams.READ_CONTAINER_TO_REMOVE, once(lambda: None, destroy_and_provision)),
    ):
        other.destroy("box-1").get(timeout=TIMEOUT)
        with suppress(ContainerExistsError):
            provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
        assert names(paths.containers / "box-1") == ["container.pb", "rootfs"]


def test_container_that_is_made_anew_while_somebody_recovers_stays(
    provisioner: Provisioner, store: LocalStore, paths: StorePaths
) -> None:
    def destroy() -> None:
        provisioner.destroy("box-1").get(timeout=TIMEOUT)

    def provision() -> None:
        provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)

    provision()
    with provisioning(store) as other, patch(seams.READ_CONTAINER_TO_RECOVER, once(destroy, provision)):
        assert other.recover().get(timeout=TIMEOUT) == ContainerRecovery()
        assert names(paths.containers / "box-1") == ["container.pb", "rootfs"]


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("fails", [PermissionError(errno.EACCES, "closed"), refused("box-1", "copy", "may not mount")])
def test_known_container_that_cannot_be_adopted_now_is_left(
    store: LocalStore, paths: StorePaths, fails: Exception
) -> None:
    with provisioning(store) as before:
        before.provision("box-1", "app:1").get(timeout=TIMEOUT)

    backend = Plain()
    with provisioning(store, backend) as after:
        with patch.object(backend, "is_attached", side_effect=fails):
            assert after.recover(["box-1"]).get(timeout=TIMEOUT) == ContainerRecovery(left=("box-1",))
        assert names(paths.containers / "box-1") == ["container.pb", "rootfs"]
        assert [each.container_id for each in after.recover(["box-1"]).get(timeout=TIMEOUT).adopted] == ["box-1"]


@pytest.mark.usefixtures("image")
def test_container_of_a_backend_that_only_another_version_has_is_left(store: LocalStore, paths: StorePaths) -> None:
    with provisioning(store, Plain("bind")) as before:
        before.provision("box-1", "app:1", backend="bind").get(timeout=TIMEOUT)

    with provisioning(store) as after:
        assert after.recover(["box-1"]).get(timeout=TIMEOUT) == ContainerRecovery(left=("box-1",))
        assert after.recover().get(timeout=TIMEOUT) == ContainerRecovery()
        assert names(paths.containers) == ["box-1"]
        after.destroy("box-1").get(timeout=TIMEOUT)
    require_nothing_left(paths)


# -- what it costs, and what is told


def test_what_is_written_to_a_container_counts(provisioner: Provisioner, store: LocalStore) -> None:
    rootfs = provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
    before = store.usage().get(timeout=TIMEOUT)
    Path(rootfs.path or "", "written").write_bytes(bytes(1 << 20))

    after = store.usage().get(timeout=TIMEOUT)

    (container,) = after.containers
    assert (container.container_id, container.image, container.backend) == ("box-1", "app:1", "copy")
    assert container.bytes >= 1 << 20
    assert after.bytes - before.bytes == 1 << 20
    assert after.inodes - before.inodes == 1


def test_budget_counts_what_is_written_to_containers(tmp_path: Path) -> None:
    with opened(tmp_path / "store", durable=False, budget_bytes=2 << 20) as store, provisioning(store) as provisioner:
        for number in range(2):
            archive = docker_save(tmp_path / f"{number}.tar", {f"app:{number}": [layer({f"{number}": bytes(250_000)})]})
            store.put(f"app:{number}", archive).get(timeout=TIMEOUT)
        rootfs = provisioner.provision("box-1", "app:0").get(timeout=TIMEOUT)
        Path(rootfs.path or "", "written").write_bytes(bytes(1_700_000))

        store.put("app:2", docker_save(tmp_path / "2.tar", {"app:2": [layer({"2": b"x"})]})).get(timeout=TIMEOUT)

        kept = [image.name for image in store.list().get(timeout=TIMEOUT)]
        assert "app:1" not in kept, "with the container there is room for one"
        assert "app:0" in kept, "its layers stay anyway"


@pytest.mark.usefixtures("image")
def test_events_tell_of_containers(paths: StorePaths) -> None:
    told: list[object] = []
    with LocalStore.start(paths.root, on_event=told.append) as listening, provisioning(listening) as provisioner:
        provisioner.provision("box-1", "app:1").get(timeout=TIMEOUT)
        provisioner.destroy("box-1").get(timeout=TIMEOUT)
        wait_for(lambda: any(isinstance(event, ContainerDestroyed) for event in told))

    (made,) = [event for event in told if isinstance(event, ContainerProvisioned)]
    assert (made.container_id, made.image, made.backend) == ("box-1", "app:1", "copy")
    assert re.fullmatch(r"provisioned box-1 of app:1: copy, in \d+\.\d+ s", str(made))
