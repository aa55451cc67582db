from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.layers import nowhere_blob

from pykka_imagestore.core.archive_index import ArchivedImage, ArchiveIndex, RefusedImage
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.plan_put import plan_put
from pykka_imagestore.errors import (
    AmbiguousImageError,
    ArchiveError,
    DigestMismatchError,
    LimitError,
    UnsupportedArchiveError,
)

ALPHA, BETA, GAMMA = (sha256(config) for config in (b"alpha", b"beta", b"gamma"))


def image(config, *names):
    return ArchivedImage(names, config, (), ())


def index(*images):
    return ArchiveIndex("image.tar", images)


TWO_IMAGES = index(image(b"alpha", "alpha:1", "both"), image(b"beta", "beta"))
UNNAMED = index(image(b"alpha"))
BADLY_NAMED = index(image(b"alpha", "UPPER", "good"))


def put(index, name=None, select=None):
    """Return what is put: names and the config's digest."""
    planned = plan_put(index, None if name is None else ImageName.parse(name), select)
    return [(*image.names, sha256(image.config)) for image in planned]


def test_without_a_name_each_image_is_put_under_all_its_names():
    assert put(TWO_IMAGES) == [("alpha:1", "both:latest", ALPHA), ("beta:latest", BETA)]


def test_names_are_put_in_the_form_that_is_stored_and_once():
    spellings = index(image(b"alpha", "ubuntu", "docker.io/library/ubuntu:latest", "quay.io/a/b:1"))

    assert put(spellings) == [("ubuntu:latest", "quay.io/a/b:1", ALPHA)]


def test_only_image_is_put_under_the_name_asked_for_whatever_its_own():
    assert put(index(image(b"alpha", "alpha")), "other:2") == [("other:2", ALPHA)]


@pytest.mark.parametrize("name", ["alpha:1", "docker.io/library/alpha:1", "both"])
def test_name_asked_for_chooses_among_several_images(name):
    assert put(TWO_IMAGES, name) == [(ImageName.parse(name).stored, ALPHA)]


@pytest.mark.parametrize("select", ["beta", "beta:latest", "docker.io/library/beta", BETA, BETA[7:], BETA[7:19]])
def test_image_is_selected_by_a_name_or_its_config_digest(select):
    assert put(TWO_IMAGES, "other", select) == [("other:latest", BETA)]
    assert put(TWO_IMAGES, None, select) == [("beta:latest", BETA)]


@pytest.mark.parametrize("select", ["gamma", "", "UPPER", BETA[7:18], BETA[:18], "sha256:", GAMMA, BETA + "0"])
def test_selection_of_what_is_not_there_is_refused_with_what_is(select):
    with pytest.raises(AmbiguousImageError) as caught:
        put(TWO_IMAGES, "other", select)

    assert str(caught.value) == (
        f"image.tar: no image in it is {select!r}; it holds alpha:1, both, beta. Nothing was stored"
    )


def test_name_that_none_of_several_images_has_is_refused():
    with pytest.raises(AmbiguousImageError, match="which of its 2 images other:latest is; select one; it holds alpha"):
        put(TWO_IMAGES, "other")


def test_selection_of_several_images_needs_a_name_of_one():
    same_name = index(image(b"alpha", "app", "a"), image(b"beta", "app", "b"))

    assert put(same_name, "b", "app") == [("b:latest", BETA)]
    with pytest.raises(AmbiguousImageError, match="which of its 2 images other:latest is"):
        put(same_name, "other", "app")


def test_image_without_a_name_is_put_under_the_digest_of_its_config():
    assert put(UNNAMED) == [(ALPHA, ALPHA)]
    assert put(UNNAMED, "other") == [("other:latest", ALPHA)]
    assert put(index(image(b"alpha"), image(b"beta", "beta"))) == [(ALPHA, ALPHA), ("beta:latest", BETA)]


def test_legacy_image_without_a_name_needs_one():
    legacy = index(ArchivedImage((), b"alpha", (), None))

    with pytest.raises(AmbiguousImageError, match=r"the form before Docker 1.10 has no name, .*; name it yourself"):
        put(legacy)

    assert put(legacy, "other") == [("other:latest", ALPHA)]


def test_image_with_a_name_that_is_none_needs_one():
    with pytest.raises(AmbiguousImageError, match=r"'UPPER' is not an image name: .*; name the image yourself"):
        put(BADLY_NAMED)

    assert put(BADLY_NAMED, "other") == [("other:latest", ALPHA)]


def test_name_that_is_none_does_not_hide_the_others():
    several = index(image(b"alpha", "UPPER", "good"), image(b"beta", "beta"))

    assert put(several, "good") == [("good:latest", ALPHA)]


def test_refusal_lists_some_of_many_names_and_none_that_could_harm_a_terminal():
    many = index(*(image(b"%d" % number, f"name{number}", "\x1b[2J") for number in range(5000)))

    with pytest.raises(AmbiguousImageError) as caught:
        put(many, "other")

    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()
    assert "and 4980 more" in str(caught.value)


names = st.sampled_from(["a", "b:1", "docker.io/library/a", "UPPER", ""])
images = st.builds(image, st.sampled_from([b"alpha", b"beta"])) | st.builds(
    lambda config, names: image(config, *names), st.sampled_from([b"alpha", b"beta"]), st.lists(names, max_size=3)
)


@given(
    st.lists(images, min_size=1, max_size=3), names.filter(lambda name: name.islower()) | st.none(), names | st.none()
)
def test_plan_has_an_image_and_names_for_each_or_is_refused(images, name, select):
    try:
        planned = plan_put(index(*images), None if name is None else ImageName.parse(name), select)
    except AmbiguousImageError:
        return
    assert planned
    assert all(image.names for image in planned)
    assert all(ImageName.parse_stored(stored).stored == stored for image in planned for stored in image.names)
    if name is not None:
        assert [image.names for image in planned] == [(ImageName.parse(name).stored,)]


# -- tags, digests, and what cannot be put

MANIFEST = sha256(b"manifest")
TAGGED = ArchivedImage((), b"alpha", (), (), ("v1.0", "UPPER"), (MANIFEST,))
BROKEN = RefusedImage(("broken:1",), ("1",), (sha256(b"broken"),), FormatError("it is broken"), False)
ARTIFACT = RefusedImage(("sbom:1",), (), (), FormatError("it is an artifact"), True)


@pytest.mark.parametrize("select", ["v1.0", "UPPER", MANIFEST, MANIFEST[7:], MANIFEST[7:19]])
def test_image_is_selected_by_a_tag_or_its_manifest_digest(select):
    both = index(TAGGED, image(b"beta", "beta"))

    assert put(both, "other", select) == [("other:latest", ALPHA)]


def test_tag_is_no_name():
    assert put(index(TAGGED)) == [(ALPHA, ALPHA)]
    with pytest.raises(AmbiguousImageError, match=r"which of its 2 images v1.0:latest is"):
        put(index(TAGGED, image(b"beta", "beta")), "v1.0")


# -- names with a digest

INDEX = sha256(b"index")
BY_DIGEST = ArchivedImage((), b"alpha", (), (), (), (INDEX, MANIFEST))
OTHER = sha256(b"another manifest")


@pytest.mark.parametrize("digest", [MANIFEST, INDEX])
@pytest.mark.parametrize("other", [[], [image(b"beta", "beta")], [ArchivedImage((), b"beta", (), (), (), (OTHER,))]])
def test_name_with_the_digest_of_a_manifest_is_kept_with_it(digest, other):
    assert put(index(BY_DIGEST, *other), f"app@{digest}") == [(f"app@{digest}", ALPHA)]
    assert put(index(BY_DIGEST, *other), f"app@{digest}", ALPHA) == [(f"app@{digest}", ALPHA)]


def test_tag_beside_a_digest_is_a_label():
    assert put(index(BY_DIGEST), f"app:1@{MANIFEST}") == [(f"app:1@{MANIFEST}", ALPHA)]


@pytest.mark.parametrize("other", [OTHER, ALPHA, "sha512:" + "a" * 128])
@pytest.mark.parametrize("select", [None, ALPHA])
def test_name_with_another_digest_is_refused_with_that_of_the_manifest(other, select):
    with pytest.raises(DigestMismatchError) as caught:
        put(index(BY_DIGEST), f"app@{other}", select)

    assert (caught.value.expected, caught.value.found) == (other, MANIFEST)
    assert str(caught.value).startswith(f"image.tar: its manifest should have digest {other} but has {MANIFEST}. ")


def test_name_with_a_digest_that_none_of_several_images_has_is_refused_with_those_that_they_have():
    several = index(BY_DIGEST, ArchivedImage(("beta",), b"beta", (), (), (), (OTHER,)))

    with pytest.raises(AmbiguousImageError, match=rf"no image in it is app@{GAMMA}; it holds {INDEX}, .*{OTHER}"):
        put(several, f"app@{GAMMA}")


def test_archive_without_manifests_is_refused_for_a_name_with_a_digest():
    with pytest.raises(UnsupportedArchiveError) as caught:
        put(index(image(b"alpha", "app:1")), f"app@{MANIFEST}")

    assert "has no manifest to compare with app@sha256:" in str(caught.value)
    assert "put it under a name with a tag" in str(caught.value)


def test_digests_in_the_archives_own_names_are_compared():
    own = ArchivedImage((f"app:1@{MANIFEST}", f"app:2@{MANIFEST}", "app"), b"alpha", (), (), (), (MANIFEST,))
    wrong = ArchivedImage((f"app@{OTHER}",), b"alpha", (), (), (), (MANIFEST,))

    assert put(index(own)) == [(f"app:2@{MANIFEST}", "app:latest", ALPHA)]
    assert put(index(wrong), "app") == [("app:latest", ALPHA)]
    with pytest.raises(DigestMismatchError):
        put(index(wrong))
    with pytest.raises(UnsupportedArchiveError):
        put(index(image(b"alpha", f"app@{MANIFEST}")))


def test_what_cannot_be_put_is_no_matter_where_it_is_not_meant():
    mixed = ArchiveIndex("image.tar", (image(b"alpha", "alpha:1"),), (BROKEN, ARTIFACT))

    assert put(mixed, "alpha:1") == [("alpha:1", ALPHA)]
    assert put(mixed, "other", "alpha:1") == [("other:latest", ALPHA)]


@pytest.mark.parametrize(("name", "select"), [(None, None), ("other", None), ("other", "broken:1"), (None, "1")])
def test_what_is_meant_and_cannot_be_put_is_refused(name, select):
    mixed = ArchiveIndex("image.tar", (image(b"alpha", "alpha:1"),), (BROKEN, ARTIFACT))

    with pytest.raises(ArchiveError, match="it is broken"):
        put(mixed, name, select)


def test_artifacts_are_passed_over_unless_there_is_nothing_else():
    assert put(ArchiveIndex("image.tar", (image(b"alpha", "alpha:1"),), (ARTIFACT,))) == [("alpha:1", ALPHA)]
    for name in (None, "other"):
        with pytest.raises(ArchiveError, match="it is an artifact"):
            put(ArchiveIndex("image.tar", (), (ARTIFACT,)), name)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=4), st.integers(1, 40))
def test_layers_are_counted_for_each_name_that_remembers_them(shapes, most):
    layer = nowhere_blob()
    images = [
        ArchivedImage(tuple(f"i{number}:{n}" for n in range(names)), b"", (layer,) * layers, None)
        for number, (names, layers) in enumerate(shapes)
    ]
    references = sum(names * max(1, layers) for names, layers in shapes)

    if references > most:
        with pytest.raises(LimitError, match=f"it names {references} layers") as caught:
            plan_put(index(*images), None, limits=Limits(references=most))
        assert caught.value.limit == "references"
    else:
        assert len(plan_put(index(*images), None, limits=Limits(references=most))) == len(images)


def test_only_what_is_put_is_counted():
    layer = nowhere_blob()
    many = index(*(ArchivedImage((f"i:{n}",), b"", (layer,) * 10, None) for n in range(10)))

    assert len(plan_put(many, ImageName.parse("i:3"), limits=Limits(references=10))) == 1
