from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore import InvalidInputError
from pykka_imagestore.core.sizes import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("1K", 1024),
        ("1k", 1024),
        ("1KiB", 1024),
        ("1KB", 1000),
        ("20G", 20 << 30),
        ("20 GB", 20 * 10**9),
        ("1.5T", 3 << 39),
        (" 2M ", 2 << 20),
        ("1P", 1 << 50),
    ],
)
def test_size_is_what_coreutils_take_it_for(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1.G", "1e3", "1 2", "0x10", "٣", "1" * 30, "much", "1GG"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidInputError, match="is no size; write"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("12H", 43_200), ("7d", 604_800), ("2w", 1_209_600)],
)
def test_duration_has_a_unit_or_is_in_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1", "1.5h", "1y", "1 month", "٣d"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InvalidInputError, match="is no duration; write"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (1024, "1 KiB"), (120 << 10, "120 KiB"), (3 << 39, "1.5 TiB")],
)
def test_size_is_shown_with_three_digits(size, text):
    assert format_size(size) == text


@given(st.integers(0, 1 << 59))
def test_what_is_shown_is_read_as_nearly_the_same(size):
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.006, abs=1)
