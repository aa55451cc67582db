from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.image_name import ImageName, without_label
from pykka_imagestore.errors import InvalidNameError

CASES = json.loads(Path(__file__).with_name("references.json").read_text())["cases"]
VALID = [case for case in CASES if case["valid"]]
INVALID = [case for case in CASES if not case["valid"]]
IMAGE_IDS = [case["input"] for case in CASES if "as_image_id" in case]
SENTENCES = {  # category of refusal: what the error says
    "format": "registry|repository|tag",
    "uppercase": "not in lowercase$",
    "too-long": "characters, more than 255",
    "identifier": "image ID",
    "digest-length": "has 63 characters where sha256 has 64",
    "digest-format": "not in lowercase hexadecimal",
    "digest-algorithm": "'md5' is not one of sha256, sha384, sha512",
}
HEX = "0123456789abcdef" * 4

path_parts = st.from_regex(r"[a-z0-9]{1,4}((\.|__?|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
paths = st.lists(path_parts, min_size=1, max_size=3).map("/".join)
domains = st.one_of(
    st.sampled_from(
        ["docker.io", "index.docker.io", "localhost", "localhost:5000", "[::1]:5000", "Foo", "my_host.example"]
    ),
    st.from_regex(r"[a-zA-Z0-9]{1,3}(\.[a-zA-Z0-9]{1,3}){1,2}(:[0-9]{1,5})?", fullmatch=True),
)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,6}", fullmatch=True) | st.just("x" * 128)
digests = st.sampled_from([f"sha256:{HEX}", f"sha384:{HEX[:32] * 3}", f"sha512:{HEX * 2}"])
texts_of_names = st.tuples(
    st.just("") | domains.map("{}/".format),
    paths,
    st.just("") | tags.map(":{}".format),
    st.just("") | digests.map("@{}".format),
).map("".join)
names = texts_of_names.map(ImageName.parse_normalized)
hostile_texts = st.text() | st.text("aA0._-/:@[]% \n") | st.text("a0-/:@", min_size=1000, max_size=1100)


@pytest.mark.parametrize("case", VALID, ids=lambda case: case["input"][:40])
def test_name_has_the_parts_and_forms_that_upstream_gives_it(case):
    name = ImageName.parse_normalized(case["input"])

    assert (name.domain, name.path) == (case["domain"], case["path"])
    assert (name.tag, name.digest) == (case["tag"], case["digest"])
    assert name.normalized == case["normalized"]
    assert name.familiar == case["familiar"]
    assert name.with_default_tag().normalized == name.key == case["with_default_tag"]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case["input"][:40])
def test_text_that_upstream_refuses_is_refused_for_the_same_reason(case):
    with pytest.raises(InvalidNameError, match=SENTENCES[case["reason"]]):
        ImageName.parse_normalized(case["input"])


@pytest.mark.parametrize("text", [case["input"] for case in VALID if "as_image_id" not in case])
def test_parse_agrees_with_the_grammar_where_the_text_is_no_image_id(text):
    assert ImageName.parse(text) == ImageName.parse_normalized(text)


@pytest.mark.parametrize("text", [*IMAGE_IDS, f"library/sha256:{HEX}", f"sha512:{HEX * 2}"])
def test_image_id_is_no_name(text):
    with pytest.raises(InvalidNameError, match="image ID"):
        ImageName.parse(text)


def test_image_without_a_name_is_stored_as_the_digest_of_its_config():
    name = ImageName.parse_stored(f"sha256:{HEX}")

    assert name.stored == name.labelled == f"sha256:{HEX}"
    assert ImageName.parse_stored("ubuntu") == ImageName.parse("ubuntu")
    for text in (HEX, f"library/sha256:{HEX}", f"sha512:{HEX * 2}", "UPPER"):
        with pytest.raises(InvalidNameError):
            ImageName.parse_stored(text)


@pytest.mark.parametrize(
    "text", ["ubuntu", "library/ubuntu", "docker.io/ubuntu:latest", "index.docker.io/library/ubuntu"]
)
def test_every_spelling_of_ubuntu_is_one_image(text):
    name = ImageName.parse(text)

    assert name.key == "docker.io/library/ubuntu:latest"
    assert name.stored == "ubuntu:latest"


@pytest.mark.parametrize("text", ["docker.io/localhost/app", "docker.io/quay.io/app", "docker.io/docker.io/app"])
def test_familiar_form_of_another_image_is_not_stored(text):
    name = ImageName.parse(text)

    assert name.stored == name.key == f"{text}:latest"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a" * 1_000_000, "longer than 1024 characters"),
        ("a." * 500_000 + "/", "longer than 1024 characters"),
        ("a" * 256 + ".io/app", "registry has 259 characters, more than 255"),
        ("a" + "-" * 1000 + "/", "more than 255"),
        ("a" + "._" * 300, "more than 255"),
        ("docker.io/" + "a/" * 400, "more than 255"),
    ],
)
def test_hostile_text_is_refused_at_once_and_in_a_bounded_sentence(text, sentence):
    started = time.thread_time()

    with pytest.raises(InvalidNameError, match=sentence) as caught:
        ImageName.parse(text)

    assert time.thread_time() - started < 1
    assert len(str(caught.value)) < 3000


def test_refusal_survives_the_way_back_from_a_worker():
    with pytest.raises(InvalidNameError) as caught:
        ImageName.parse("Ubuntu")

    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@given(names)
def test_normalized_form_is_a_fixed_point(name):
    assert ImageName.parse_normalized(name.normalized) == name


@given(names)
def test_stored_form_means_the_same_image(name):
    assert ImageName.parse_normalized(name.stored).key == name.key


@given(names)
def test_labelled_form_means_the_same_image_and_keeps_the_tag(name):
    labelled = ImageName.parse_normalized(name.labelled)

    assert without_label(name.labelled) == name.stored
    assert labelled.key == name.key
    assert labelled.tag == (name.tag if name.digest else name.tag or "latest")


@given(names)
def test_default_tag_leaves_exactly_one_of_tag_and_digest(name):
    complete = name.with_default_tag()

    assert (complete.tag is None) != (complete.digest is None)
    assert complete.with_default_tag() == complete


@given(st.one_of(hostile_texts, texts_of_names))
def test_any_text_is_a_name_or_an_invalid_name(text):
    try:
        name = ImageName.parse(text)
    except InvalidNameError:
        return
    assert ImageName.parse(name.stored).key == ImageName.parse(name.key).key == name.key
