"""Archives that real tools wrote, against what other tools found in them.

The archives and their facts lie in a folder of their own, outside of the repository: ``../shared/images`` beside the
checkout, or wherever the variable IMAGESTORE_TEST_IMAGES says.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from compressions import COMPRESS, INFLATE
from stacks import flatten, listing, listing_digest

from pykka_imagestore import ArchiveError, LocalStore, StoreError, UnsupportedArchiveError
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.runtime import WorkerPool

IMAGES = Path(os.environ.get("IMAGESTORE_TEST_IMAGES", Path(__file__).parents[3] / "shared" / "images"))
if not (IMAGES / "facts.json").is_file():
    pytest.skip("the real images are not here: IMAGESTORE_TEST_IMAGES may say where", allow_module_level=True)

FACTS = {image["file"]: image for image in json.loads((IMAGES / "facts.json").read_text())["images"]}
DOCKER = ("docker-legacy/", "docker-1.10/", "docker-manifest-only/", "docker-25/")
PARENT_LOOP = "docker-legacy/docker2aci-parent-loop.tar"
# Named "unsound" there for want of a list of DiffIDs, which an image without layers need not have.
SOUND = [
    file
    for file, image in FACTS.items()
    if file.startswith(DOCKER)
    and file != PARENT_LOOP
    and (not image["facts"]["problems"] or file == "docker-25/buildkit-docker.tar")
]
BROKEN = [PARENT_LOOP, "broken/ggcr-null-manifest.tar", "broken/snyk-layer-count-mismatch.tar"]
OCI = [file for file in FACTS if file.startswith(("oci-archive/", "oci-layout/"))]
GIVEN_NAME = "given/name:1"
TIMEOUT = 60


@dataclass(frozen=True)
class Expected:
    """What an image should turn out to be.

    Attributes:
        config_digest: None for the old form, whose config is made when it is put.
        rootfs: The facts of the tree, None where no tool could make one.
    """

    names: tuple[str, ...]
    diff_ids: tuple[str, ...]
    config_digest: str | None
    rootfs: dict | None


def expected(file):
    """Return the images of an archive, in its order."""
    facts, tools = FACTS[file]["facts"], FACTS[file]["tools"]
    if "docker" not in facts:
        return [_expected_legacy(facts, tools)]
    trees = [
        next(
            (answer["rootfs"] for tool, answer in tools.items() if _speaks_of(tool, number) and "rootfs" in answer),
            None,
        )
        for number in range(len(facts["docker"]))
    ]
    return [
        Expected(
            tuple(_with_tag(name) for name in image["tags"] or [GIVEN_NAME]),
            tuple(layer["diff_id"] for layer in image["layers"]),
            image["image_id"],
            tree,
        )
        for image, tree in zip(facts["docker"], trees, strict=True)
    ]


def _speaks_of(tool, number):
    return tool.startswith("docker-archive") and ("@" not in tool or tool.endswith(f"@{number}"))


def _with_tag(name):
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _expected_legacy(facts, tools):
    ((name, tree),) = tools["legacy_rootfs"].items()
    diff_ids = tuple(facts["v1_tars"][layer]["diff_id"] for layer in tree["layers_base_first"])
    return Expected((name,), diff_ids, None, tree)


def put_all(store, file, archive):
    """Put every image of an archive under its names, or under a given name if it has none."""
    if any(GIVEN_NAME in image.names for image in expected(file)):
        return (store.put(GIVEN_NAME, archive).get(timeout=TIMEOUT),)
    return store.load(archive).get(timeout=TIMEOUT)


def named(infos):
    return {info.name: (tuple(layer.diff_id for layer in info.layers), info.config_digest) for info in infos}


def assert_are_as_expected(infos, file):
    found = named(infos)
    for image in expected(file):
        for name in image.names:
            diff_ids, config_digest = found.pop(name)
            assert diff_ids == image.diff_ids
            assert image.config_digest in (config_digest, None)
    assert found == {}


@dataclass(frozen=True)
class Put:
    """All sound archives in one store, which is closed."""

    paths: StorePaths
    infos: dict


@pytest.fixture(scope="module")
def put(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "store"
    with LocalStore.start(folder, workers=2) as store:
        return Put(StorePaths(folder), {file: put_all(store, file, IMAGES / file) for file in SOUND})


def test_there_is_something_to_put():
    assert len(SOUND) == 25
    assert sum(len(expected(file)) for file in SOUND) == 28


@pytest.mark.parametrize("file", SOUND)
def test_names_diff_ids_and_config_digests_are_what_other_tools_found(put, file):
    assert_are_as_expected(put.infos[file], file)


@pytest.mark.parametrize("file", SOUND)
def test_config_is_kept_byte_for_byte_under_its_digest(put, file):
    for info in put.infos[file]:
        config = put.paths.config(info.config_digest).read_bytes()

        assert sha256(config) == info.config_digest
        diff_ids = json.loads(config)["rootfs"].get("diff_ids") or []
        assert diff_ids == [layer.diff_id for layer in info.layers]


@pytest.mark.root
@pytest.mark.parametrize("file", SOUND)
def test_layers_applied_in_order_are_the_tree_that_other_tools_made(put, file):
    trees = [image for image in expected(file) if image.rootfs is not None]
    for image in trees:
        tree = flatten([put.paths.layer(diff_id) for diff_id in image.diff_ids])

        if "listing" in image.rootfs:
            assert listing(tree) == sorted(image.rootfs["listing"])
        assert listing_digest(tree) == image.rootfs["listing_sha256"]
        assert len(tree) == image.rootfs["entries"]
    assert trees


def test_nothing_is_left_in_staging(put):
    assert os.listdir(put.paths.staging) == os.listdir(put.paths.gc) == []


def test_all_images_are_there_after_a_restart(put):
    with LocalStore.start(put.paths.root) as store:
        found = named(store.list().get(timeout=TIMEOUT))

    assert found == named(info for infos in put.infos.values() for info in infos)


@pytest.fixture
def store(tmp_path):
    """Return an empty store whose work is done by threads: those start at once."""
    with (
        ThreadPoolExecutor(2) as threads,
        LocalStore.start(tmp_path / "store", durable=False, pool=WorkerPool(executor=threads)) as store,
    ):
        yield store


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("file", SOUND)
def test_archive_compressed_as_a_whole_gives_the_same_images(store, tmp_path, file, compression):
    plain = INFLATE[FACTS[file]["facts"]["wrap"]]((IMAGES / file).read_bytes())
    (tmp_path / "archive").write_bytes(COMPRESS[compression](plain))

    infos = put_all(store, file, tmp_path / "archive")

    assert_are_as_expected(infos, file)
    assert all(layer.path.is_dir() for info in infos for layer in info.layers)


def assert_usable_and_empty(store, tmp_path):
    assert os.listdir(tmp_path / "store" / "staging") == []
    assert os.listdir(tmp_path / "store" / "layers") == []
    assert store.list().get(timeout=TIMEOUT) == ()
    assert store.put("app", IMAGES / SOUND[0]).get(timeout=TIMEOUT).name == "app:latest"


@pytest.mark.parametrize("file", BROKEN)
def test_broken_archive_is_refused_with_a_sentence(store, tmp_path, file):
    with pytest.raises(ArchiveError) as caught:
        store.load(IMAGES / file).get(timeout=TIMEOUT)

    assert str(caught.value).startswith(f"{IMAGES / file}: ")
    assert str(caught.value).isprintable()
    assert_usable_and_empty(store, tmp_path)


@pytest.mark.parametrize("file", OCI)
def test_oci_input_is_refused_as_not_supported(store, tmp_path, file):
    with pytest.raises(UnsupportedArchiveError, match="this version") as caught:
        store.put("app", IMAGES / file).get(timeout=TIMEOUT)

    assert isinstance(caught.value, StoreError)
    assert_usable_and_empty(store, tmp_path)
