"""Entries at random, as umoci unpacks them: what a layer means to the reader that Docker and Podman share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tars
from support.layers import unpack_layer
from support.processes import TIMEOUT
from support.trees import describe

from pykka_imagestore.errors import LayerError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("umoci") is None, reason="there is no umoci here"),
]
EXAMPLES = int(os.environ.get("TREES", "200")) // 5

paths = st.lists(st.sampled_from([b"a", b"b", b"."]), min_size=1, max_size=3).map(b"/".join)
spelled = st.tuples(st.sampled_from([b"", b"./", b"/"]), paths).map(b"".join)
long = st.sampled_from([tars.pax({b"path": b"a/pax"}), tars.long_name(b"b/gnu"), tars.pax({b"mtime": b"5.5"}), b""])
entries = st.one_of(
    st.builds(lambda before, path, body: before + tars.file(path, body), long, spelled, st.binary(max_size=3)),
    st.builds(lambda before, *more: b"".join((before, *more)), long, long, spelled.map(tars.file)),
    st.builds(tars.directory, spelled, mode=st.sampled_from([0o700, 0o1777])),
    st.builds(tars.symlink, spelled, st.just(b"/nowhere")),
    st.builds(tars.hard_link, spelled, paths),
    st.builds(tars.header, spelled, st.just(tars.FIFO)),
    st.builds(lambda path: tars.gnu_sparse(path, 9000, [(5000, 2)], b"xy"), paths),
    st.builds(lambda path: tars.pax_sparse("1.0", path, 9000, [(0, 1), (8192, 1)], b"xy"), paths),
)


def described(root):
    """Return what both are to have in common: umoci gives missing parents another mode and time."""
    return {
        path: (node.kind, node.content, node.same_as, None if node.kind == "d" else (node.mode, node.mtime_ns))
        for path, node in describe(root).items()
        if path
    }


def make_layout(directory, layer):
    """Write an image of one layer, as OCI lays it out."""

    def blob(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        Path(directory, "blobs", "sha256", digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    Path(directory, "blobs", "sha256").mkdir(parents=True)
    Path(directory, "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    stored = blob(layer, "layer.v1.tar")
    rootfs = {"type": "layers", "diff_ids": [stored["digest"]]}
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), "config.v1+json")
    manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": [stored]}).encode()
    named = {**blob(manifest, "manifest.v1+json"), "annotations": {"org.opencontainers.image.ref.name": "it"}}
    Path(directory, "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))


def unpack_with_umoci(layer, directory):
    """Return what umoci makes of a layer; None if it refuses it."""
    make_layout(Path(directory, "layout"), layer)
    command = ["umoci", "raw", "unpack", "--image", f"{directory}/layout:it", f"{directory}/theirs"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    return described(Path(directory, "theirs")) if done.returncode == 0 else None


@settings(max_examples=EXAMPLES)
@given(st.lists(entries, min_size=1, max_size=6))
def test_what_both_take_is_the_same_for_both(parts):
    layer = tars.tar(*parts)
    with tempfile.TemporaryDirectory() as directory:
        theirs = unpack_with_umoci(layer, directory)
        try:
            ours = described(unpack_layer(layer, directory).rootfs)
        except LayerError:
            return

        if theirs is not None:
            assert ours == theirs
