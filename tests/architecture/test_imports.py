"""The import rules of docs/architecture.md: imports point down, and each layer keeps to its trade."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pykka_imagestore

ROOT = Path(pykka_imagestore.__path__[0])
BOTTOM = {"errors", "_proto"}
MAY_IMPORT = {  # layer: the layers of this package that it may import
    "errors": {"errors"},
    "_proto": {"_proto"},
    "core": {"core"} | BOTTOM,
    "durable": {"core", "durable"} | BOTTOM,
    "fs": {"core", "fs"} | BOTTOM,
    "jobs": {"core", "durable", "fs", "jobs", "runtime"} | BOTTOM,  # runtime.worker: reports, and whether to stop
    "registry": {"core", "durable", "registry"} | BOTTOM,
    "rootfs": {"core", "durable", "rootfs"} | BOTTOM,
    "runtime": {"runtime"},
    "pairs": {"core", "durable", "fs", "jobs", "pairs", "registry", "rootfs", "runtime"} | BOTTOM,
    "public names": {"core", "errors", "pairs", "runtime"},
    "cli": {"cli", "core", "durable", "errors", "fs", "jobs", "pairs", "public names", "runtime"},
}
DISK = {"fcntl", "mmap", "os", "shutil", "tempfile"}
NETWORK_CLOCK_THREADS = {"asyncio", "logging", "multiprocessing", "random", "socket", "subprocess", "threading", "time"}
MAY_NOT_IMPORT = {  # layer: what it may import of no other package
    "core": {"pykka"} | DISK | NETWORK_CLOCK_THREADS,
    "durable": {"pykka"},
    "fs": {"pykka"} | (NETWORK_CLOCK_THREADS - {"random"}),
    "jobs": {"pykka"},
}
SYNCING = {"fdatasync", "fsync", "syncfs"}


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield each module with its layer: a directory's name, or what a file beside the directories is."""
    for path in sorted(root.rglob("*.py")):
        first, *rest = path.relative_to(root).parts
        yield (first if rest else layer_of(first.removesuffix(".py"))), path


def layer_of(name: str) -> str:
    """Return the layer of a name in the package: a directory, a module or one of the public names."""
    if name in MAY_IMPORT:
        return name
    return "public names" if name in ("__init__", *pykka_imagestore.__all__) else "pairs"


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from pkg import core` names core only after the `import`. Relative imports are ruff's to refuse.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_violations(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)} of layer {layer!r} imports {name}"
        for layer, path in modules(root)
        for name in imports(ast.parse(path.read_text()))
        if not is_allowed(layer, name)
    ]


def is_allowed(layer: str, name: str) -> bool:
    top, *rest = name.split(".")
    if top != "pykka_imagestore":
        return top not in MAY_NOT_IMPORT.get(layer, ())
    return bool(rest) and layer_of(rest[0]) in MAY_IMPORT[layer]


def sync_violations(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{node.lineno} calls {node.attr}"
        for layer, path in modules(root)
        if layer != "durable"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in SYNCING
    ]


def test_every_directory_is_a_layer_with_rules():
    assert {layer for layer, _ in modules(ROOT)} <= MAY_IMPORT.keys()


def test_imports_point_down():
    assert import_violations(ROOT) == []


def test_only_durable_syncs():
    assert sync_violations(ROOT) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/a.py", "from pykka_imagestore.durable.disk import Disk"),
        ("core/a.py", "from pykka_imagestore import jobs"),
        ("core/a.py", "import pykka_imagestore"),
        ("core/deep/a.py", "import os.path"),
        ("durable/a.py", "from pykka_imagestore.jobs.untar import untar"),
        ("fs/a.py", "from pykka_imagestore.jobs.unpack.layer_stream import LayerStream"),
        ("fs/a.py", "from pykka_imagestore.durable.disk import Disk"),
        ("fs/a.py", "import socket"),
        ("jobs/a.py", "import pykka"),
        ("jobs/a.py", "def late():\n    from pykka import ThreadingActor"),
        ("jobs/a.py", "from pykka_imagestore.local_store import LocalStore"),
        ("runtime/a.py", "from pykka_imagestore.errors import StoreError"),
        ("local_store.py", "from pykka_imagestore.cli import main"),
        ("local_store.py", "import pykka_imagestore.cli.main"),
        ("errors.py", "from pykka_imagestore.core import image_name"),
    ],
)
def test_import_that_points_up_is_found(tmp_path, module, line):
    path = tmp_path / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)

    assert len(import_violations(tmp_path)) == 1


def test_sync_outside_durable_is_found(tmp_path):
    for layer in ("durable", "jobs"):
        (tmp_path / layer).mkdir()
        (tmp_path / layer / "a.py").write_text("import os\nos.fsync(0)\n")

    assert sync_violations(tmp_path) == ["jobs/a.py:2 calls fsync"]
