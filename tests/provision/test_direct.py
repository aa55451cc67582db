"""Root file systems that a program makes and removes without an actor or a worker process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT
from support.rootfs import no_mounts_left, require_mounts

from pykka_imagestore import LocalStore, Provisioner
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.errors import ContainerExistsError, ContainerNotFoundError
from pykka_imagestore.provision.direct import provision_directly
from pykka_imagestore.provision.order import ProvisionOrder
from pykka_imagestore.provision.removing import ContainerRemover

pytestmark = [pytest.mark.root, pytest.mark.overlay]


@pytest.fixture
def paths(tmp_path: Path, store: LocalStore) -> StorePaths:
    require_mounts()
    layers = [layer({"etc/motd": b"lower"}), layer({"etc/motd": b"upper"})]
    store.put("app:1", docker_save(tmp_path / "app.tar", {"app:1": layers})).get(timeout=TIMEOUT)
    return StorePaths(tmp_path / "store")


@pytest.fixture
def ready(paths: StorePaths, store: LocalStore) -> StorePaths:
    """Return the paths of a store that has had a container of the image."""
    with Provisioner.start(store, durable=False) as provisioner:
        provisioner.provision("first", "app:1").get(timeout=TIMEOUT)
        provisioner.destroy("first").get(timeout=TIMEOUT)
        provisioner.swept().get(timeout=TIMEOUT)
    return paths


def provision(paths: StorePaths, **options: Any) -> Any:
    return provision_directly(paths.root, ProvisionOrder.of("box", "app:1", **options), owner="me", durable=False)


def work(paths: StorePaths) -> list[str]:
    return sorted(path.name for part in (paths.gc, paths.staging, paths.containers) for path in part.iterdir())


def test_root_file_system_is_made_and_removed_and_nothing_is_left(ready: StorePaths, store: LocalStore) -> None:
    before = work(ready)
    with no_mounts_left(ready.root):
        rootfs = provision(ready)

        assert (Path(rootfs.path) / "etc/motd").read_text() == "upper"
        with Provisioner.start(store) as provisioner:
            (container,) = provisioner.list().get(timeout=TIMEOUT)
        assert (container.container_id, container.owner, container.is_held) == ("box", "me", False)

        rootfs.close()
        with ContainerRemover.on(ready.root) as remover:
            remover.remove("box")
            remover.delete_removed()
    assert work(ready) == before


@pytest.mark.parametrize("backend", [None, "copy"])
def test_what_takes_workers_is_left_to_others_and_leaves_nothing(ready: StorePaths, backend: str | None) -> None:
    paths = ready
    if backend is None:  # what the image needs on top is to be made first
        (stack,) = paths.stacks.iterdir()
        stack.rename(paths.root / "stack")
    before = work(paths)

    assert provision(paths, backend=backend) is None

    assert work(paths) == before


def test_errors_are_those_of_a_provisioner(ready: StorePaths) -> None:
    rootfs = provision(ready)

    with pytest.raises(ContainerExistsError):
        provision(ready)
    rootfs.close()
    with ContainerRemover.on(ready.root) as remover:
        remover.remove("box")
        with pytest.raises(ContainerNotFoundError):
            remover.remove("box")
        remover.delete_removed()
