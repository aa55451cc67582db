from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.text import escaped, listed, plain, shown


@given(st.text())
def test_escaped_text_is_printable_and_escaped_again_the_same(text):
    once = escaped(text)

    assert once.isprintable()
    assert escaped(once) == once
    assert not text.isprintable() or once == text


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (b"etc/motd", "'etc/motd'"),
        ("größe".encode(), "'größe'"),
        (b"\xff\n", r"'\\xff\n'"),
        ("\x1b[2J", r"'\x1b[2J'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_name_is_shown_so_that_it_harms_no_terminal(name, sentence):
    assert shown(name) == sentence


@pytest.mark.parametrize("name", ["x" * 1_000_000, "\n" * 1_000_000])
def test_long_name_is_shown_in_part(name):
    assert len(shown(name)) < 210


def test_long_text_is_escaped_in_part():
    assert escaped("\n" * 100, max_length=3) == r"\n\n\n…"


@pytest.mark.parametrize(("name", "sentence"), [("a:1", "a:1"), ("a\n", r"'a\n'"), ("x" * 201, f"'{'x' * 199}…'")])
def test_plain_name_is_left_as_it_is_and_any_other_is_shown(name, sentence):
    assert plain(name) == sentence


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b\n"]) == r"a, 'b\n'"
    assert listed([str(number) for number in range(22)]).endswith("18, 19 and 2 more")
