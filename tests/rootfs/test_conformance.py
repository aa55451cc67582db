"""Every backend makes the same tree of the same layers: the one that their tars mean."""

from __future__ import annotations

import pytest
from support.rootfs import no_mounts_left, require_mounts
from support.stack_samples import SAMPLES
from support.stacked import made_tree, stacked

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import Reads, RootfsRequest
from pykka_imagestore.rootfs.backend import Backend
from pykka_imagestore.rootfs.bind import Bind
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.link import Link
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
