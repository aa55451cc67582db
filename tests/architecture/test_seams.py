"""What tests replace inside the package has its one name in ``tests/support/seams.py``, and is there."""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import seams

TESTS = Path(__file__).parents[1]
SEAMS = {name: value for name, value in vars(seams).items() if name.isupper() and not name.startswith("_")}


@pytest.mark.parametrize("names", SEAMS.values(), ids=SEAMS)
def test_what_tests_replace_is_there(names: str | tuple[str, ...]) -> None:
    for name in [names] if isinstance(names, str) else names:
        pkgutil.resolve_name(name)


def test_nothing_else_inside_the_package_is_replaced() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        for line in replacements(ast.parse(path.read_text()))
    ]

    assert found == []


def replacements(module: ast.Module) -> Iterator[int]:
    """Yield the lines that replace what was imported from the package, save methods of every disk."""
    ours = {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pykka_imagestore")
        for alias in node.names
    } - {"Disk"}
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and node.args and is_replacing(node.func):
            target = node.args[0]
            while isinstance(target, ast.Attribute):
                target = target.value
            is_text = isinstance(target, ast.Constant) and str(target.value).startswith("pykka_imagestore")
            if is_text or (isinstance(target, ast.Name) and target.id in ours):
                yield node.lineno


def is_replacing(function: ast.expr) -> bool:
    return ast.unparse(function) in {"monkeypatch.setattr", "patch", "patch.object", "mock.patch", "mock.patch.object"}
