"""The runtime stands on what other libraries promise; docs/runtime.md says which hooks of Pykka's it overrides."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest

import pykka_imagestore
from pykka_imagestore.runtime import Actor

ROOT = Path(pykka_imagestore.__path__[0]) / "runtime"
PAGE = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text()
ALLOWED = {
    "asyncio._get_running_loop",  # of asyncio's __all__; each await asks, and the other way raises
    "os._exit",  # documented
    "pykka.ActorRegistry._actor_refs_lock",  # in a forked child, another thread of the parent's may have held it
    "pykka.messages._ActorStop",  # what Pykka's stop() sends, and its loop takes for the end
}


def private_names(text: str) -> Iterator[str]:
    """Yield what a module takes of others that is named as private."""
    tree, imported = ast.parse(text), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("pykka_imagestore"):
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    yield from (name for name in imported.values() if re.search(r"\._[^_]", name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            first, _, rest = ast.unparse(node).partition(".")
            if first in imported:
                yield f"{imported[first]}.{rest}"


def test_the_runtime_uses_no_private_name_but_these():
    found = {name for path in ROOT.glob("*.py") for name in private_names(path.read_text())}

    assert found == ALLOWED


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from subprocess import _active", "subprocess._active"),
        ("import multiprocessing as mp\nmp.util._exit_function()", "multiprocessing.util._exit_function"),
        (
            "from multiprocessing import util\ndef f():\n    return util._finalizer_registry",
            "multiprocessing.util._finalizer_registry",
        ),
    ],
)
def test_private_name_is_found(text, name):
    assert name in private_names(text)


def test_the_page_names_each_hook_of_pykkas_that_is_overridden():
    hooks = {name for name in vars(Actor) if name in vars(pykka.Actor) and re.match("_[^_]", name)} - {"_abc_impl"}

    assert hooks == set(re.findall(r"`(_\w+)`", PAGE.partition("## With Pykka")[2])) - {"_ActorStop"}
