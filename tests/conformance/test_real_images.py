"""Archives that real tools wrote, against what other tools found in them.

The archives and their facts lie in a directory of their own, outside of the repository: ``../shared/images`` beside the
checkout, or wherever the variable IMAGESTORE_TEST_IMAGES says.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import stacked
from support.compressions import COMPRESS, INFLATE
from support.privileges import ORDINARY_USER, as_ordinary_user
from support.processes import TIMEOUT
from support.rootfs import namespace_of, no_mounts_left, python_for_all, require_mounts
from support.stacks import flatten, listing, listing_digest, tree_of

from pykka_imagestore import ArchiveError, LocalStore
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.formats.run_config import parse_run_config
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.rootfs.backend import Backend
from pykka_imagestore.rootfs.bind import Bind
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.link import Link
from pykka_imagestore.rootfs.namespace import InNamespace
from pykka_imagestore.rootfs.overlay import Overlay
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
BROKEN = {
    PARENT_LOOP: "is its own ancestor",
    "broken/ggcr-null-manifest.tar": "'manifest.json' should be a list of images, but is missing or null",
    "broken/snyk-layer-count-mismatch.tar": "has 1 layers, but its config",
    "broken/container-libs-config-size-mismatch": "what it names 'v1.0' is an artifact, no image",
    "broken/fanal-bad-index-json": "'index.json' is no JSON",
    "broken/imgutil-sparse-missing-layer": "is missing, and the store does not have it",
    "broken/sylabs-config-digest-mismatch": "has 536 bytes, but should have 525",
}
ARTIFACTS = ["oci-layout/container-libs-artifact-blobs-only", "oci-layout/notation-signed-artifact"]
OCI = [file for file in FACTS if file.startswith(("oci-archive/", "oci-layout/")) and file not in ARTIFACTS]
GIVEN_NAME = "given/name:1"


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


@dataclass(frozen=True)
class OciImage:
    """An image of an OCI layout, how it is chosen there, and what it should turn out to be."""

    file: str
    select: str
    platform: str | None
    expected: Expected

    def __str__(self):
        return f"{self.file}-{self.select[:20]}-{self.platform}"


def oci_images():
    """Yield every image of every layout by every way that leads there."""
    for file in OCI:
        top = None
        for found in FACTS[file]["facts"]["oci"]:
            top = found if found["depth"] == 0 else top
            if is_oci_image(found):
                name = f"given/name:{found['digest'][7:19]}"
                diff_ids = tuple(layer["diff_id"] for layer in found["layers"])
                tree = next((each["rootfs"] for each in FACTS[file]["tools"].values() if made(each, found)), None)
                expected = Expected((name,), diff_ids, found["config"]["digest"], tree)
                yield OciImage(file, way_to(top), platform_of(found), expected)


def is_oci_image(found):
    kinds = [found["mediaType"], (found.get("config") or {}).get("mediaType", "")]
    layers = found.get("layers", [])
    return (
        kinds[0].endswith((".manifest.v1+json", ".manifest.v2+json"))
        and kinds[1].endswith((".image.config.v1+json", ".container.image.v1+json"))
        and not any("tar_error" in layer for layer in layers)
    )


def way_to(top):
    return (top.get("annotations") or {}).get("org.opencontainers.image.ref.name", top["digest"])


def platform_of(found):
    named = found.get("platform") or found["config"]
    parts = [named.get("os"), named.get("architecture"), named.get("variant")]
    return "/".join(filter(None, parts)) or None


def made(answer, found):
    """Tell whether a tool made a tree of this very image."""
    return isinstance(answer, dict) and answer.get("dir_manifest_digest") == found["digest"] and "rootfs" in answer


OCI_IMAGES = [*oci_images()]


def as_tar(file):
    """Return an archive as a plain tar; a directory becomes one."""
    path = IMAGES / file
    if path.is_file():
        return INFLATE[FACTS[file]["facts"]["wrap"]](path.read_bytes())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(path, arcname=".")
    return packed.getvalue()


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
    directory = tmp_path_factory.mktemp("real") / "store"
    with LocalStore.start(directory, workers=2) as store:
        return Put(StorePaths(directory), {file: put_all(store, file, IMAGES / file) for file in SOUND})


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


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("file", SOUND)
def test_archive_compressed_as_a_whole_gives_the_same_images(store, tmp_path, file, compression):
    (tmp_path / "archive").write_bytes(COMPRESS[compression](as_tar(file)))

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
    assert_refused(store, tmp_path, IMAGES / file, BROKEN[file])


@pytest.mark.parametrize("compression", ["none", *COMPRESS])
@pytest.mark.parametrize("file", BROKEN)
def test_broken_archive_compressed_as_a_whole_is_refused_as_well(store, tmp_path, file, compression):
    (tmp_path / "archive").write_bytes(COMPRESS.get(compression, bytes)(as_tar(file)))

    assert_refused(store, tmp_path, tmp_path / "archive", BROKEN[file])


@pytest.mark.parametrize("file", ARTIFACTS)
def test_artifact_is_refused_with_a_sentence(store, tmp_path, file):
    assert_refused(store, tmp_path, IMAGES / file, "is an artifact, no image: its config has the media type '")


def assert_refused(store, tmp_path, archive, sentence):
    with pytest.raises(ArchiveError) as caught:
        store.put("app", archive).get(timeout=TIMEOUT)

    assert str(caught.value).startswith(f"{archive}: ")
    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()
    assert_usable_and_empty(store, tmp_path)


# -- OCI archives and layouts


@pytest.fixture(scope="module")
def oci_put(tmp_path_factory):
    """Put every image of every layout; return the store's paths and what each turned out to be."""
    directory = tmp_path_factory.mktemp("oci") / "store"
    with LocalStore.start(directory, workers=2, durable=False) as store:
        infos = {str(image): put_oci(store, image, IMAGES / image.file) for image in OCI_IMAGES}
    return StorePaths(directory), infos


def put_oci(store, image, archive):
    (name,) = image.expected.names
    put = store.put(name, archive, select=image.select, platform=image.platform)
    return put.get(timeout=TIMEOUT)


def test_there_are_oci_images_to_put():
    assert len(OCI) == 19
    assert {image.file for image in OCI_IMAGES} == set(OCI)
    assert len(OCI_IMAGES) > 50
    assert sum(image.expected.rootfs is not None for image in OCI_IMAGES) > 20


@pytest.mark.parametrize("image", OCI_IMAGES, ids=str)
def test_oci_image_is_what_other_tools_found(oci_put, image):
    info = oci_put[1][str(image)]

    assert tuple(layer.diff_id for layer in info.layers) == image.expected.diff_ids
    assert info.config_digest == image.expected.config_digest
    config = oci_put[0].config(info.config_digest).read_bytes()
    assert sha256(config) == info.config_digest


@pytest.mark.root
@pytest.mark.parametrize("image", [image for image in OCI_IMAGES if image.expected.rootfs], ids=str)
def test_oci_layers_applied_in_order_are_the_tree_that_other_tools_made(oci_put, image):
    tree = flatten([oci_put[0].layer(diff_id) for diff_id in image.expected.diff_ids])

    if "listing" in image.expected.rootfs:
        assert listing(tree) == sorted(image.expected.rootfs["listing"])
    assert listing_digest(tree) == image.expected.rootfs["listing_sha256"]
    assert len(tree) == image.expected.rootfs["entries"]


@pytest.mark.parametrize("compression", ["none", *COMPRESS])
@pytest.mark.parametrize("file", OCI)
def test_oci_archive_compressed_as_a_whole_gives_the_same_image(store, tmp_path, file, compression):
    image = next(image for image in OCI_IMAGES if image.file == file)
    (tmp_path / "archive").write_bytes(COMPRESS.get(compression, bytes)(as_tar(file)))

    info = put_oci(store, image, tmp_path / "archive")

    assert tuple(layer.diff_id for layer in info.layers) == image.expected.diff_ids
    assert info.config_digest == image.expected.config_digest


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("oci-archive/libimage-name-only.tar.gz", ["pretty-empty:latest"]),
        ("oci-layout/stereoscope-multiplatform", ["multi-platform:latest"]),
    ],
)
def test_oci_images_are_put_under_the_names_they_have(store, file, names):
    assert [info.name for info in store.load(IMAGES / file).get(timeout=TIMEOUT)] == names


@pytest.mark.parametrize(
    "file",
    [
        "oci-archive/libimage-unnamed.tar.gz",
        "oci-archive/libimage-non-docker-name.tar.gz",
        "oci-layout/stereoscope-two-tags",
        "oci-layout/regclient-testrepo",
    ],
)
def test_oci_image_without_a_name_is_there_by_its_config_digest(store, file):
    images = store.load(IMAGES / file).get(timeout=TIMEOUT)

    assert images
    for image in images:
        assert image.name == image.config_digest
        assert store.get(image.name).get(timeout=TIMEOUT) == image


# -- how images are run


def run_facts():
    """Return what other tools found in configs, by digest; of the old form there is nothing to compare."""
    facts = [FACTS[file]["facts"] for file in (*SOUND, *OCI)]
    found = {image["image_id"]: image for each in facts for image in each.get("docker", ())}
    return found | {
        image["config"]["digest"]: image["config"]
        for each in facts
        for image in filter(is_oci_image, each.get("oci", ()))
    }


def test_configs_say_of_running_what_other_tools_found(put, oci_put):
    infos = {info.config_digest: put.paths for infos in put.infos.values() for info in infos}
    infos |= dict.fromkeys((info.config_digest for info in oci_put[1].values()), oci_put[0])
    compared = 0
    for digest, facts in run_facts().items():
        config = parse_run_config(infos[digest].config(digest).read_bytes())

        assert list(config.entrypoint) == facts.get("Entrypoint", [])
        assert list(config.arguments) == facts.get("Cmd", [])
        assert [f"{name}={value}" for name, value in config.environment] == facts.get("Env", [])
        assert config.working_directory == facts.get("WorkingDir", "/")
        assert dict(config.labels) == (facts.get("Labels") or {})
        compared += 1
    assert compared > 60


# -- root file systems

importlib.import_module("pykka_imagestore.jobs.unpack.xz")  # before privileges are given up: see ordinary_users_trees
BACKENDS: dict[str, tuple[Backend, bool]] = {
    "overlay": (Overlay(), False),
    "copy": (Copy(), False),
    "link": (Link(), True),
    "bind": (Bind(), True),
}

TREES = {
    f"{file}-{number}": image
    for file in SOUND
    for number, image in enumerate(image for image in expected(file) if image.rootfs is not None)
}
OCI_TREES = {str(image): image.expected for image in OCI_IMAGES if image.expected.rootfs is not None}


@pytest.mark.root
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("image", TREES)
def test_every_backend_makes_the_tree_that_other_tools_made(put, tmp_path, image, backend):
    assert_makes(backend, TREES[image], put.paths, tmp_path)


@pytest.mark.root
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("image", OCI_TREES)
def test_every_backend_makes_the_tree_of_an_oci_image(oci_put, tmp_path, image, backend):
    assert_makes(backend, OCI_TREES[image], oci_put[0], tmp_path)


def assert_makes(backend, image, paths, place):
    require_mounts()
    maker, read_only = BACKENDS[backend]
    layers = stacked.with_fix_ups([paths.layer(diff_id) for diff_id in image.diff_ids], maker.reads, place / "stack")
    request = RootfsRequest(layers, str(place / "box"), read_only=read_only)
    if backend == "bind" and maker.refusal(request) is not None:
        pytest.skip("this is more than one layer")

    with no_mounts_left(place), stacked.made(maker, request) as mounted:
        tree = tree_of(Path(f"/proc/self/fd/{mounted.fd}"))

    if "listing" in image.rootfs:
        assert listing(tree) == sorted(image.rootfs["listing"])
    assert listing_digest(tree) == image.rootfs["listing_sha256"]


@pytest.mark.root
@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_an_ordinary_user_gets_the_same_trees_but_for_what_he_may_not_own(
    put, users_directory, package_for_all, backend
):
    package = package_for_all if backend == "overlay" else None

    trees = as_ordinary_user(ordinary_users_trees, users_directory, package)

    for name, tree in trees.items():
        whole = flatten([put.paths.layer(diff_id) for diff_id in TREES[name].diff_ids])
        assert tree == {path: of_ordinary_user(what) for path, what in whole.items() if what[0] not in "bc"}
    assert len(trees) == len(TREES)


def of_ordinary_user(what):
    """Return what a user has in the place of something of root's, or somebody else's."""
    kind, mode, _, extra = what.split(" ", 3)
    return f"{kind} {int(mode, 8) & 0o1777:04o} {ORDINARY_USER}:{ORDINARY_USER} {extra}"


def ordinary_users_trees(place, package):
    """Return the trees of all images of docker archives: copies, or overlays that run a copy of the package."""
    # In threads: the Python in use may be in a directory that only root may enter.
    with (
        WorkerPool(1, threads=True) as pool,
        LocalStore.start(place / "store", pool=pool, durable=False) as store,
    ):
        for file in SOUND:
            put_all(store, file, IMAGES / file)
    paths = StorePaths(place / "store")
    with closing(namespace_of(None if package is None else python_for_all(package))) as namespace:
        maker = Copy() if package is None else InNamespace(Overlay(), namespace)
        return {
            name: made_of(maker, image, paths, place / str(number))
            for number, (name, image) in enumerate(TREES.items())
        }


def made_of(maker, image, paths, place):
    place.mkdir()
    layers = stacked.with_fix_ups([paths.layer(diff_id) for diff_id in image.diff_ids], maker.reads, place / "stack")
    with stacked.made(maker, RootfsRequest(layers, str(place / "box"))) as mounted:
        return tree_of(Path(f"/proc/self/fd/{mounted.fd}"))
