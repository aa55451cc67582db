from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.cli.json_text import parse_json, to_json
from pykka_imagestore.errors import StoreError

texts = st.text(st.characters(codec=None))  # surrogates too
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_compact_json_is_what_python_writes(value):
    assert to_json(parse_json(json.dumps(value).encode())) == json.dumps(value, separators=(",", ":"))


@given(values, st.sampled_from(["utf-8", "ascii", "latin-1", "utf-16"]))
def test_pretty_json_says_the_same_and_acts_on_no_terminal(value, encoding):
    text = to_json(value, encoding)

    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()
    assert text.encode(encoding).decode(encoding) == text


@given(values)
def test_pretty_json_is_indented_as_python_does(value):
    assert to_json(value, "ascii") == json.dumps(value, indent=2)


@pytest.mark.parametrize("data", [b"NaN", b"[-Infinity]", b"", b"{", b"\xff", b"[" * 200_000, b"1 2", b"\x1b"])
def test_what_is_no_json_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - its text is Python's
        parse_json(data)


def test_what_cannot_be_written_is_refused():
    value: list[object] = []
    for _ in range(100_000):
        value = [value]

    with pytest.raises(StoreError, match="nested too deeply"):
        to_json(value)
