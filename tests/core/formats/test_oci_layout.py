from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import layer
from support.layers import nowhere_blob
from support.layouts import (
    AMD64,
    ARM64,
    CONFIG_TYPE,
    DOCKER,
    INDEX_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    OCI,
    UNKNOWN,
    Layout,
)

from pykka_imagestore.core.archive_index import ArchiveIndex
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.format_error import FormatError, UnsupportedFormatError
from pykka_imagestore.core.formats.archive_format import read_archive
from pykka_imagestore.core.layer_blob import Absent
from pykka_imagestore.core.platform import Platform, WantedPlatform
from pykka_imagestore.core.totals import Totals

BASE, APP = layer({"etc/motd": b"hello"}), layer({"app/main": b"x"})
THIS_MACHINE = WantedPlatform(Platform.parse("linux/amd64"), is_asked=False)
ATTESTATION = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}


class Members:
    """A layout's members in memory."""

    def __init__(self, members):
        self._members = members
        self.read = []

    def has(self, name):
        return name in self._members

    def names(self):
        return list(self._members)

    def blob(self, unsafe_name):
        return nowhere_blob(unsafe_name, len(self._members[unsafe_name]))

    def absent(self, reason):
        return Absent("layout", reason)

    def read_json(self, unsafe_name):
        self.read.append(unsafe_name)
        return self._members[unsafe_name]


@pytest.fixture
def layout():
    return Layout()


def asked(platform):
    return WantedPlatform(Platform.parse(platform), is_asked=True)


def read(layout, wanted=THIS_MACHINE):
    return read_members(Members(layout.all_members()), wanted)


def read_members(members, wanted=THIS_MACHINE):
    return ArchiveIndex("layout", *read_archive(members, Totals(), wanted))


def only(layout, wanted=THIS_MACHINE):
    (image,) = read(layout, wanted).images
    return image


def refusal(layout, wanted=THIS_MACHINE):
    """Return why the only thing in a layout is refused."""
    index = read(layout, wanted)
    assert index.images == ()
    (refused,) = index.refused
    assert str(refused.error).isprintable()
    return refused


def platforms_of(index):
    return [str(Platform.from_fields(json.loads(image.config))) for image in index.images]


# -- one image


def test_manifest_gives_config_layers_diff_ids_and_digests(layout):
    manifest = layout.manifest(BASE, APP)
    layout.name(manifest, "example.com/app:1")

    image = only(layout)

    assert image.unsafe_names == ("example.com/app:1",)
    assert image.diff_ids == (sha256(BASE), sha256(APP))
    assert sha256(image.config) == layout.config(BASE, APP)["digest"]
    assert image.digests == (manifest["digest"],)
    document = json.loads(layout.members[f"blobs/sha256/{manifest['digest'][7:]}"])
    assert [layer.digest for layer in image.layers] == [each["digest"] for each in document["layers"]]
    assert [layer.size for layer in image.layers] == [each["size"] for each in document["layers"]]
    assert all(layer.name == f"blobs/sha256/{layer.digest[7:]}" for layer in image.layers)


def test_blobs_may_have_sha512_digests(layout):
    data = json.dumps({**AMD64, "rootfs": {"diff_ids": []}}).encode()
    digest = f"sha512:{hashlib.sha512(data).hexdigest()}"
    layout.members[f"blobs/sha512/{digest[7:]}"] = data
    layout.name(layout.manifest(config={"mediaType": CONFIG_TYPE, "digest": digest, "size": len(data)}), "a:1")

    assert only(layout).config == data


def test_marker_may_be_missing(layout):
    layout.name(layout.manifest(BASE), "a:1")
    del layout.members["oci-layout"]

    assert only(layout).diff_ids == (sha256(BASE),)


def test_kind_of_manifest_may_be_dockers_in_name_and_oci_in_body_and_the_other_way(layout):
    docker = f"{DOCKER}distribution.manifest.v2+json"
    layout.name({**layout.manifest(BASE, fields={"mediaType": docker})}, "a:1")
    layout.name({**layout.manifest(APP, fields={"mediaType": MANIFEST_TYPE}), "mediaType": docker}, "b:1")

    assert [image.unsafe_names for image in read(layout).images] == [("a:1",), ("b:1",)]


@pytest.mark.parametrize(
    "kind",
    [
        f"{OCI}layer.v1.tar",
        f"{OCI}layer.v1.tar+gzip",
        f"{OCI}layer.v1.tar+zstd",
        f"{OCI}layer.nondistributable.v1.tar+gzip",
        f"{DOCKER}image.rootfs.diff.tar.gzip",
        f"{DOCKER}image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layer_is_taken_whatever_compression_its_media_type_says(layout, kind):
    layout.name(layout.manifest(BASE, fields={"layers": [layout.blob(BASE, kind)]}), "a:1")

    assert only(layout).layers[0].absence == ""


@pytest.mark.parametrize(
    ("kind", "absence"),
    [
        (LAYER_TYPE, "is missing"),
        (f"{DOCKER}image.rootfs.foreign.diff.tar.gzip", "is missing: it is a layer that is kept elsewhere"),
        (f"{OCI}layer.nondistributable.v1.tar", "is missing: it is a layer that is kept elsewhere"),
    ],
)
def test_layer_that_is_missing_is_noted(layout, kind, absence):
    gone = {"mediaType": kind, "digest": "sha256:" + "a" * 64, "size": 5, "urls": ["https://example.com/layer"]}
    layout.name(layout.manifest(BASE, fields={"layers": [gone]}), "a:1")

    assert only(layout).layers[0].absence == absence


# -- names


def test_one_manifest_under_two_names_is_one_image(layout):
    manifest = layout.manifest(BASE)
    layout.name(manifest, "a:1")
    layout.name({**manifest, "platform": AMD64}, "b:2")
    layout.name(manifest, "latest")

    image = only(layout)

    assert (image.unsafe_names, image.unsafe_tags) == (("a:1", "b:2"), ("latest",))


@pytest.mark.parametrize(
    ("full", "ref", "names", "tags"),
    [
        (None, "example.com/app", ("example.com/app",), ()),
        (None, "app:1", ("app:1",), ()),
        (None, "UPPER:1", ("UPPER:1",), ()),
        (None, "latest", (), ("latest",)),
        (None, "v1.0", (), ("v1.0",)),
        (None, "UPPERCASE-IS-INVALID", (), ("UPPERCASE-IS-INVALID",)),
        ("docker.io/library/app:1", "1", ("docker.io/library/app:1",), ("1",)),
        ("docker.io/library/app:1", "other:2", ("docker.io/library/app:1",), ("other:2",)),
        ("app:1", "app:1", ("app:1",), ()),
        ("NO NAME", "other:2", ("other:2",), ("NO NAME",)),
        ("NO NAME", None, (), ("NO NAME",)),
        (None, None, (), ()),
        ("", "", (), ()),
    ],
)
def test_annotations_are_names_or_tags(layout, full, ref, names, tags):
    annotations = {} if full is None else {"io.containerd.image.name": full}
    layout.name(layout.manifest(BASE), ref, **annotations)

    image = only(layout)

    assert (image.unsafe_names, image.unsafe_tags) == (names, tags)


def test_annotations_below_the_top_are_no_names(layout):
    below = layout.manifest(BASE, annotations={"org.opencontainers.image.ref.name": "inner:1"})
    layout.name(layout.index(below), "outer:1")

    assert only(layout).unsafe_names == ("outer:1",)


# -- platforms


def multi_platform(layout, *platforms):
    return [
        layout.manifest(BASE, config=layout.config(BASE, **{"variant": "", **fields}), platform=fields)
        for fields in platforms
    ]


def arm(variant):
    return {"os": "linux", "architecture": "arm", "variant": variant}


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (THIS_MACHINE, "linux/amd64"),
        (asked("linux/amd64"), "linux/amd64"),
        (asked("linux/arm64"), "linux/arm64"),
        (asked("linux/arm"), "linux/arm/v7"),
        (asked("linux/arm/v6"), "linux/arm/v6"),
        (asked("linux/arm/v8"), "linux/arm/v7"),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_index_gives_the_image_that_suits_best(layout, wanted, chosen, depth):
    descriptors = multi_platform(layout, arm("v6"), ARM64, arm("v7"), AMD64, arm("v5"))
    for _ in range(depth):
        descriptors = [layout.index(*descriptors)]
    for descriptor in descriptors:
        layout.name(descriptor, "app:1")

    assert platforms_of(read(layout, wanted)) == [chosen]


def test_image_has_the_digests_of_its_manifest_and_of_the_index_that_is_named(layout):
    manifest, other = multi_platform(layout, AMD64, ARM64)
    index = layout.index(layout.index(manifest), other)
    layout.name(index, "app:1")

    assert only(layout).digests == (index["digest"], manifest["digest"])


def test_first_of_equals_is_chosen(layout):
    first, second = layout.manifest(BASE, platform=AMD64), layout.manifest(APP, platform=AMD64)
    layout.name(layout.index(first, second), "app:1")

    assert only(layout).diff_ids == (sha256(BASE),)


def test_platform_that_no_descriptor_names_is_that_of_the_config(layout):
    descriptors = multi_platform(layout, ARM64, AMD64)
    bare = [{key: value for key, value in each.items() if key != "platform"} for each in descriptors]
    layout.name(layout.index(*bare), "app:1")

    assert platforms_of(read(layout)) == ["linux/amd64"]
    assert platforms_of(read(layout, asked("linux/arm64"))) == ["linux/arm64"]


def test_images_of_other_platforms_are_not_read(layout):
    amd, arm = multi_platform(layout, AMD64, ARM64)
    layout.name(layout.index(amd, arm), "app:1")
    del layout.members[f"blobs/sha256/{arm['digest'][7:]}"]

    assert platforms_of(read(layout)) == ["linux/amd64"]
    assert "is missing" in str(refusal(layout, asked("linux/arm64")).error)


@pytest.mark.parametrize("nested", [False, True])
def test_only_image_is_taken_for_another_platform_unless_one_was_asked_for(layout, nested):
    (descriptor,) = multi_platform(layout, ARM64)
    attestation = layout.manifest(platform=UNKNOWN, **ATTESTATION)
    layout.name(layout.index(descriptor, attestation) if nested else descriptor, "app:1")

    assert platforms_of(read(layout)) == ["linux/arm64"]
    refused = refusal(layout, asked("linux/amd64"))
    assert "what it names 'app:1' holds no image for linux/amd64, but for linux/arm64; ask for one" in str(
        refused.error
    )
    assert not refused.is_artifact


def test_index_without_a_fitting_image_says_which_there_are(layout):
    layout.name(layout.index(*multi_platform(layout, ARM64, arm("v7"))), "app:1")

    refused = refusal(layout)

    assert isinstance(refused.error, UnsupportedFormatError)
    assert "holds no image for linux/amd64, but for linux/arm64, linux/arm/v7; ask for one" in str(refused.error)


def test_images_without_names_are_chosen_by_platform_or_are_several(layout):
    for descriptor in multi_platform(layout, ARM64, AMD64):
        layout.name(descriptor)
    assert platforms_of(read(layout)) == ["linux/amd64"]

    layout.name(layout.manifest(APP, platform=AMD64))
    assert len(read(layout).images) == 2


def test_image_that_names_no_platform_is_taken_for_any(layout):
    layout.name(layout.manifest(BASE, config=layout.blob({"rootfs": {"diff_ids": [sha256(BASE)]}}, CONFIG_TYPE)), "a:1")

    assert only(layout, asked("linux/s390x")).diff_ids == (sha256(BASE),)


# -- what is no image


def artifact(layout, **fields):
    return layout.manifest(config=layout.blob({}, "application/vnd.example.config"), **fields)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (artifact, "its config has the media type 'application/vnd.example.config'"),
        (
            lambda layout: layout.manifest(fields={"artifactType": "application/vnd.example"}),
            "is an artifact of the type 'application/vnd.example', no image",
        ),
        (
            lambda layout: layout.manifest(artifactType="application/vnd.example"),
            "is an artifact of the type 'application/vnd.example', no image",
        ),
        (
            lambda layout: layout.manifest(BASE, fields={"layers": [layout.blob(b"", "application/jose+json")]}),
            "its layer 0 has the media type 'application/jose+json'",
        ),
        (
            lambda layout: layout.manifest(BASE, fields={"layers": [layout.blob(b"", f"{LAYER_TYPE}+encrypted")]}),
            f"its layer 0 has the media type '{LAYER_TYPE}+encrypted'",
        ),
        (lambda layout: layout.manifest(**ATTESTATION), "is an attestation"),
        (lambda layout: layout.manifest(platform=UNKNOWN), "is an attestation"),
        (lambda layout: layout.blob({}, "text/plain"), "has the media type 'text/plain', which is not an image's"),
        (
            lambda layout: layout.blob({}, f"{DOCKER}distribution.manifest.v1+prettyjws"),
            "is a manifest of Docker's schema 1",
        ),
        (lambda layout: layout.index(), "holds no image: it is empty"),
        (lambda layout: layout.index(artifact(layout), layout.index()), "is an artifact, no image"),
        (
            lambda layout: layout.index(artifact(layout), layout.blob({}, "text/plain")),
            "holds no image: its first manifest is an artifact",
        ),
    ],
)
def test_what_is_no_image_is_refused_by_name_and_passed_over_beside_one(layout, make, sentence):
    layout.name(make(layout), "thing:1")

    refused = refusal(layout)
    assert sentence in str(refused.error)
    assert "'thing:1'" in str(refused.error)
    assert refused.is_artifact

    layout.name(layout.manifest(BASE), "app:1")
    assert [image.unsafe_names for image in read(layout).images] == [("app:1",)]


def test_artifacts_in_an_index_are_no_choice(layout):
    things = [artifact(layout), layout.manifest(platform=UNKNOWN), layout.blob(b"?", "text/plain")]
    layout.name(layout.index(*things, layout.manifest(BASE)), "app:1")

    assert only(layout).diff_ids == (sha256(BASE),)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    "fields", [{}, {"artifactType": "application/vnd.example"}, {"platform": {**AMD64, "os.features": ["nydus"]}}]
)
def test_artifact_for_the_same_platform_is_no_choice(layout, order, depth, fields):
    descriptors = [artifact(layout, **{"platform": AMD64, **fields}), layout.manifest(BASE, platform=AMD64)][::order]
    for _ in range(depth):
        descriptors = [layout.index(*descriptors)]
    for descriptor in descriptors:
        layout.name(descriptor, "app:1")

    assert only(layout).diff_ids == (sha256(BASE),)


def test_artifact_for_a_newer_variant_is_no_choice(layout):
    layout.name(
        layout.index(artifact(layout, platform=arm("v7")), *multi_platform(layout, arm("v6"), arm("v5"))), "a:1"
    )

    assert platforms_of(read(layout, asked("linux/arm/v7"))) == ["linux/arm/v6"]


def test_image_that_is_broken_is_not_passed_over_for_another_of_its_platform(layout):
    broken = layout.blob({"schemaVersion": 2}, MANIFEST_TYPE, platform=AMD64)
    layout.name(layout.index(broken, layout.manifest(BASE, platform=AMD64)), "app:1")

    assert "config should be an object" in str(refusal(layout).error)


def test_artifact_that_is_named_as_an_image_for_a_platform_is_refused(layout):
    layout.name(layout.index(artifact(layout, platform=AMD64)), "app:1")

    refused = refusal(layout)

    assert "is an artifact, no image" in str(refused.error)
    assert refused.is_artifact


def test_layout_that_names_nothing(layout):
    with pytest.raises(UnsupportedFormatError, match=r"its index.json names none"):
        read(layout)


@pytest.mark.parametrize("version", ["2.0.0", "0.9", ""])
def test_layout_of_another_version(layout, version):
    layout.members["oci-layout"] = json.dumps({"imageLayoutVersion": version}).encode()

    with pytest.raises(UnsupportedFormatError, match=rf"is an OCI image layout of version '{version}'; 1 is"):
        read(layout)


def test_manifest_json_is_believed_before_an_index(layout):
    config = json.dumps({"rootfs": {"diff_ids": [sha256(APP)]}}).encode()
    entry = {"Config": "config", "RepoTags": ["docker:1"], "Layers": ["layer"]}
    layout.name(layout.manifest(BASE), "oci:1")
    layout.members |= {"manifest.json": json.dumps([entry]).encode(), "config": config, "layer": APP}

    assert only(layout).unsafe_names == ("docker:1",)


@pytest.mark.parametrize(("platform", "fits"), [("linux/arm64", True), ("linux/amd64", False)])
def test_platform_asked_for_holds_for_manifest_json_too(layout, platform, fits):
    config = json.dumps({**ARM64, "rootfs": {"diff_ids": []}}).encode()
    entries = [{"Config": "config", "RepoTags": names, "Layers": []} for names in (["a:1"], None)]
    layout.members |= {"manifest.json": json.dumps(entries).encode(), "config": config}

    index = read(layout, asked(platform))

    assert len(index.images) == (2 if fits else 0)
    sentences = [str(refused.error) for refused in index.refused]
    assert sentences == [] if fits else "image 'a:1' is for linux/arm64, not for linux/amd64" in sentences[0]


# -- the shape of documents

DESCRIPTOR = {"mediaType": MANIFEST_TYPE, "digest": "sha256:" + "a" * 64, "size": 5}


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ([], "'index.json' should be an object, but is a list of 0"),
        ({}, "'index.json', schemaVersion should be 2, but is missing or null"),
        ({"schemaVersion": 3}, "'index.json', schemaVersion should be 2, but is 3"),
        ({"schemaVersion": True}, "'index.json', schemaVersion should be 2, but is true or false"),
        ({"schemaVersion": 1}, "'index.json' is a manifest of Docker's schema 1"),
        ({"schemaVersion": 2}, "'index.json' is no index: it has no manifests"),
        ({"schemaVersion": 2, "manifests": {}}, "'index.json', manifests should be a list, but is an object"),
        ({"schemaVersion": 2, "manifests": [5]}, "'index.json', manifest 0 should be an object, but is a number"),
        (
            {"schemaVersion": 2, "manifests": [], "layers": []},
            "'index.json' is ambiguous: it is named as an index, but",
        ),
        ({"schemaVersion": 2, "manifests": [], "config": None}, "'index.json' is ambiguous: it is named as an index,"),
        (
            {"schemaVersion": 2, "manifests": [], "mediaType": MANIFEST_TYPE},
            f"'index.json' is named as an index, but says that it is of the media type '{MANIFEST_TYPE}'",
        ),
        ({"schemaVersion": 2, "manifests": [], "mediaType": 5}, "'index.json', mediaType should be a string, but is a"),
    ],
)
def test_index_of_the_wrong_shape(layout, index, sentence):
    layout.members["index.json"] = json.dumps(index).encode()

    with pytest.raises(FormatError) as caught:
        read_members(Members(layout.members))

    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mediaType": None}, "mediaType should be a string, but is missing or null"),
        ({"digest": 5}, "digest should be a string, but is a number"),
        ({"size": "5"}, "size should be a number of bytes, but is a string"),
        ({"size": True}, "size should be a number of bytes, but is true or false"),
        ({"size": 5.0}, "size should be a number of bytes, but is a number"),
        ({"size": -1}, "size should be a number of bytes, but is -1"),
        ({"size": None}, "size should be a number of bytes, but is missing or null"),
        ({"annotations": None}, None),
        ({"annotations": [5]}, "annotations should be an object, but is a list of 1"),
        ({"artifactType": 5}, "artifactType should be a string, but is a number"),
        ({"platform": 5}, None),
        ({"digest": "sha256:../../secret"}, "digest should be a sha256 or sha512 digest, but is 'sha256:../../secret'"),
        ({"digest": "md5:" + "a" * 32}, f"digest should be a sha256 or sha512 digest, but is 'md5:{'a' * 32}'"),
        ({"digest": "sha256:" + "A" * 64}, f"digest should be a sha256 or sha512 digest, but is 'sha256:{'A' * 64}'"),
    ],
)
def test_descriptor_of_the_wrong_shape(layout, change, sentence):
    layout.named.append({**DESCRIPTOR, **change})

    if sentence is None:
        assert "is missing" in str(refusal(layout).error)
    else:
        with pytest.raises(FormatError) as caught:
            read(layout)
        assert f"'index.json', manifest 0, {sentence}" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"manifests": []}, "is ambiguous: it is named as a manifest, but has manifests too"),
        ({"fsLayers": []}, "is ambiguous: it is named as a manifest, but has fsLayers too"),
        ({"mediaType": INDEX_TYPE}, "is named as a manifest, but says that it is of the media type"),
        ({"schemaVersion": 1}, "is a manifest of Docker's schema 1"),
        ({"config": None}, "config should be an object, but is missing or null"),
        ({"layers": "x"}, "layers should be a list, but is a string"),
        ({"layers": [DESCRIPTOR] * 1001}, " has 1001 layers; 1000 is the limit"),
        ({"layers": []}, "has 0 layers, but its config"),
    ],
)
def test_manifest_of_the_wrong_shape(layout, fields, sentence):
    layout.name(layout.manifest(BASE, fields=fields), "app:1")

    assert sentence in str(refusal(layout).error)


def test_blob_that_many_name_is_read_once(layout):
    config = layout.config(BASE)
    manifests = [layout.manifest(BASE, config=config, fields={"annotations": {"n": str(n)}}) for n in range(50)]
    index = layout.index(*manifests)
    for number in range(100):
        layout.name(index, f"app:{number}")
    members = Members(layout.all_members())

    (image,) = read_members(members).images

    assert len(image.unsafe_names) == 100
    assert len(members.read) == len(set(members.read)) == 54


def test_image_that_many_name_has_its_layers_looked_up_once(layout):
    manifest = layout.manifest(*[BASE] * 20)
    looked_up = []
    for number in range(100):
        layout.name(manifest, f"app:{number}")
    members = Members(layout.all_members())
    blob = members.blob
    members.blob = lambda name: (looked_up.append(name), blob(name))[1]  # type: ignore[method-assign]

    (image,) = read_members(members).images

    assert len(image.layers) == 20
    assert len(image.unsafe_names) == 100
    assert len(looked_up) < 30


def test_refused_images_do_not_keep_what_was_at_hand_when_they_were(layout):
    for number in range(3):
        layout.name(layout.manifest(fields={"layers": [number]}), f"app:{number}")

    refused = read(layout).refused

    for error in (each.error for each in refused):
        assert "layer 0 should be an object" in str(error)
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_blobs_of_more_bytes_than_are_kept_are_read_again(layout):
    manifests = [layout.manifest(BASE, fields={"annotations": {"n": f"{n:01000000}"}}) for n in range(10)]
    for number, manifest in enumerate(manifests * 2):
        layout.name(manifest, f"app:{number}")
    members = Members(layout.all_members())

    images = read_members(members).images

    assert [image.unsafe_tags or image.unsafe_names for image in images] == [
        (f"app:{n}", f"app:{n + 10}") for n in range(10)
    ]
    assert 12 < len(members.read) < 50


some_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "app:1", MANIFEST_TYPE, INDEX_TYPE, CONFIG_TYPE, LAYER_TYPE, "sha256:" + "a" * 64]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "schemaVersion",
                    "manifests",
                    "mediaType",
                    "digest",
                    "size",
                    "config",
                    "layers",
                    "annotations",
                    "platform",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(st.one_of(some_json, st.fixed_dictionaries({"schemaVersion": st.just(2), "manifests": st.lists(some_json)})))
def test_any_json_as_an_index_is_read_or_refused(index):
    members = {"index.json": json.dumps(index).encode()}

    try:
        read_members(Members(members))
    except FormatError as error:
        assert str(error).isprintable()  # noqa: PT017 - either will do


@given(some_json, some_json, st.sampled_from([MANIFEST_TYPE, INDEX_TYPE]))
def test_any_json_as_a_manifest_is_read_or_refused(document, config, kind):
    layout = Layout()
    if isinstance(document, dict):
        document = {
            "schemaVersion": 2,
            **document,
            "config": layout.blob(config, CONFIG_TYPE),
        }
    layout.name(layout.blob(document, kind), "app:1")

    index = read(layout)

    assert len(index.images) + len(index.refused) == 1


@given(st.dictionaries(st.sampled_from(["os", "rootfs", "diff_ids"]), some_json))
def test_any_json_as_a_config_is_read_or_refused(config):
    layout = Layout()
    layout.name(layout.manifest(BASE, config=layout.blob(config, CONFIG_TYPE)), "app:1")

    index = read(layout)

    assert len(index.images) + len(index.refused) == 1
