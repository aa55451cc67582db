"""Files with holes: what was a hole is one on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

import pytest
from support import tars
from support.layers import unpack_layer
from support.processes import TIMEOUT

from pykka_imagestore.errors import LayerError

SIZE = 64 << 20
SEGMENTS = [(0, 4096), (1 << 20, 5), (32 << 20, 70_000), ((48 << 20) - 3, 3), (48 << 20, 512), (SIZE, 0)]
BODY = os.urandom(sum(size for _, size in SEGMENTS))


def whole(size, segments, body):
    """Return a sparse file's bytes, holes and all."""
    found = bytearray(size)
    position = 0
    for offset, length in segments:
        found[offset : offset + length] = body[position : position + length]
        position += length
    return bytes(found)


def disk_bytes(path):
    return os.stat(path).st_blocks * 512


@pytest.mark.parametrize("form", tars.SPARSE)
def test_holes_are_holes_on_disk_and_the_digest_is_the_tars(tmp_path, form):
    data = tars.tar(tars.SPARSE[form](b"f", SIZE, SEGMENTS, BODY, mtime=7, mode=0o640), tars.file(b"after", b"x"))

    unpacked = unpack_layer(data, tmp_path)

    assert unpacked.counts.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (unpacked.rootfs / "f").read_bytes() == whole(SIZE, SEGMENTS, BODY)
    assert disk_bytes(unpacked.rootfs / "f") <= 1 << 20
    assert (unpacked.nodes[b"f"].mtime_ns, unpacked.nodes[b"f"].mode) == (7 * 10**9, 0o640)
    assert unpacked.kinds == {b"f": "f", b"after": "f"}


@pytest.mark.parametrize("form", tars.SPARSE)
@pytest.mark.parametrize(
    ("size", "segments"),
    [(SIZE, []), (SIZE, [(SIZE, 0)]), (SIZE, [(0, 5)]), (SIZE, [(SIZE - 5, 5)]), (0, []), (5, [(0, 5)])],
)
def test_hole_may_be_anywhere(tmp_path, form, size, segments):
    body = b"abcde" if any(length for _, length in segments) else b""

    unpacked = unpack_layer(tars.tar(tars.SPARSE[form](b"f", size, segments, body)), tmp_path)

    assert (unpacked.rootfs / "f").read_bytes() == whole(size, segments, body)
    assert disk_bytes(unpacked.rootfs / "f") <= 8192


@pytest.mark.parametrize("form", tars.SPARSE)
def test_body_that_is_cut_off_is_refused(tmp_path, form):
    data = tars.SPARSE[form](b"f", SIZE, [(0, 5), (SIZE - 2000, 2000)], b"x" * 2005)

    with pytest.raises(LayerError, match=r"entry 0 'f' is cut off"):
        unpack_layer(data[:-1024], tmp_path)


def test_sparse_file_is_replaced_linked_and_replaces_as_any_other(tmp_path):
    sparse = tars.gnu_sparse(b"f", SIZE, [(0, 1)], b"x")

    unpacked = unpack_layer(
        tars.tar(tars.file(b"f", b"old"), sparse, tars.hard_link(b"l", b"f"), tars.file(b"f", b"new")), tmp_path
    )

    assert (unpacked.rootfs / "f").read_bytes() == b"new"
    assert (unpacked.rootfs / "l").stat().st_size == SIZE


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=oldgnu"],
        ["--format=gnu", "--hole-detection=raw"],
        *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("pieces", [0, 1, 3, 5, 30, 400])
def test_what_gnu_tar_packed_is_unpacked_with_its_holes(tmp_path, options, pieces):
    tree = tmp_path / "tree"
    tree.mkdir()
    with open(tree / "f", "wb") as file:
        for piece in range(pieces):
            os.pwrite(file.fileno(), b"piece %d" % piece, piece * 37 * 4096)
        file.truncate(pieces * 37 * 4096 + 12_345)

    unpacked = packed_and_unpacked("tar", ["--sparse", *options], tree, tmp_path)

    assert (unpacked.rootfs / "f").read_bytes() == (tree / "f").read_bytes()
    assert disk_bytes(unpacked.rootfs / "f") <= disk_bytes(tree / "f")


def test_what_bsdtar_packed_is_unpacked_with_its_holes(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    with open(tree / "f", "wb") as file:
        os.pwrite(file.fileno(), b"x" * 5000, 1 << 20)
        file.truncate(SIZE)

    unpacked = packed_and_unpacked("bsdtar", ["--format=pax"], tree, tmp_path)

    assert (unpacked.rootfs / "f").read_bytes() == (tree / "f").read_bytes()
    assert disk_bytes(unpacked.rootfs / "f") <= disk_bytes(tree / "f")


def packed_and_unpacked(tool, options, tree, place):
    if shutil.which(tool) is None:
        pytest.skip(f"there is no {tool} here")
    subprocess.run([tool, *options, "-C", tree, "-cf", place / "packed.tar", "."], check=True, timeout=TIMEOUT)
    return unpack_layer((place / "packed.tar").read_bytes(), place)
