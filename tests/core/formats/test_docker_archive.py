from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.layers import nowhere_blob

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.format_error import FormatError, UnsupportedFormatError, WrongDigestError
from pykka_imagestore.core.formats.docker_archive import legacy_config, read_images
from pykka_imagestore.core.formats.json_fields import MAX_NESTING
from pykka_imagestore.core.layer_blob import Absent
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.jobs.archive.member_names import no_member

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)
DIFF_IDS = [DiffID(f"sha256:{digit * 64}") for digit in "ab"]
CONFIG = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": DIFF_IDS}}).encode()
LAYERS = {"a/layer.tar": b"a", "b/layer.tar": b"b"}
ENTRY = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": list(LAYERS)}


class Members:
    """An archive's members in memory."""

    def __init__(self, members):
        self._members = {
            name: data if isinstance(data, bytes) else json.dumps(data).encode() for name, data in members.items()
        }

    def has(self, name):
        return name in self._members

    def names(self):
        return list(self._members)

    def blob(self, unsafe_name):
        if unsafe_name not in self._members:
            raise no_member(unsafe_name)
        return nowhere_blob(unsafe_name, len(self._members[unsafe_name]))

    def absent(self, reason):
        return Absent("image.tar", reason)

    def read_json(self, unsafe_name):
        self.blob(unsafe_name)
        return self._members[unsafe_name]


def read_members(members):
    return read_images(Members(members), Totals())


def saved(manifest, config=CONFIG, **members):
    """Return the images of an archive with a manifest."""
    return read_members({"manifest.json": manifest, "config.json": config, **LAYERS, **members})


def saved_long_ago(members):
    """Return the images of an archive as they were before Docker 1.10."""
    return read_members({f"{layer}/layer.tar": b"" for layer in (ONE, TWO, THREE)} | members)


# -- manifest.json


def test_manifest_gives_names_config_layers_and_diff_ids():
    (image,) = saved([ENTRY])

    assert image.unsafe_names == ("app:1",)
    assert image.config == CONFIG
    assert [layer.name for layer in image.layers] == list(LAYERS)
    assert list(image.diff_ids) == DIFF_IDS


def test_manifest_gives_several_images_in_its_order():
    images = saved([ENTRY, {**ENTRY, "RepoTags": ["b", "c"]}, {**ENTRY, "RepoTags": None}])

    assert [image.unsafe_names for image in images] == [("app:1",), ("b", "c"), ()]


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_keys_of_a_manifest_may_be_in_any_case(change):
    (image,) = saved([{change(key): value for key, value in ENTRY.items()}])

    assert (image.unsafe_names, len(image.layers)) == (("app:1",), 2)


@pytest.mark.parametrize("missing", ["RepoTags", "Layers"])
def test_list_that_is_missing_is_empty(missing):
    config = CONFIG if missing == "RepoTags" else {"rootfs": {"type": "layers"}}

    (image,) = saved([{key: value for key, value in ENTRY.items() if key != missing}], config)

    assert (len(image.unsafe_names), len(image.layers)) == ((0, 2) if missing == "RepoTags" else (1, 0))


def test_image_may_have_one_layer_twice():
    config = {"rootfs": {"diff_ids": [DIFF_IDS[0], DIFF_IDS[1], DIFF_IDS[0]]}}

    (image,) = saved([{**ENTRY, "Layers": ["a/layer.tar", "b/layer.tar", "a/layer.tar"]}], config)

    assert image.diff_ids[0] == image.diff_ids[2]


def test_manifest_wins_over_repositories():
    (image,) = saved([ENTRY], repositories={"other": {"1": ONE}})

    assert image.unsafe_names == ("app:1",)


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        (None, "'manifest.json' should be a list of images, but is missing or null"),
        ([], "'manifest.json' should be a list of images, but is a list of 0"),
        ({}, "'manifest.json' should be a list of images, but is an object"),
        ("text", "'manifest.json' should be a list of images, but is a string"),
        (5, "'manifest.json' should be a list of images, but is a number"),
        (True, "'manifest.json' should be a list of images, but is true or false"),
        ([None], "'manifest.json', image 0 should be an object, but is missing or null"),
        ([ENTRY, []], "'manifest.json', image 1 should be an object, but is a list of 0"),
        ([{}], "image 0, Config should be a string, but is missing or null"),
        ([{**ENTRY, "Config": 5}], "Config should be a string, but is a number"),
        ([{**ENTRY, "Config": ["config.json"]}], "Config should be a string, but is a list of 1"),
        ([{**ENTRY, "RepoTags": "app"}], "RepoTags should be a list, but is a string"),
        ([{**ENTRY, "RepoTags": [5]}], "RepoTags 0 should be a string, but is a number"),
        ([{**ENTRY, "Layers": {}}], "Layers should be a list, but is an object"),
        ([{**ENTRY, "Layers": [None]}], "Layers 0 should be a string, but is missing or null"),
        ([{**ENTRY, "Layers": ["a"] * 1001}], "image 0 has 1001 layers; 1000 is the limit"),
        ([ENTRY] * 10_001, "it has 10001 images; 10000 is the limit"),
        ([{**ENTRY, "RepoTags": ["a"] * 5001}] * 2, "it has 10002 names and tags; 10000 is the limit"),
        ([{**ENTRY, "Layers": ["a/layer.tar"]}], "image 0 has 1 layers, but its config 'config.json' lists 2"),
        ([{**ENTRY, "Layers": ["a/layer.tar", "c"]}], "it has no member 'c'"),
        ([{**ENTRY, "Config": "other.json"}], "it has no member 'other.json'"),
    ],
)
def test_manifest_of_another_shape_is_refused_by_field(manifest, sentence):
    with pytest.raises(FormatError) as caught:
        saved(manifest)

    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ([], "'config.json' is no image config: it has no rootfs"),
        (None, "'config.json' is no image config: it has no rootfs"),
        ({}, "'config.json' is no image config: it has no rootfs"),
        ({"rootfs": []}, "'config.json' is no image config: it has no rootfs"),
        ({"rootfs": {}}, "has 2 layers, but its config 'config.json' lists 0"),
        ({"rootfs": {"diff_ids": "sha256:"}}, "rootfs, diff_ids should be a list, but is a string"),
        ({"rootfs": {"diff_ids": [5, 6]}}, "rootfs, diff_ids 0 should be a string, but is a number"),
        (
            {"rootfs": {"diff_ids": ["sha256:ab", "x"]}},
            "diff_ids 0 should be a sha256 digest, but is 'sha256:ab'",
        ),
        ({"rootfs": {"diff_ids": ["sha256:" + "A" * 64] * 2}}, "should be a sha256 digest, but is"),
        ({"rootfs": {"diff_ids": ["sha512:" + "a" * 128] * 2}}, "should be a sha256 digest, but is"),
        ({"rootfs": {"diff_ids": ["sha256:" + "a" * 64 + "\n"] * 2}}, "should be a sha256 digest, but is"),
        ({"rootfs": {"diff_ids": ["sha256:../../../etc/passwd"] * 2}}, "should be a sha256 digest, but is"),
        (b"", "'config.json' is no JSON"),
        (b"{", "'config.json' is no JSON"),
        (b"\xff\xfe{}", "'config.json' is no JSON"),
    ],
)
def test_config_of_another_shape_is_refused_by_field(config, sentence):
    with pytest.raises(FormatError) as caught:
        saved([ENTRY], config)

    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["{}", "{}.json", "blobs/sha256/{}", "sha256:{}"])
def test_config_that_is_not_what_its_name_says_is_refused(name):
    claimed = name.format("c" * 64)

    with pytest.raises(WrongDigestError) as caught:
        saved([{**ENTRY, "Config": claimed}], **{claimed: CONFIG})

    assert (caught.value.expected, caught.value.found) == (f"sha256:{'c' * 64}", sha256(CONFIG))
    assert claimed in str(caught.value)


@pytest.mark.parametrize("name", ["{}", "{}.json", "blobs/sha256/{}", "sha256:{}", "config.json", "{}.txt"])
def test_config_that_is_what_its_name_says_is_taken(name):
    name = name.format(sha256(CONFIG).removeprefix("sha256:"))

    (image,) = saved([{**ENTRY, "Config": name}], **{name: CONFIG})

    assert image.config == CONFIG


# -- the form before Docker 1.10


def test_legacy_image_has_the_layers_of_its_parents():
    (image,) = saved_long_ago(
        {
            "repositories": {"app": {"1": THREE}},
            f"{THREE}/json": {"id": THREE, "parent": TWO},
            f"{TWO}/json": {"id": TWO, "parent": ONE},
            f"{ONE}/json": {"id": ONE},
        }
    )

    assert image.unsafe_names == ("app:1",)
    assert [layer.name for layer in image.layers] == [f"{layer}/layer.tar" for layer in (ONE, TWO, THREE)]
    assert image.diff_ids is None
    assert json.loads(image.config)["id"] == THREE


def test_legacy_image_has_all_its_names():
    first, second = saved_long_ago(
        {
            "repositories": {"app": {"1": ONE, "latest": ONE}, "other": {"1": TWO, "2": ONE}},
            f"{ONE}/json": {},
            f"{TWO}/json": {"parent": ""},
        }
    )

    assert first.unsafe_names == ("app:1", "app:latest", "other:2")
    assert second.unsafe_names == ("other:1",)


def test_legacy_archive_without_names_holds_each_layer_that_is_nobodys_parent():
    images = saved_long_ago({f"{ONE}/json": {}, f"{TWO}/json": {"parent": ONE}, f"{THREE}/json": {"parent": ONE}})

    assert [(image.unsafe_names, len(image.layers)) for image in images] == [((), 2), ((), 2)]


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"repositories": []}, "'repositories' should be an object, but is a list of 0"),
        ({"repositories": {}}, "'repositories' names no image"),
        ({"repositories": {"app": {}}}, "'repositories' names no image"),
        ({"repositories": {"app": "1"}}, "'repositories', 'app' should be an object, but is a string"),
        ({"repositories": {"app": {"1": None}}}, "'repositories', 'app', '1' should be a layer's id of 64 hex digits"),
        ({"repositories": {"app": {"1": "x"}}}, "'repositories', 'app', '1' should be a layer's id of 64 hex digits"),
        ({"repositories": {"app": {"1": ONE + "\n"}}}, "'1' should be a layer's id of 64 hex digits"),
        ({"repositories": {"app": {"1": "../" * 21 + "/"}}}, "'1' should be a layer's id of 64 hex digits"),
        ({"repositories": {"app": {"1": "4" * 64}}}, f"it has no member '{'4' * 64}/json'"),
        ({"repositories": b"{"}, "'repositories' is no JSON"),
        (
            {"repositories": {"app": {"1": ONE}}, f"{ONE}/json": []},
            f"'{ONE}/json' should be an object, but is a list",
        ),
        ({"repositories": {"app": {"1": ONE}}, f"{ONE}/json": b"?"}, f"'{ONE}/json' is no JSON"),
        ({f"{ONE}/json": {"parent": "../x"}}, f"'{ONE}/json', parent should be a layer's id of 64 hex digits"),
        ({f"{ONE}/json": b'{"x":[1e999]}'}, f"'{ONE}/json' has a number that is out of range"),
        ({f"{ONE}/json": b'{"x":NaN}'}, f"'{ONE}/json' is no JSON"),
        ({f"{ONE}/json": {"parent": 5}}, f"'{ONE}/json', parent should be a layer's id of 64 hex digits"),
        ({f"{ONE}/json": {"parent": "4" * 64}}, f"it has no member '{'4' * 64}/json'"),
        ({f"{'4' * 64}/json": {}}, f"it has no member '{'4' * 64}/layer.tar'"),
        ({"repositories": {"a": {"1": ONE}}, f"{ONE}/json": {"parent": ONE}}, f"layer {ONE} is its own ancestor"),
        (
            {"repositories": {"a": {"1": ONE}}, f"{ONE}/json": {"parent": TWO}, f"{TWO}/json": {"parent": ONE}},
            f"layer {ONE} is its own ancestor",
        ),
    ],
)
def test_legacy_archive_of_another_shape_is_refused_by_field(members, sentence):
    with pytest.raises(FormatError) as caught:
        saved_long_ago(members)

    assert sentence in str(caught.value)


def test_legacy_chain_is_bounded():
    ids = [f"{number:064x}" for number in range(1001)]
    members = {f"{layer}/json": {"parent": parent} for layer, parent in zip(ids, [*ids[1:], None], strict=True)}

    with pytest.raises(FormatError, match=f"layer {ids[0]} has 1001 layers with its ancestors; 1000 is the limit"):
        saved_long_ago({"repositories": {"a": {"1": ids[0]}}, **members})


def test_legacy_config_is_the_leafs_without_what_is_the_layers_own():
    leaf = {
        "id": ONE,
        "parent": TWO,
        "Size": 5,
        "os": "linux",
        "created": "2015-01-01T00:00:00Z",
        "config": {"Cmd": []},
    }

    config = json.loads(legacy_config(json.dumps(leaf).encode(), DIFF_IDS))

    assert config == {
        "os": "linux",
        "created": "2015-01-01T00:00:00Z",
        "config": {"Cmd": []},
        "rootfs": {"type": "layers", "diff_ids": DIFF_IDS},
        "history": [{"created": "2015-01-01T00:00:00Z"}] * 2,
    }


def test_legacy_config_is_the_same_whatever_the_order_of_the_leafs_fields():
    leaf = {"os": "linux", "architecture": "amd64"}

    configs = {legacy_config(json.dumps(dict(fields)).encode(), []) for fields in (leaf.items(), [*leaf.items()][::-1])}

    assert len(configs) == 1


# -- neither, and all at once


@pytest.mark.parametrize("members", [{}, {"readme": b""}, {"a/json": {}}, {f"{ONE[:63]}/json": {}}])
def test_archive_that_names_no_images_is_unsupported(members):
    with pytest.raises(UnsupportedFormatError, match=r"it has none of manifest.json, index.json"):
        read_members(members)


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 5000, 100_000])
@pytest.mark.parametrize("bracket", ["[]", '{"a":}'])
def test_json_that_nests_deep_is_refused(bracket, depth):
    deep = (bracket[:-1] * depth + "1" + bracket[-1] * depth).encode()

    with pytest.raises(FormatError, match=r"'manifest.json' (is no JSON|has JSON nested more than 100 deep)"):
        saved(deep)


@pytest.mark.parametrize("value", ["NaN", "[-Infinity]", '{"a":Infinity}'])
def test_what_only_python_takes_for_json_is_refused(value):
    with pytest.raises(FormatError, match=r"'manifest.json' is no JSON: -?(NaN|Infinity) is none of its values"):
        saved(value.encode())


@pytest.mark.parametrize(
    "data",
    ["[]".encode("utf-16"), "[]".encode("utf-32-be"), b"\xef\xbb\xbf[]", b'["\xed\xa0\x80"]', b'["\xff"]', b"[] \x00"],
)
def test_bytes_that_other_tools_take_for_no_json_are_refused(data):
    with pytest.raises(FormatError, match=r"'manifest.json' is no JSON"):
        saved(data)


def test_number_with_more_digits_than_python_reads_is_refused():
    with pytest.raises(FormatError, match=r"'manifest.json' has a number of more digits"):
        saved(b"9" * 5000)


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\n\x1b[2J\r" * 100])
def test_refusal_is_one_line_of_bounded_length_whatever_the_archive_says(text):
    manifests: list[dict[str, Any]] = [
        {"repositories": {text: 5}},
        {"repositories": {text: {text: 5}}},
        {"manifest.json": [{**ENTRY, "Config": text}], text: b"?"},
        {"manifest.json": [{**ENTRY, "Config": text}], text: {}},
        {"manifest.json": [{**ENTRY, "Config": text}], text: {"rootfs": {"diff_ids": [text]}}},
        {"manifest.json": [{**ENTRY, "Config": text}], text: {"rootfs": {"diff_ids": []}}},
    ]
    for members in manifests:
        with pytest.raises(FormatError) as caught:
            read_members({**LAYERS, **members})

        assert len(str(caught.value)) < 1000
        assert str(caught.value).isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([ONE, TWO, *DIFF_IDS]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just(ONE), values),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "Config": st.sampled_from(["config.json", "a/layer.tar"]) | json_values,
        "RepoTags": st.lists(st.just("app")) | json_values,
        "Layers": st.lists(st.sampled_from([*LAYERS]), max_size=2) | json_values,
    },
)
configs = st.fixed_dictionaries({"rootfs": st.fixed_dictionaries({"diff_ids": st.just(DIFF_IDS) | json_values})})


@given(st.lists(entries | json_values, max_size=3) | json_values, configs | json_values)
def test_any_json_is_read_or_refused(manifest, config):
    try:
        images = saved(manifest, config)
    except FormatError:
        return
    assert all(len(image.diff_ids) == len(image.layers) for image in images)


@given(
    st.dictionaries(st.just("app") | st.text(max_size=3), st.dictionaries(st.text(max_size=3), json_values))
    | json_values,
    st.fixed_dictionaries({"parent": st.sampled_from([ONE, TWO, THREE, None]) | json_values}) | json_values,
    st.fixed_dictionaries({"parent": st.sampled_from([ONE, TWO, THREE, None]) | json_values}) | json_values,
)
def test_any_legacy_json_is_read_or_refused(repositories, first, second):
    try:
        images = saved_long_ago({"repositories": repositories, f"{ONE}/json": first, f"{TWO}/json": second})
    except FormatError:
        return
    assert all(image.layers for image in images)
