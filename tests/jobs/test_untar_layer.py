from __future__ import annotations

import gzip
import hashlib
import os
import random
from dataclasses import replace

import pytest
from support import seams, tars
from support.compressions import COMPRESS
from support.layers import blob_at, blob_of, unpack_layer
from support.privileges import on_file_system

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.errors import DigestMismatchError, EscapingEntryError, LayerError
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer

LAYER = tars.tar(tars.directory(b"d"), tars.file(b"d/f", b"x" * 5000))
DIFF_ID = DiffID(f"sha256:{hashlib.sha256(LAYER).hexdigest()}")


def test_layer_is_read_where_it_lies_in_an_archive(tmp_path):
    (tmp_path / "image.tar").write_bytes(b"before" + LAYER + b"after")
    layer = blob_at(tmp_path / "image.tar", 6, len(LAYER), "1/layer.tar")

    counts = untar_layer(UntarLayer(layer, str(tmp_path / "target"), DIFF_ID))

    assert (counts.diff_id, counts.entries, counts.size_bytes, counts.bytes_read) == (
        DIFF_ID,
        2,
        len(LAYER),
        len(LAYER),
    )
    assert (tmp_path / "target" / "rootfs" / "d" / "f").read_bytes() == b"x" * 5000


def test_layer_of_no_bytes_is_empty(tmp_path):
    unpacked = unpack_layer(b"", tmp_path)

    assert unpacked.kinds == {}
    assert unpacked.counts.diff_id == f"sha256:{hashlib.sha256(b'').hexdigest()}"


def test_layer_that_is_another_is_refused_and_leaves_nothing(tmp_path):
    other = DiffID("sha256:" + "0" * 64)

    with pytest.raises(DigestMismatchError) as caught:
        unpack_layer(LAYER, tmp_path, other)

    assert (caught.value.expected, caught.value.found) == (other, DIFF_ID)
    assert str(caught.value) == (
        f"{tmp_path / 'layer.tar'}: layer layer.tar should have digest {other} but has {DIFF_ID}. "
        "Nothing of it was stored; get the archive anew"
    )
    assert os.listdir(tmp_path) == ["layer.tar"]


def test_sandbox_is_told_what_was_unpacked_or_what_was_wrong(tmp_path):
    sandbox = tmp_path / "sandbox"

    untar_layer(UntarLayer(blob_of(LAYER, tmp_path), str(tmp_path / "one"), None, str(sandbox)))
    with pytest.raises(LayerError) as caught:
        untar_layer(UntarLayer(blob_of(b"?" * 600, tmp_path), str(tmp_path / "two"), None, str(sandbox)))

    assert (sandbox / "stdout").read_text() == f"layer.tar: {DIFF_ID}, 2 entries, {len(LAYER)} bytes\n"
    assert (sandbox / "stderr").read_text() == f"{caught.value}\n"


@pytest.mark.root
def test_full_disk_is_an_error_of_the_system(tmp_path):
    large = tars.tar(tars.directory(b"d"), tars.file(b"d/f", bytes(1 << 20)))
    disk, archive = tmp_path / "disk", tmp_path / "archive"
    disk.mkdir()
    archive.mkdir()
    request = UntarLayer(blob_of(large, archive), str(disk / "target"))

    with pytest.raises(OSError, match="No space left on device"):
        on_file_system("tmpfs", "size=64k", str(disk), untar_layer, request)


# -- a layer that has a digest as it is stored

COMPRESSED = gzip.compress(LAYER, 1)
FORMS = {"plain": LAYER, "gzip": COMPRESSED, "zstd": COMPRESS["zstd"](LAYER), "gzip and more": COMPRESSED + bytes(600)}


def digested(data, tmp_path, algorithm="sha256", of=None):
    digest = f"{algorithm}:{hashlib.new(algorithm, data if of is None else of).hexdigest()}"
    return replace(blob_of(data, tmp_path), digest=Digest(digest))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("form", FORMS)
def test_layer_is_verified_as_it_is_stored_and_as_it_is(tmp_path, form, algorithm):
    layer = digested(FORMS[form], tmp_path, algorithm)

    counts = untar_layer(UntarLayer(layer, str(tmp_path / "target"), DIFF_ID))

    assert (counts.diff_id, counts.entries) == (DIFF_ID, 2)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("form", FORMS)
def test_layer_that_is_stored_as_something_else_is_refused(tmp_path, form, algorithm):
    layer = digested(FORMS[form], tmp_path, algorithm, of=b"other")

    with pytest.raises(DigestMismatchError, match=r"blob layer.tar should have digest") as caught:
        untar_layer(UntarLayer(layer, str(tmp_path / "target"), DIFF_ID))

    assert caught.value.expected == layer.digest
    assert os.listdir(tmp_path) == ["layer.tar"]


@pytest.mark.parametrize("form", FORMS)
def test_layer_that_is_another_though_stored_as_named_is_refused(tmp_path, form):
    other = DiffID("sha256:" + "0" * 64)

    with pytest.raises(DigestMismatchError, match=r"layer layer.tar should have digest") as caught:
        untar_layer(UntarLayer(digested(FORMS[form], tmp_path), str(tmp_path / "target"), other))

    assert (caught.value.expected, caught.value.found) == (other, DIFF_ID)


@pytest.mark.parametrize("data", [b"?" * 1000, COMPRESSED[:-15], COMPRESSED[:40] + b"\xff" * 40 + COMPRESSED[80:]])
def test_damage_is_told_from_what_the_publisher_did(tmp_path, data):
    with pytest.raises(DigestMismatchError, match=r"blob layer.tar should have digest"):
        untar_layer(UntarLayer(digested(data, tmp_path, of=COMPRESSED), str(tmp_path / "target"), DIFF_ID))
    with pytest.raises(LayerError):
        untar_layer(UntarLayer(digested(data, tmp_path), str(tmp_path / "target"), DIFF_ID))


def test_plain_layer_is_hashed_once(tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(seams.HASHER, hashed.append)

    untar_layer(UntarLayer(digested(LAYER, tmp_path), str(tmp_path / "target"), DIFF_ID))

    assert hashed == []


def test_layer_that_is_refused_early_is_hashed_to_its_end(tmp_path):
    escaping = tars.tar(tars.file(b"../x"), tars.file(b"rest", random.Random(1).randbytes(3 << 20)))

    with pytest.raises(EscapingEntryError):  # not DigestMismatchError: the bytes are the publisher's
        untar_layer(UntarLayer(digested(gzip.compress(escaping, 1), tmp_path), str(tmp_path / "target"), DIFF_ID))
