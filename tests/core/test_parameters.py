"""What a caller gives is refused in one sentence that says what was given and what is allowed."""

from __future__ import annotations

import pytest

from pykka_imagestore import InvalidInputError
from pykka_imagestore.core.parameters import parse_path, require_count, require_seconds


@pytest.mark.parametrize("value", [None, 1, 1 << 70])
def test_count_may_be_none_or_large_enough(value: object) -> None:
    require_count("workers", value, 1, "processes")


@pytest.mark.parametrize("value", [0, -1, True, 1.0, float("nan"), "3G", b"1", [1]])
def test_count_of_another_kind_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        require_count("workers", value, 1, "processes")

    assert str(refused.value) == f"workers is {value!r}; it takes a whole number of processes, at least 1, or None"


@pytest.mark.parametrize("value", [-1, -0.1, float("nan"), float("inf"), True, "7d"])
def test_seconds_of_another_kind_are_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="a number of seconds, at least 0, or None"):
        require_seconds("unused_for", value)


def test_zero_seconds_are_refused_where_nothing_could_be_done_in_them() -> None:
    require_seconds("unused_for", 0)
    with pytest.raises(InvalidInputError, match="more than 0"):
        require_seconds("layer_time_limit", 0, above_zero=True)


@pytest.mark.parametrize("value", ["", b"a", 3, None, "a\0b"])
def test_what_is_no_path_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"a path, as a str or a pathlib\.Path"):
        parse_path("directory", value)


def test_a_long_or_hostile_value_is_shown_escaped_and_cut() -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_path("directory", "\0\x1b[2J\n" + "x" * 5000)

    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300
