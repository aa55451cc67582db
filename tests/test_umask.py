"""What a store makes when the process' umask takes nothing, or everything."""

from __future__ import annotations

import gzip
import os
import re
import stat
from pathlib import Path

import pytest
from support import tars
from support.images import docker_save
from support.layers import blob_of
from support.privileges import as_ordinary_user, with_umask
from support.processes import TIMEOUT
from support.trees import describe

from pykka_imagestore import LocalStore
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.layout import make_store, write_config
from pykka_imagestore.durable.leases import find_needs, take_lease
from pykka_imagestore.durable.locked_directory import LockedDirectory
from pykka_imagestore.durable.references import Put, References
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.check_layer import CheckLayer, check_layer
from pykka_imagestore.jobs.move_layer import MoveLayer, move_layer
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer

LAYER = tars.tar(
    tars.directory(b"tmp", mode=0o1777),
    tars.directory(b"closed", mode=0o700),
    tars.file(b"closed/implied/file", b"x" * 100, mode=0o640),
    tars.file(b"open", b"old", mode=0o666),
    tars.file(b"open", b"new", mode=0o666),
    tars.whiteout(b"gone"),
    tars.symlink(b"link", b"open"),
)
_OF_A_LAYER = re.compile(rb"/rootfs/|/replaced/[0-9]")  # as the image has it
OF_LAYERS = {b"tmp": 0o1777, b"closed": 0o700, b"closed/implied": 0o755, b"closed/implied/file": 0o640, b"open": 0o666}


def put_all(directory: str) -> None:
    """Make a store below directories that are missing; put, check and repair, and use what there is to use."""
    archive = docker_save(Path(directory, "app.tar"), {"app:1": [LAYER]})
    compressed = Path(directory, "app.tar.gz")  # one that is copied first
    compressed.write_bytes(gzip.compress(archive.read_bytes()))
    with LocalStore.start(Path(directory, "made", "for it", "store"), workers=1) as store:
        store.put("app:1", compressed, Path(directory, "sandbox", "of it")).get(timeout=TIMEOUT)
        store.put("app:2", archive).get(timeout=TIMEOUT)
        with store.get("app:1", lease=True).get(timeout=TIMEOUT):
            assert store.check(deep=True).get(timeout=TIMEOUT).faults == ()
            store.remove("app:2").get(timeout=TIMEOUT)


def modes_of_the_store(directory: Path) -> dict[bytes, int]:
    nodes = describe(directory)
    return {path: node.mode for path, node in nodes.items() if not _OF_A_LAYER.search(path) and node.kind != "l"}


def modes_of_the_layer(directory: Path) -> dict[bytes, int]:
    (rootfs,) = directory.glob("made/for it/store/layers/*/rootfs")
    nodes = describe(rootfs)
    return {path: nodes[path].mode for path in OF_LAYERS}


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_nobody_else_may_write_to_what_a_store_makes_and_its_layers_have_their_modes(tmp_path, umask):
    with_umask(umask, put_all, str(tmp_path))

    for made in ("made", "sandbox"):
        open_to_others = {path for path, mode in modes_of_the_store(tmp_path / made).items() if mode & 0o022}
        assert open_to_others == set()
    above = ("made", "made/for it", "sandbox", "sandbox/of it")
    assert {stat.S_IMODE((tmp_path / path).stat().st_mode) for path in above} == {0o755 & ~umask}
    store = modes_of_the_store(tmp_path / "made/for it/store")
    assert store[b""] == store[b"layers"] == store[b"staging"] == store[b"gc"] == store[b"leases"] == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "made").glob("for it/store/layers/*")} == {0o755}
    assert modes_of_the_layer(tmp_path) == OF_LAYERS


@pytest.mark.root
@pytest.mark.parametrize("umask", [0o077, 0o777])
def test_ordinary_user_whose_umask_takes_everything_has_a_store_that_works(users_directory, umask):
    as_ordinary_user(use_a_store, umask, str(users_directory))

    assert modes_of_the_layer(users_directory) == OF_LAYERS


def use_a_store(umask: int, directory: str) -> None:
    """Do what a store does, in this process: an ordinary user may not be able to start the Python in use."""
    os.umask(umask)
    paths = StorePaths(Path(directory, "made", "for it", "store"))
    on = disk(durable=False)
    for _ in range(2):  # what the first time makes the second one finds
        make_store(paths, on)
        staging = LockedDirectory.below(paths.staging, paths.guard(paths.staging))
        staging.make()
        stored = Path(directory, "layer.tar")
        stored.unlink(missing_ok=True)
        stored.touch()
        stored.chmod(0o600)
        layer, target = blob_of(LAYER, directory), str(staging.path / "layer")
        diff_id = untar_layer(UntarLayer(layer, target, None, str(Path(directory, "sandbox", "of it")))).diff_id
        move_layer(MoveLayer(target, str(paths.layer(diff_id)), durable=False))
        write_config(paths, b"{}", on, aside=staging.path / "config")
        References(paths, on).commit([Put(DockerImage("app:1", (diff_id,), sha256(b"{}")))])
        lease = take_lease(paths, [diff_id], None, "a test")
        assert diff_id in find_needs(paths).layers
        lease.release()
        remove_tree(str(staging.path))
        staging.release()
        assert check_layer(CheckLayer(str(paths.layer(diff_id)), diff_id, deep=True)).faults == ()
        assert [image.name for image in References(paths, on).list()] == ["app:1"]
    assert len(Path(directory, "sandbox", "of it", "stdout").read_text().splitlines()) == 2
