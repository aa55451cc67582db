from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.platform import Platform, WantedPlatform
from pykka_imagestore.errors import InvalidInputError

parts = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
texts = st.one_of(
    st.builds("/".join, st.lists(parts, min_size=2, max_size=3)),
    st.builds(
        "linux/{}/v{}".format, st.sampled_from(["arm", "arm64", "amd64", "riscv64"]), st.sampled_from([1, 6, 7, "8.0"])
    ),
)
platforms = texts.map(Platform.parse)
some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["linux", "arm"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["os", "architecture", "variant", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def suits(platform, wanted):
    return Platform.parse(platform).suits(Platform.parse(wanted))


@given(platforms)
def test_platform_is_shown_as_it_is_parsed(platform):
    assert Platform.parse(str(platform)) == platform


@given(texts)
def test_platform_is_the_same_in_capitals(text):
    assert Platform.parse(text.upper()) == Platform.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_platform_or_refused_in_one_line(text):
    try:
        assert Platform.parse(text).os
    except InvalidInputError as error:
        assert str(error).isprintable()  # noqa: PT017 - either will do


@given(some_json)
def test_any_json_is_a_platform_or_none(document):
    platform = Platform.from_fields(document)

    if platform is not None:
        assert (platform.os, bool(platform.architecture)) == (document["os"].lower(), True)


@given(platforms, platforms)
def test_platforms_that_suit_each_other_are_one(one, other):
    assert one.suits(one)
    if one.suits(other) and other.suits(one):
        assert one.age == other.age
        assert (one.os, one.architecture) == (other.os, other.architecture)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("Linux/i686", "linux/386"),
        ("linux/riscv64", "linux/riscv64"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platform_has_one_form(text, shown):
    assert str(Platform.parse(text)) == shown


@pytest.mark.parametrize(
    ("machine", "shown"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("armv5tejl", "linux/arm/v5"),
        ("armv8l", "linux/arm/v8"),
        ("i686", "linux/386"),
        ("s390x", "linux/s390x"),
        ("ppc64le", "linux/ppc64le"),
        ("loongarch64", "linux/loong64"),
    ],
)
def test_platform_of_a_machine(machine, shown):
    assert str(Platform.of_machine("Linux", machine)) == shown


@pytest.mark.parametrize("text", ["", "linux", "/", "linux/", "/arm", "linux/arm/v7/x", "linux/a b", "linux/\n", "ä/b"])
def test_text_that_is_no_platform(text):
    with pytest.raises(InvalidInputError, match=r"is no platform: it should be os/architecture"):
        Platform.parse(text)


def test_text_of_any_length_is_refused_in_a_short_sentence():
    with pytest.raises(InvalidInputError) as caught:
        Platform.parse("x" * 1_000_000)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [
        ("linux/arm/v5", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm"),
        ("linux/arm64", "linux/arm64/v9"),
        ("linux/amd64", "linux/amd64/v3"),
        ("linux/mips64/r2", "linux/mips64/r2"),
    ],
)
def test_same_or_older_variant_suits(platform, wanted):
    assert suits(platform, wanted)


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [
        ("linux/arm/v7", "linux/arm/v6"),
        ("linux/amd64/v3", "linux/amd64"),
        ("linux/arm64/v9", "linux/arm64"),
        ("linux/arm/v7", "linux/arm64"),
        ("linux/386", "linux/amd64"),
        ("windows/amd64", "linux/amd64"),
        ("linux/mips64/r6", "linux/mips64/r2"),
        ("unknown/unknown", "linux/amd64"),
    ],
)
def test_newer_variant_or_other_machine_does_not_suit(platform, wanted):
    assert not suits(platform, wanted)


def test_newer_variant_is_better():
    variants = [Platform.parse(f"linux/arm/{variant}") for variant in ("v6", "v7", "v5")]

    assert [str(platform) for platform in sorted(variants, key=lambda platform: platform.age)] == [
        "linux/arm/v5",
        "linux/arm/v6",
        "linux/arm/v7",
    ]


def test_only_a_platform_that_somebody_asked_for_is_insisted_on():
    arm, amd = Platform.parse("linux/arm64"), Platform.parse("linux/amd64")

    assert WantedPlatform(amd, is_asked=False).allows(arm)
    assert not WantedPlatform(amd, is_asked=True).allows(arm)
    assert WantedPlatform(amd, is_asked=True).allows(amd)
    assert WantedPlatform(amd, is_asked=True).allows(None)
