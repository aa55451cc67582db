"""docs/testing.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "testing.md").read_text()


def test_each_test_that_the_page_names_is_there() -> None:
    files = list(TESTS.rglob("test_*.py"))
    found = {path.stem for path in files}
    for path in files:
        found |= set(re.findall(r"^\s*def (test_\w+)", path.read_text(), re.MULTILINE))

    assert set(re.findall(r"`(test_\w+)`", PAGE)) <= found
