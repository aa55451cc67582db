"""Every backend makes the same tree of the same layers: the one that their tars mean."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from support.privileges import ORDINARY_USER, as_ordinary_user, ordinary_users_place
from support.rootfs import copy_package, namespace_of, no_mounts_left, python_for_all, require_mounts
from support.stack_samples import CLOSED, SAMPLES, for_ordinary_user
from support.stacked import made_tree, stacked

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import Reads, RootfsRequest
from pykka_imagestore.rootfs.backend import Backend
from pykka_imagestore.rootfs.bind import Bind
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.copy_in_namespace import CopyInNamespace
from pykka_imagestore.rootfs.link import Link
from pykka_imagestore.rootfs.namespace import InNamespace
from pykka_imagestore.rootfs.overlay import Overlay

pytestmark = pytest.mark.root

# Backend, which whiteouts it reads, and whether it makes only what cannot be written to.
BACKENDS: dict[str, tuple[Backend, Reads, bool]] = {
    "overlay": (Overlay(), Reads.TRUSTED, False),
    "overlay, read only": (Overlay(), Reads.TRUSTED, True),
    "copy": (Copy(), Reads.ANY, False),
    "copy, read only": (Copy(), Reads.ANY, True),
    "link": (Link(), Reads.ANY, True),
    "bind": (Bind(), Reads.ANY, True),
}


@pytest.fixture(autouse=True)
def _nothing_stays_mounted(tmp_path):
    require_mounts()
    with no_mounts_left(tmp_path):
        yield


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tree_is_the_one_that_the_tars_mean(tmp_path, backend, name):
    maker, reads, read_only = BACKENDS[backend]
    layers = stacked(SAMPLES[name].tars, tmp_path, reads)
    if backend == "bind" and (len(layers) > 1 or layers[0].whiteouts != WhiteoutFormat.NONE):
        pytest.skip("this is more than one layer")

    tree = made_tree(maker, RootfsRequest(layers, str(tmp_path / "box"), read_only=read_only))

    assert tree == SAMPLES[name].tree


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != CLOSED])
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "bind"])
def test_an_ordinary_user_gets_the_same_tree_but_for_what_he_may_not_own(backend, name):
    place = Path(tempfile.mkdtemp(dir=ordinary_users_place()))
    try:
        os.chown(place, ORDINARY_USER, ORDINARY_USER)
        copy_package(place / "package")
        tree = as_ordinary_user(ordinary_users_tree, SAMPLES[name].tars, place, backend)
    finally:
        shutil.rmtree(place)

    assert tree == for_ordinary_user(SAMPLES[name].tree, ORDINARY_USER)


def ordinary_users_tree(tars, place, backend):
    """Return what a backend makes that mounts with a copy of the package what takes a mount."""
    maker, reads, read_only = BACKENDS[backend]
    namespace = namespace_of(python_for_all(place / "package"))
    try:
        layers = stacked(tars, place, Reads.ANY if reads is Reads.ANY else Reads.USER)
        request = RootfsRequest(layers, str(place / "box"), read_only=read_only)
        if isinstance(maker, Copy):
            return made_tree(CopyInNamespace(maker, namespace), request)
        return made_tree(InNamespace(maker, namespace), request)
    finally:
        namespace.close()
