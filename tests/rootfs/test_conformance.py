"""Every backend makes the same tree of the same layers: the one that their tars mean."""

from __future__ import annotations

from contextlib import closing

import pytest
from support.privileges import ORDINARY_USER, as_ordinary_user
from support.rootfs import namespace_of, python_for_all
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

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("mounts")]

# Backend, which whiteouts it reads, and whether it makes only what cannot be written to.
BACKENDS: dict[str, tuple[Backend, Reads, bool]] = {
    "overlay": (Overlay(), Reads.TRUSTED, False),
    "overlay, read only": (Overlay(), Reads.TRUSTED, True),
    "copy": (Copy(), Reads.ANY, False),
    "copy, read only": (Copy(), Reads.ANY, True),
    "link": (Link(), Reads.ANY, True),
    "bind": (Bind(), Reads.ANY, True),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tree_is_the_one_that_the_tars_mean(tmp_path, backend, name):
    maker, reads, read_only = BACKENDS[backend]
    layers = stacked(SAMPLES[name].tars, tmp_path, reads)
    if backend == "bind" and (len(layers) > 1 or layers[0].whiteouts != WhiteoutFormat.NONE):
        pytest.skip("this is more than one layer")

    tree = made_tree(maker, RootfsRequest(layers, str(tmp_path / "box"), read_only=read_only))

    assert tree == SAMPLES[name].tree


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "bind"])
def test_an_ordinary_user_gets_the_same_trees_but_for_what_he_may_not_own(backend, users_directory, package_for_all):
    names = [name for name in SAMPLES if name != CLOSED]

    trees = as_ordinary_user(ordinary_users_trees, names, backend, users_directory, package_for_all)

    assert [*trees] == names
    for name, tree in trees.items():
        assert tree == for_ordinary_user(SAMPLES[name].tree, ORDINARY_USER), name


def ordinary_users_trees(names, backend, place, package):
    """Return what a backend makes of samples; what takes a mount, a process mounts that runs a copy of the package."""
    maker, reads, read_only = BACKENDS[backend]
    with closing(namespace_of(python_for_all(package))) as namespace:
        in_namespace: Backend = InNamespace(maker, namespace)
        if isinstance(maker, Copy):
            in_namespace = CopyInNamespace(maker, namespace)
        trees = {}
        for name in names:
            own_place = place / name
            own_place.mkdir()
            try:
                layers = stacked(SAMPLES[name].tars, own_place, Reads.ANY if reads is Reads.ANY else Reads.USER)
                request = RootfsRequest(layers, str(own_place / "box"), read_only=read_only)
                trees[name] = made_tree(in_namespace, request)
            except Exception as error:
                error.add_note(f"of the sample {name!r}")
                raise
        return trees
