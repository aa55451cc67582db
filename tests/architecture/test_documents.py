"""The pages name tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"


@pytest.mark.parametrize("page", ["security.md", "testing.md"])
def test_each_test_that_a_page_names_is_there(page: str) -> None:
    files = list(TESTS.rglob("test_*.py"))
    found = {path.stem for path in files}
    for path in files:
        found |= set(re.findall(r"^\s*def (test_\w+)", path.read_text(), re.MULTILINE))

    assert set(re.findall(r"`(test_\w+)`", (DOCS / page).read_text())) <= found
