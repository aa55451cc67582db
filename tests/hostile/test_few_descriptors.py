"""A process that may open 64 files works through stacks of a hundred layers all the same."""

from __future__ import annotations

import resource
import tarfile

import pytest
from support.rootfs import request
from support.stacked import made_tree

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import StackLayer
from pykka_imagestore.jobs.export_tar import ExportTar, export_tar
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.link import Link

LIMIT = 64
LAYERS = 100
DEPTH = 80


@pytest.fixture
def layers(tmp_path):
    """Layers that all have one directory, in which each has another, deep below."""
    for number in range(LAYERS):
        deep = tmp_path / f"layer{number}/both/{number}" / "/".join("d" * DEPTH)
        deep.mkdir(parents=True)
        (deep / "file").write_text(str(number))
    return tuple(StackLayer(str(tmp_path / f"layer{number}"), WhiteoutFormat.NONE) for number in range(LAYERS))


@pytest.fixture
def few_files():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("few_files")
@pytest.mark.parametrize("backend", [Copy(), Link()], ids=["copy", "link"])
def test_a_hundred_layers_are_copied_and_linked(tmp_path, layers, backend):
    tree = made_tree(backend, request(tmp_path / "box", *layers, read_only=True))

    assert sum(path.endswith(b"/file") for path in tree) == LAYERS


@pytest.mark.usefixtures("few_files")
def test_a_hundred_layers_are_exported(tmp_path, layers):
    export_tar(ExportTar(layers, str(tmp_path / "tar")))

    with tarfile.open(tmp_path / "tar") as tar:
        assert sum(entry.isfile() for entry in tar) == LAYERS
