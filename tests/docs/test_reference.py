"""The reference has every public name, and every error what to do about it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest
from support.pages import DOCS

import pykka_imagestore
from pykka_imagestore import errors, runtime
from pykka_imagestore.runtime import errors as runtime_errors

REFERENCE = DOCS / "reference"
ERRORS = {pykka_imagestore: errors, runtime: runtime_errors}


def documented() -> Iterator[tuple[str, str]]:
    """Return what the pages have: modules, and names in them."""
    for page in sorted(REFERENCE.glob("*.md")):
        module = ""
        for directive, name in re.findall(r"^\.\. ([\w:]+):: ([\w.]+)", page.read_text(), re.MULTILINE):
            if directive == "currentmodule":
                module = name
            else:
                yield module, name


def drawn(module: object) -> list[str]:
    """Return the errors of a module's drawing, each of which the page of errors shows."""
    return re.findall(r"^ *(\w+(?:Error|Failure))\b", inspect.getdoc(module) or "", re.MULTILINE)


@pytest.mark.parametrize("module", ERRORS, ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference_once(module) -> None:
    shown = [name for where, name in documented() if where == module.__name__]

    errors_page = {name for each in ERRORS.values() for name in drawn(each)}
    assert sorted(shown) == sorted(set(module.__all__) - errors_page)


@pytest.mark.parametrize("module", ERRORS.values(), ids=lambda module: module.__name__)
def test_of_every_error_that_is_raised_the_drawing_says_what_to_do(module) -> None:
    said = dict(re.findall(r"^ *(\w+Error) .*: (\w.*)$", inspect.getdoc(module) or "", re.MULTILINE))
    kinds = {name: {each.__name__ for each in getattr(module, name).__mro__} for name in drawn(module)}

    silent = {name for name, bases in kinds.items() if not bases & set(said)}

    assert silent <= {"StoreError", "StateError", "RuntimeFailure", "WorkerError"}
