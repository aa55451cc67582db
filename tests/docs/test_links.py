"""The links of the README lead somewhere; those among the pages of docs/ are checked when these are built."""

from __future__ import annotations

import re

import pytest
from support.pages import DOCS

README = DOCS.parent / "README.md"
LINKS = [link for link in re.findall(r"\]\(([^)]+)\)", README.read_text()) if "://" not in link]


def anchors(text: str) -> set[str]:
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("link", LINKS)
def test_link_of_the_readme_leads_somewhere(link: str) -> None:
    name, _, anchor = link.partition("#")

    assert (README.parent / name).exists()
    assert not anchor or anchor in anchors((README.parent / name).read_text())
