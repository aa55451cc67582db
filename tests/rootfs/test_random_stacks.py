"""Random stacks of tars: whatever makes a tree of them makes the one that they mean, one after the other."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from support.layers import unpack_layer
from support.rootfs import no_mounts_left, require_mounts
from support.stacked import made_tree, unpacked, with_fix_ups
from support.tar_model import RefusedError, apply_all, stacks

from pykka_imagestore.core.rootfs import Reads, RootfsRequest
from pykka_imagestore.errors import StackError
from pykka_imagestore.jobs.export_tar import ExportTar, export_tar
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.link import Link
from pykka_imagestore.rootfs.overlay import Overlay

pytestmark = pytest.mark.root


@settings(max_examples=150)
@given(stacks)
def test_all_make_the_tree_that_the_tars_mean(stack):
    require_mounts()
    with tempfile.TemporaryDirectory() as directory, no_mounts_left(Path(directory)):
        place = Path(directory)
        layers = unpacked([layer.tar() for layer in stack], place)
        try:
            meant = apply_all(stack)
        except RefusedError:
            with pytest.raises(StackError):
                with_fix_ups(layers, Reads.ANY, place / "stack")
            return

        trees = list(all_trees(layers, place))

    assert trees == [modelled(meant)] * len(trees)


def all_trees(layers, place):
    merged = with_fix_ups(layers, Reads.ANY, place / "any")
    overlaid = with_fix_ups(layers, Reads.TRUSTED, place / "trusted")
    yield found(made_tree(Overlay(), RootfsRequest(overlaid, str(place / "overlay"))))
    yield found(made_tree(Copy(), RootfsRequest(merged, str(place / "copy"))))
    yield found(made_tree(Link(), RootfsRequest(merged, str(place / "link"), read_only=True)))
    export_tar(ExportTar(merged, str(place / "exported.tar")))
    (place / "put").mkdir()
    yield found(unpack_layer((place / "exported.tar").read_bytes(), place / "put").nodes)


def modelled(tree):
    """Return a tree of the model in the form in which it is compared."""
    first = {}
    return {
        path: (
            *(item.kind, item.mode, item.owner, item.mtime),
            hashlib.sha256(item.content).digest() if item.kind == "f" else item.content,
            path if item.kind == "d" else first.setdefault(item.file, path),
        )
        for path, item in sorted(tree.items())
    }


def found(tree):
    """Return what was made in the form in which it is compared."""
    return {
        path: (node.kind, node.mode, node.owner, node.mtime_ns // 10**9, node.content, node.same_as)
        for path, node in tree.items()
    }
