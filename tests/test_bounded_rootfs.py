"""How much may be written to a root file system, through a provisioner."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

import pytest
from support import seams
from support.images import docker_save, layer
from support.processes import TIMEOUT
from support.quotas import Kernel, mounted_image, project_of
from support.rootfs import require_mounts
from support.stores import opened

from pykka_imagestore import InvalidInputError, RootfsError
from pykka_imagestore.provisioner import Provisioner

MIB = 1 << 20
pytestmark = [pytest.mark.root, pytest.mark.overlay]


@contextmanager
def provisioning(directory):
    """Lend a provisioner on a store with an image, in a directory."""
    require_mounts()
    archive = docker_save(directory / "app.tar", {"app:1": [layer({"etc/motd": b"hello"})]})
    with opened(directory / "store", durable=False) as store:
        store.put("app:1", archive).get(timeout=TIMEOUT)
        with Provisioner.start(store, durable=False) as provisioner:
            yield provisioner


def provision(provisioner, container_id, **options):
    return provisioner.provision(container_id, "app:1", **options).get(timeout=TIMEOUT)


def destroy(provisioner, container_id):
    provisioner.destroy(container_id).get(timeout=TIMEOUT)


def test_bound_that_cannot_be_kept_is_refused_and_nothing_is_left(tmp_path):
    sentence = r"upper_bytes: the \w+ at \S+ enforces no project quotas"
    with provisioning(tmp_path) as provisioner:
        for backend in ("overlay", None):
            with pytest.raises(RootfsError, match=sentence):
                provision(provisioner, "box", backend=backend, upper_bytes=MIB)

        assert not (tmp_path / "store" / "containers" / "box").exists()
        assert provision(provisioner, "box").path is not None
        destroy(provisioner, "box")


def test_bound_of_what_nobody_may_write_is_refused(tmp_path):
    with provisioning(tmp_path) as provisioner, pytest.raises(InvalidInputError, match="bounds what is written"):
        provision(provisioner, "box", upper_bytes=MIB, read_only=True)


@pytest.mark.parametrize(("backend", "written"), [("overlay", ["upper", "work/work"]), ("copy", ["rootfs"])])
def test_what_is_written_is_counted_under_a_project_that_is_free_again_once_it_is_destroyed(
    tmp_path, monkeypatch, backend, written
):
    kernel = Kernel(is_xfs=True)
    with mounted_image(tmp_path, "xfs") as place, provisioning(place) as provisioner:
        monkeypatch.setattr(seams.CALL_ON_QUOTAS, kernel)
        boxes = [
            provision(provisioner, f"box-{number}", upper_bytes=(number + 1) * MIB, backend=backend)
            for number in range(2)
        ]
        for box in boxes:
            with open(f"{box.path}/etc/motd", "a") as file:
                file.write("changed")

        places = [place / "store" / "containers" / box.container_id for box in boxes]
        projects = [project_of(directory / written[0] / "etc" / "motd") for directory in places]

        assert sorted(projects) == sorted(kernel.quotas)
        assert [kernel.limit(project) for project in projects] == [1024, 2048]
        assert [project_of(directory / written[-1]) for directory in places] == projects
        assert [project_of(directory / "container.pb") for directory in places] == [0, 0]

        for box in boxes:
            destroy(provisioner, box.container_id)
        assert [kernel.limit(project) for project in projects] == [0, 0]


@pytest.mark.parametrize("backend", ["overlay", "copy"])
@pytest.mark.parametrize(("kind", "option"), [("ext4 that could", "prjquota"), ("xfs", "pquota")])
def test_writer_gets_no_further_than_his_bound_and_his_neighbour_does(tmp_path, kind, option, backend):
    with mounted_image(tmp_path, kind, option) as place, provisioning(place) as provisioner:
        box, neighbour = (
            provision(provisioner, name, upper_bytes=8 * MIB, backend=backend) for name in ("box", "neighbour")
        )

        with pytest.raises(OSError, match=r"quota|space") as raised:
            write(f"{box.path}/file", 64 * MIB)
        write(f"{neighbour.path}/file", 4 * MIB)

        assert raised.value.errno in (errno.EDQUOT, errno.ENOSPC)
        for name in ("box", "neighbour"):
            destroy(provisioner, name)


def write(path, size_bytes):
    with open(path, "wb", buffering=0) as file:
        for _ in range(size_bytes // MIB):
            file.write(bytes(MIB))
            os.fsync(file.fileno())
