from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import random

import pytest
from support import tars
from support.images import diff_id, docker_save, layer

from pykka_imagestore.core.layer_blob import Estimate
from pykka_imagestore.errors import UnsupportedArchiveError
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image

BASE, APP = layer({"etc/motd": b"hello"}), layer({"app/main": b"x" * 5000})
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": [diff_id(BASE), diff_id(APP)]}}).encode()
ONE, TWO = "1" * 64, "2" * 64


def manifest(*layers, config="config.json"):
    entry = {"Config": config, "RepoTags": ["app:1"], "Layers": [*layers]}
    return tars.file(b"manifest.json", json.dumps([entry]).encode())


@pytest.fixture
def index(tmp_path):
    """Return a function that indexes an archive of these parts."""

    def index(*parts):
        (tmp_path / "image.tar").write_bytes(tars.tar(*parts))
        return untar_image(UntarImage(str(tmp_path / "image.tar"), str(tmp_path / "inflated.tar")))

    return index


def read(blob):
    with open_blob(blob, is_verified=False) as source:
        return source.read()


def test_layers_are_found_where_they_lie(tmp_path):
    archive = docker_save(tmp_path / "image.tar", {"app:1": [BASE, APP]})

    (image,) = untar_image(UntarImage(str(archive), str(tmp_path / "inflated.tar"))).images

    assert [read(layer) for layer in image.layers] == [BASE, APP]
    assert [layer.origin for layer in image.layers] == [str(archive)] * 2
    assert image.diff_ids == (diff_id(BASE), diff_id(APP))
    assert image.unsafe_names == ("app:1",)
    assert not (tmp_path / "inflated.tar").exists()


def test_layers_of_a_compressed_archive_are_found_in_its_inflated_copy(tmp_path):
    plain = docker_save(tmp_path / "plain.tar", {"app:1": [BASE, APP]}).read_bytes()
    (tmp_path / "image.tar.xz").write_bytes(lzma.compress(plain))

    index = untar_image(UntarImage(str(tmp_path / "image.tar.xz"), str(tmp_path / "inflated.tar")))

    assert index.path == str(tmp_path / "image.tar.xz")
    assert [read(layer) for layer in index.images[0].layers] == [BASE, APP]
    assert (tmp_path / "inflated.tar").read_bytes() == plain


def test_several_images_are_found_in_the_archives_order(tmp_path):
    archive = docker_save(tmp_path / "image.tar", {"b:1,b:2": [APP], "": [BASE], "a:1": [BASE, APP]})

    index = untar_image(UntarImage(str(archive), str(tmp_path / "inflated.tar")))

    assert [image.unsafe_names for image in index.images] == [("b:1", "b:2"), (), ("a:1",)]
    assert [read(layer) for image in index.images for layer in image.layers] == [APP, BASE, BASE, APP]


@pytest.mark.parametrize(
    ("member", "named"),
    [
        (b"a/layer.tar", "a/layer.tar"),
        (b"./a/layer.tar", "a/layer.tar"),
        (b"a/layer.tar", "./a/layer.tar"),
        (b"a//layer.tar", "a/./b/../layer.tar"),
        (b"/a/layer.tar", "a/layer.tar"),
        ("größe".encode(), "größe"),
        (b"n" * 90 + b"/" + b"m" * 90, "n" * 90 + "/" + "m" * 90),
    ],
)
def test_member_is_found_however_it_is_spelled(index, member, named):
    config = tars.file(b"config.json", json.dumps({"rootfs": {"diff_ids": [diff_id(BASE)]}}).encode())

    found = index(manifest(named), config, tars.pax({b"path": member}), tars.file(b"x", BASE))

    assert read(found.images[0].layers[0]) == BASE


@pytest.mark.parametrize(
    ("link", "target"),
    [
        (b"b/layer.tar", b"../a/layer.tar"),
        (b"b/layer.tar", b"/a/layer.tar"),
        (b"b/layer.tar", b"./../a/../a/layer.tar"),
        (b"layer.tar", b"a/layer.tar"),
    ],
)
def test_layer_that_is_a_symlink_is_the_layer_it_leads_to(index, link, target):
    config = tars.file(b"config.json", json.dumps({"rootfs": {"diff_ids": [diff_id(BASE)] * 2}}).encode())

    found = index(
        manifest("a/layer.tar", link.decode()), config, tars.symlink(link, target), tars.file(b"a/layer.tar", BASE)
    )

    assert [read(layer) for layer in found.images[0].layers] == [BASE, BASE]


def test_layer_that_is_a_hard_link_is_the_layer_it_leads_to(index):
    config = tars.file(b"config.json", json.dumps({"rootfs": {"diff_ids": [diff_id(BASE)] * 2}}).encode())

    found = index(
        manifest("a.tar", "b.tar"), config, tars.file(b"a.tar", BASE), tars.hard_link(b"b.tar", b"a.tar", size=512)
    )

    assert [read(layer) for layer in found.images[0].layers] == [BASE, BASE]


def test_legacy_archive_is_read_by_its_repositories(index):
    found = index(
        tars.directory(TWO.encode() + b"/"),
        tars.file(f"{TWO}/VERSION".encode(), b"1.0"),
        tars.file(f"{TWO}/json".encode(), json.dumps({"id": TWO, "parent": ONE}).encode()),
        tars.file(f"{TWO}/layer.tar".encode(), APP),
        tars.file(f"{ONE}/json".encode(), json.dumps({"id": ONE}).encode()),
        tars.file(f"{ONE}/layer.tar".encode(), BASE),
        tars.file(b"repositories", json.dumps({"app": {"1": TWO}}).encode()),
    )

    (image,) = found.images
    assert image.unsafe_names == ("app:1",)
    assert [read(layer) for layer in image.layers] == [BASE, APP]
    assert image.diff_ids is None


def test_archive_for_both_worlds_is_read_by_its_manifest(index):
    config = f"blobs/sha256/{hashlib.sha256(CONFIG).hexdigest()}"

    found = index(
        tars.file(b"oci-layout", b"{}"),
        tars.file(b"index.json", b"{}"),
        tars.file(config.encode(), CONFIG),
        tars.file(b"blobs/sha256/a", BASE),
        tars.file(b"blobs/sha256/b", gzip.compress(APP)),
        manifest("blobs/sha256/a", "blobs/sha256/b", config=config),
    )

    assert found.images[0].config == CONFIG


def test_entries_of_a_layer_are_estimated(index):
    small_files = tars.tar(*(tars.file(b"%d" % number, b"x" * 100) for number in range(2000)))
    one_file = layer({"big": bytes(len(small_files))})
    config = json.dumps({"rootfs": {"diff_ids": [diff_id(small_files), diff_id(one_file)]}}).encode()

    found = index(
        manifest("s.tar", "o.tar"),
        tars.file(b"config.json", config),
        tars.file(b"s.tar", small_files),
        tars.file(b"o.tar", one_file),
    )

    small, one = found.images[0].layers
    assert 1500 < small.estimate.entries < 2500
    assert one.estimate.entries < 100
    assert small.cost > one.cost


def test_empty_layer_has_no_entries(index):
    config = json.dumps({"rootfs": {"diff_ids": [diff_id(b"")]}}).encode()

    found = index(manifest("e.tar"), tars.file(b"config.json", config), tars.file(b"e.tar"))

    assert (found.images[0].layers[0].size, found.images[0].layers[0].estimate) == (0, Estimate())


def test_layers_are_named_as_the_archive_calls_them(index):
    config = json.dumps({"rootfs": {"diff_ids": [diff_id(BASE)]}}).encode()

    found = index(manifest("./a.tar"), tars.file(b"config.json", config), tars.file(b"a.tar", BASE))

    blob = found.images[0].layers[0]
    assert (blob.name, blob.size) == ("./a.tar", len(BASE))


def test_sandbox_is_told_what_was_found_or_what_was_wrong(tmp_path):
    archive = docker_save(tmp_path / "image.tar", {"app:1": [BASE], "b:1": [APP]})
    sandbox = tmp_path / "sandbox"

    untar_image(UntarImage(str(archive), str(tmp_path / "inflated.tar"), str(sandbox)))
    archive.write_bytes(b"?")
    with pytest.raises(UnsupportedArchiveError) as caught:
        untar_image(UntarImage(str(archive), str(tmp_path / "inflated.tar"), str(sandbox)))

    assert (sandbox / "stdout").read_text() == f"{archive}: 2 images\n"
    assert (sandbox / "stderr").read_text() == f"{caught.value}\n"


def test_archive_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        untar_image(UntarImage(str(tmp_path / "none.tar"), str(tmp_path / "inflated.tar")))


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_compressed_layers_are_estimated_from_their_beginning(index, compress):
    small_files = layer({f"f{number}": random.Random(number).randbytes(500) for number in range(2000)})
    config = json.dumps({"rootfs": {"diff_ids": [diff_id(small_files)]}}).encode()

    found = index(manifest("s.tar"), tars.file(b"config.json", config), tars.file(b"s.tar", compress(small_files)))

    (small,) = found.images[0].layers
    assert 1500 < small.estimate.entries < 2500
    assert 0.8 < small.estimate.inflated_bytes / len(small_files) < 1.2


def test_damaged_layer_is_estimated_and_refused_later(index):
    damaged = gzip.compress(BASE)[:20] + bytes(100)
    config = json.dumps({"rootfs": {"diff_ids": [diff_id(BASE)]}}).encode()

    found = index(manifest("d.tar"), tars.file(b"config.json", config), tars.file(b"d.tar", damaged))

    assert found.images[0].layers[0].cost < 100_000
