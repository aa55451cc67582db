"""OCI layouts that lie, loop, or reach outside: each is refused in one sentence, as a tar and as a directory."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from typing import Any

import pytest
from support import tars
from support.images import diff_id, docker_save, layer
from support.layouts import CONFIG_TYPE, DOCKER, INDEX_TYPE, LAYER_TYPE, MANIFEST_TYPE, Layout, path_of
from support.processes import TIMEOUT

from pykka_imagestore.errors import (
    ArchiveChangedError,
    ArchiveError,
    DigestMismatchError,
    LayerError,
    StoreError,
    UnsupportedArchiveError,
)

LAYER, OTHER = layer({"etc/motd": b"hello"}), layer({"etc/motd": b"forged"})


@pytest.fixture(params=["tar", "directory"])
def refuse(request, store, tmp_path):
    """Return a function that sees that a layout is refused, and that nothing of it is left."""

    def refuse(layout, match, error=ArchiveError):
        write = layout.write_tar if request.param == "tar" else layout.write_directory
        assert_refuses(store, tmp_path, write(tmp_path / "hostile"), match, error)

    return refuse


def assert_refuses(store, tmp_path, archive, match, error=ArchiveError):
    (tmp_path / "secret").write_bytes(LAYER)

    with pytest.raises(error, match=match) as caught:
        store.put("app", archive).get(timeout=TIMEOUT)

    assert str(caught.value).startswith(f"{archive}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    for directory in ("staging", "layers", "configs"):
        assert os.listdir(tmp_path / "store" / directory) == []
    assert store.list().get(timeout=TIMEOUT) == ()
    assert (tmp_path / "secret").read_bytes() == LAYER
    good = docker_save(tmp_path / "good.tar", {"good": [LAYER]})
    assert store.put("good", good).get(timeout=TIMEOUT).name == "good:latest"


def one_image(*layers, **options):
    layout = Layout()
    layout.name(layout.manifest(*layers, **options), "app:1")
    return layout


def change(layout, descriptor, data):
    """Let a blob be other bytes than its digest says; return its path."""
    path = path_of(descriptor["digest"])
    layout.members[path] = data
    return path


# -- digests and sizes that lie


def test_manifest_that_is_another(refuse):
    layout = Layout()
    manifest, other = layout.manifest(LAYER), layout.manifest(OTHER)
    layout.name(manifest, "app:1")
    path = change(layout, manifest, layout.members[path_of(other["digest"])])

    refuse(
        layout, rf"blob {path} should have digest {manifest['digest']} but has {other['digest']}", DigestMismatchError
    )


def test_index_that_is_another(refuse):
    layout = Layout()
    index = layout.index(layout.manifest(LAYER))
    layout.name(index, "app:1")
    path = change(layout, index, layout.members[path_of(index["digest"])].replace(b"vnd.oci", b"vnd.OCI"))

    refuse(layout, rf"blob {path} should have digest", DigestMismatchError)


def test_config_that_is_another(refuse):
    layout = Layout()
    config = layout.config(LAYER)
    layout.name(layout.manifest(LAYER, config=config), "app:1")
    path = change(layout, config, layout.members[path_of(config["digest"])].replace(b"linux", b"LINUX"))

    refuse(layout, rf"blob {path} should have digest", DigestMismatchError)


def test_layer_whose_stored_bytes_are_others_of_the_same_content(refuse):
    layout = Layout()
    stored, other = gzip.compress(LAYER, 9, mtime=0), gzip.compress(LAYER, 9, mtime=1)
    blob = layout.blob(stored, LAYER_TYPE)
    layout.name(layout.manifest(LAYER, fields={"layers": [blob]}), "app:1")
    path = change(layout, blob, other)

    refuse(layout, rf"blob {path} should have digest {blob['digest']}", DigestMismatchError)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_layer_that_is_stored_as_named_and_is_another(refuse, compress):
    layout = Layout()
    blob = layout.blob(compress(OTHER), LAYER_TYPE)
    layout.name(layout.manifest(LAYER, fields={"layers": [blob]}), "app:1")

    refuse(layout, rf"layer blobs/.* should have digest {diff_id(LAYER)} but has {diff_id(OTHER)}", DigestMismatchError)


def test_layer_that_escapes_and_is_stored_as_named(refuse):
    refuse(one_image(tars.tar(tars.file(b"../../escaped", b"x"))), r"'../../escaped' .*points outside", LayerError)


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
@pytest.mark.parametrize("size", [0, 1, 10**6, 2**63, 2**200])
def test_size_that_lies(refuse, what, size):
    layout = Layout()
    config, blob = layout.config(LAYER), layout.blob(LAYER, LAYER_TYPE)
    if what == "config":
        config["size"] = size
    elif what == "layer":
        blob["size"] = size
    manifest = layout.manifest(LAYER, config=config, fields={"layers": [blob]})
    layout.name({**manifest, "size": size} if what == "manifest" else manifest, "app:1")

    refuse(layout, rf"its blob blobs/sha256/.* has \d+ bytes, but should have {size}")


@pytest.mark.parametrize("size", [-1, -(2**70), True, 5.5, "5", None, [], {}])
def test_size_that_is_none(refuse, size):
    layout = Layout()
    layout.name({**layout.manifest(LAYER), "size": size}, "app:1")

    refuse(layout, r"'index.json', manifest 0, size should be a number of bytes, but is")


def test_layer_that_was_cut_off(refuse):
    layout = one_image(LAYER)
    (path,) = [path for path, data in layout.members.items() if data.startswith(b"\x1f\x8b")]
    layout.members[path] = layout.members[path][:-10]

    refuse(layout, rf"its blob {path} has \d+ bytes, but should have")


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_blob_that_is_missing(refuse, what):
    layout = Layout()
    config, blob = layout.config(LAYER), layout.blob(LAYER, LAYER_TYPE)
    manifest = layout.manifest(LAYER, config=config, fields={"layers": [blob]})
    layout.name(manifest, "app:1")
    path = path_of({"manifest": manifest, "config": config, "layer": blob}[what]["digest"])
    del layout.members[path]

    refuse(layout, rf"its blob {path} is missing")


# -- paths


@pytest.mark.parametrize("encoded", ["../../secret", "/etc/passwd", "..", "a/../../../secret", "", "a" * 63, "a" * 65])
def test_digest_that_leads_out(refuse, encoded):
    layout = Layout()
    layout.name({"mediaType": MANIFEST_TYPE, "digest": f"sha256:{encoded}", "size": len(LAYER)}, "app:1")

    refuse(layout, r"'index.json', manifest 0, digest should be a sha256 or sha512 digest, but is '")


@pytest.mark.parametrize("algorithm", ["..", "../..", "md5", "SHA256", "", "sha256+b64u", "blake3"])
def test_algorithm_that_is_none(refuse, algorithm):
    layout = Layout()
    layer = {"mediaType": LAYER_TYPE, "digest": f"{algorithm}:{'a' * 64}", "size": len(LAYER)}
    layout.name(layout.manifest(LAYER, fields={"layers": [layer]}), "app:1")

    refuse(layout, r"layer 0, digest should be a sha256 or sha512 digest, but is '")


@pytest.mark.parametrize("target", ["../../../../secret", "inside", "/etc/passwd"])
def test_blob_in_a_directory_that_is_a_symbolic_link(store, tmp_path, target):
    layout = Layout()
    blob = layout.blob(LAYER, LAYER_TYPE)
    layout.name(layout.manifest(LAYER, fields={"layers": [blob]}), "app:1")
    path = layout.write_directory(tmp_path / "layout") / path_of(blob["digest"])
    path.rename(path.with_name("inside"))
    path.symlink_to(target)

    assert_refuses(store, tmp_path, tmp_path / "layout", r"is no regular file; symbolic links in a directory are not")


@pytest.mark.parametrize("linked", ["index.json", "oci-layout", "blobs", "blobs/sha256"])
def test_anything_in_a_directory_that_is_a_symbolic_link(store, tmp_path, linked):
    path = one_image(LAYER).write_directory(tmp_path / "layout") / linked
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")

    assert_refuses(store, tmp_path, tmp_path / "layout", r"is no regular file; symbolic links in a directory are not")


def test_blob_in_a_directory_that_is_a_fifo(store, tmp_path):
    layout = Layout()
    blob = layout.blob(LAYER, LAYER_TYPE)
    layout.name(layout.manifest(LAYER, fields={"layers": [blob]}), "app:1")
    path = layout.write_directory(tmp_path / "layout") / path_of(blob["digest"])
    path.unlink()
    os.mkfifo(path)

    assert_refuses(store, tmp_path, tmp_path / "layout", r"is no regular file")


# -- documents of two minds


@pytest.mark.parametrize("kind", [MANIFEST_TYPE, INDEX_TYPE])
def test_document_that_is_manifest_and_index(refuse, kind):
    layout = Layout()
    both: dict[str, object] = {"manifests": [layout.manifest(OTHER)], "config": layout.config(LAYER)}
    both |= {"schemaVersion": 2, "layers": [layout.blob(LAYER, LAYER_TYPE)]}
    layout.name(layout.blob(both, kind), "app:1")

    refuse(layout, r"is ambiguous: it is named as (a manifest|an index), but has (manifests|layers) too")


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (MANIFEST_TYPE, INDEX_TYPE),
        (MANIFEST_TYPE, f"{DOCKER}distribution.manifest.list.v2+json"),
        (MANIFEST_TYPE, "text/plain"),
        (INDEX_TYPE, MANIFEST_TYPE),
    ],
)
def test_document_of_another_media_type_than_it_is_named_as(refuse, named, says):
    layout = Layout()
    make = layout.manifest if named == MANIFEST_TYPE else layout.index
    layout.name({**make(fields={"mediaType": says}), "mediaType": named}, "app:1")

    refuse(
        layout, rf"is named as an? (manifest|index), but says that it is of the media type '{says.replace('+', '.')}'"
    )


def test_manifest_that_is_named_as_an_index(refuse):
    layout = Layout()
    layout.name({**layout.manifest(LAYER), "mediaType": INDEX_TYPE}, "app:1")

    refuse(layout, r"is ambiguous: it is named as an index, but has layers too")


# -- loops and bombs


def test_index_that_names_itself(refuse):
    layout = Layout()
    itself: dict[str, Any] = {"mediaType": INDEX_TYPE, "digest": "sha256:" + "a" * 64, "size": 300}
    data = json.dumps({"schemaVersion": 2, "manifests": [itself]}).encode().ljust(300)
    layout.members[path_of(itself["digest"])] = data
    layout.name(itself, "app:1")

    refuse(layout, r"should have digest sha256:a{64} but has", DigestMismatchError)


def test_indexes_that_nest_deep(refuse):
    layout = Layout()
    descriptor = layout.manifest(LAYER)
    for _ in range(9):
        descriptor = layout.index(descriptor)
    layout.name(descriptor, "app:1")

    refuse(layout, r"its indexes are nested more than 8 deep")


def test_index_of_many_manifests(refuse):
    layout = Layout()
    layout.name(layout.index(*[layout.manifest(LAYER)] * 10_000), "app:1")

    refuse(layout, r"it has 10001 manifests, counted each time that an index names them; 10000 is the limit")


def test_index_json_of_many_manifests(refuse):
    layout = Layout()
    layout.named = [layout.manifest(LAYER)] * 10_001

    refuse(layout, r"it has 10001 manifests, counted each time that an index names them; 10000 is the limit")


def test_indexes_that_name_each_other_many_times_over_end_soon(refuse):
    layout = Layout()
    descriptor = layout.manifest(LAYER)
    for _ in range(6):
        descriptor = layout.index(*[descriptor] * 50)  # 50 to the sixth
    layout.name(descriptor, "app:1")

    refuse(layout, r"manifests, counted each time that an index names them; 10000 is the limit")


def test_large_blob_under_many_names_is_parsed_once(refuse, monkeypatch):
    layout = Layout()
    manifest = layout.manifest(LAYER, fields={"config": None, "padding": ["x" * 20] * 100_000})
    for number in range(5000):
        layout.name({"mediaType": MANIFEST_TYPE, **manifest}, f"app:{number}")
    parsed, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda text, **how: (parsed.append(len(text)), loads(text, **how))[1])

    refuse(layout, r"config should be an object, but is missing or null")

    assert len([size for size in parsed if size > 1_000_000]) <= 2  # the index, with so many names, is large too


def test_json_that_is_large_all_together(refuse):
    layout = Layout()
    for number in range(25):
        layout.name(layout.manifest(fields={"n": number, "padding": "x" * 3_000_000}), f"app:{number}")

    refuse(layout, r"bytes of JSON; 67108864 is the limit")


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
@pytest.mark.parametrize("what", ["index.json", "oci-layout", "manifest", "config"])
def test_json_that_nests_deep(refuse, what, bracket):
    layout = one_image(LAYER)
    bomb = bracket * 140_000
    if what == "manifest":
        layout.named = [layout.blob(bomb, MANIFEST_TYPE)]
    elif what == "config":
        layout.named = [layout.manifest(LAYER, config=layout.blob(bomb, CONFIG_TYPE))]
    elif what == "index.json":
        layout.named = json.loads("[" * 200 + "]" * 200)
    else:
        layout.members[what] = bomb

    refuse(layout, r" is no JSON|nested more than")


# -- what is no image


def test_attestations_alone(refuse):
    layout = Layout()
    annotations = {"vnd.docker.reference.type": "attestation-manifest"}
    unknown = {"os": "unknown", "architecture": "unknown"}
    layout.name(layout.index(*[layout.manifest(platform=unknown, annotations=annotations)] * 2), "app:1")

    refuse(layout, r"holds no image: its first manifest is an attestation", UnsupportedArchiveError)


def test_docker_schema_1(refuse):
    layout = Layout()
    old = {"schemaVersion": 1, "name": "app", "fsLayers": [{"blobSum": diff_id(LAYER)}], "history": []}
    layout.name(layout.blob(old, MANIFEST_TYPE), "app:1")

    refuse(layout, r"is a manifest of Docker's schema 1, which is not supported", UnsupportedArchiveError)


def test_artifact_with_a_tar_in_it(refuse):
    layout = Layout()
    config = layout.blob({"rootfs": {"diff_ids": [diff_id(LAYER)]}}, "application/vnd.example.chart.config")
    layout.name(layout.manifest(LAYER, config=config), "app:1")

    refuse(layout, r"is an artifact, no image: its config has the media type", UnsupportedArchiveError)


# -- layers that are not there


@pytest.mark.parametrize("kind", [LAYER_TYPE, f"{DOCKER}image.rootfs.foreign.diff.tar.gzip"])
def test_missing_layer_is_no_matter_if_the_store_has_it(store, tmp_path, kind):
    layout = Layout()
    blob = layout.blob(gzip.compress(LAYER), kind)
    layout.name(layout.manifest(LAYER, fields={"layers": [blob]}), "app:1")
    del layout.members[path_of(blob["digest"])]
    sparse = layout.write_directory(tmp_path / "sparse")
    with pytest.raises(ArchiveError, match=r"is missing.*, and the store does not have it"):
        store.load(sparse).get(timeout=TIMEOUT)
    store.put("base", docker_save(tmp_path / "base.tar", {"base": [LAYER]})).get(timeout=TIMEOUT)

    (image,) = store.load(sparse).get(timeout=TIMEOUT)

    assert [layer.diff_id for layer in image.layers] == [diff_id(LAYER)]


def test_layer_that_changes_between_its_indexing_and_its_unpacking_is_refused(tmp_path):
    from pykka_imagestore.jobs.untar_image import UntarImage, untar_image  # noqa: PLC0415
    from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer  # noqa: PLC0415

    directory = one_image(LAYER).write_directory(tmp_path / "layout")
    (image,) = untar_image(UntarImage(str(directory), "")).images
    (found,) = image.layers
    path = directory / found.name
    assert image.diff_ids
    request = UntarLayer(found, str(tmp_path / "target"), image.diff_ids[0])

    path.write_bytes(gzip.compress(OTHER))
    with pytest.raises(ArchiveChangedError):
        untar_layer(request)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match=r"is no regular file"):
        untar_layer(request)

    assert not (tmp_path / "target").exists()
