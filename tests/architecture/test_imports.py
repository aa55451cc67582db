"""The import rules of docs/architecture.md: imports point down, and each room keeps to its trade."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pykka_imagestore

ROOT = Path(pykka_imagestore.__path__[0])
BOTTOM = {"errors", "text", "_proto"}
CORE = {"core", "core.formats", "core.tar"} | BOTTOM
DISK_ROOMS = {"durable", "fs"}
REPORTS = {"runtime.worker"}  # how to report, and when to stop
JOBS = {"jobs", "jobs.archive", "jobs.check", "jobs.unpack"}
BELOW_PAIRS = CORE | DISK_ROOMS | JOBS | {"jobs.answers", "provision", "registry", "rootfs", "runtime"}
MAY_IMPORT = {  # room: the rooms, and single modules of others, that it may import of this package
    "errors": {"errors", "text"},
    "text": {"text"},
    "_proto": {"_proto", "runtime.lazy"},  # each message is imported when it is first used
    "core": {"core"} | BOTTOM,
    "core.formats": {"core", "core.formats"} | BOTTOM,
    "core.tar": {"core", "core.tar"} | BOTTOM,
    "durable": {"core", "durable"} | BOTTOM,
    "fs": {"core", "core.tar", "fs"} | BOTTOM,
    "registry": {"core", "core.formats", "registry"} | BOTTOM,
    "rootfs": CORE | DISK_ROOMS | {"rootfs"},
    # These two meet in one module each: what opens a blob, and what inflates one.
    "jobs.unpack": CORE | DISK_ROOMS | REPORTS | {"jobs.unpack", "jobs.archive.open_blob"},
    "jobs.archive": CORE | DISK_ROOMS | REPORTS | {"jobs.archive", "jobs.unpack.inflate"},
    "jobs.check": CORE | DISK_ROOMS | REPORTS | {"jobs.check", "jobs.unpack"},
    "jobs": CORE | DISK_ROOMS | REPORTS | JOBS | {"registry", "rootfs"},
    "jobs.answers": CORE | JOBS | {"jobs.answers", "runtime.answers"},  # names what the tasks answer
    "runtime": {"runtime"},
    "provision": CORE | DISK_ROOMS | {"provision", "rootfs", "runtime"},
    "pairs": BELOW_PAIRS | {"pairs"},
    "public names": {"core", "errors", "pairs", "provision", "runtime"},
    "__main__": {"cli"},
    "cli": BELOW_PAIRS | {"cli", "pairs", "public names"},
    "cli.verbs": BELOW_PAIRS | {"cli", "pairs", "public names"},  # and no other verb
}
DISK = {"fcntl", "mmap", "os", "pathlib", "shutil", "tempfile"}
NETWORK_CLOCK_THREADS = {"asyncio", "logging", "multiprocessing", "random", "socket", "subprocess", "threading", "time"}
MAY_NOT_IMPORT = {  # room, with those in it: what it may import of no other package
    "core": {"pykka"} | (DISK - {"pathlib"}) | NETWORK_CLOCK_THREADS,
    "durable": {"pykka"},
    "fs": {"pykka"} | (NETWORK_CLOCK_THREADS - {"random"}),
    "jobs": {"pykka"},
    "provision": {"pykka"},
    "registry": {"pykka"} | DISK,
    "rootfs": {"pykka"},
}
SYNCING = {"fdatasync", "fsync", "syncfs"}
MAY_SYNC = {"durable"}
WALKING = {"fwalk", "glob", "iglob", "iterdir", "listdir", "rglob", "rmtree", "scandir"}
MAY_WALK = {"durable", "fs", "jobs", "jobs.check", "jobs.unpack"}  # durable lists the store's own directories


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield each module with its room."""
    for path in sorted(root.rglob("*.py")):
        *parents, name = path.relative_to(root).with_suffix("").parts
        yield (".".join(parents) if parents else room_of(name)), path


def room_of(name: str) -> str:
    """Return the room of a name in the package: its directory, or what a file beside the directories is."""
    parts = name.split(".")
    rooms = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    found = next((room for room in rooms if room in MAY_IMPORT), None)
    if found is not None:
        return found
    return "public names" if parts[0] in ("__init__", *pykka_imagestore.__all__) else "pairs"


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from pkg import core` names core only after the `import`. Relative imports are ruff's to refuse.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_violations(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)} of room {room!r} imports {name}"
        for room, path in modules(root)
        for name in imports(ast.parse(path.read_text()))
        if not is_allowed(room, name)
    ]


def is_allowed(room: str, name: str) -> bool:
    top, _, rest = name.partition(".")
    if top != "pykka_imagestore":
        return top not in MAY_NOT_IMPORT.get(room.partition(".")[0], ())
    return bool(rest) and any(is_of(rest, allowed) for allowed in MAY_IMPORT[room])


def is_of(name: str, allowed: str) -> bool:
    """Tell whether a name in the package is of a room, and of none inside it, or of a module."""
    return room_of(name) == allowed if allowed in MAY_IMPORT else f"{name}.".startswith(f"{allowed}.")


def calls(root: Path, names: set[str], rooms: set[str]) -> list[str]:
    """Return where functions and methods of some names are used outside of the rooms where they may be."""
    return [
        f"{path.relative_to(root)}:{node.lineno} uses {node.attr}"
        for room, path in modules(root)
        if room not in rooms
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in names
    ]


def import_graph(root: Path) -> dict[str, set[str]]:
    """Return which modules of the package each one imports when it is imported itself."""
    named = {
        ".".join(("pykka_imagestore", *path.relative_to(root).with_suffix("").parts)): imported_first(path)
        for _, path in modules(root)
    }
    return {
        module: {name if name in named else name.rpartition(".")[0] for name in names} & named.keys()
        for module, names in named.items()
    }


def imported_first(path: Path) -> set[str]:
    """Return what a module imports at its top: not for a type checker only, and not in a function."""
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return set(imports(ast.Module([*top], [])))


def test_every_directory_is_a_room_with_rules():
    assert {room for room, _ in modules(ROOT)} <= MAY_IMPORT.keys()


def test_imports_point_down():
    assert import_violations(ROOT) == []


def test_modules_do_not_import_each_other_in_a_circle():
    TopologicalSorter(import_graph(ROOT)).prepare()


def test_only_durable_syncs():
    assert calls(ROOT, SYNCING, MAY_SYNC) == []


def test_directories_are_read_only_where_somebody_has_thought_of_what_may_be_in_them():
    assert calls(ROOT, WALKING, MAY_WALK) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/a.py", "from pykka_imagestore.durable.disk import Disk"),
        ("core/a.py", "from pykka_imagestore import jobs"),
        ("core/a.py", "import pykka_imagestore"),
        ("core/a.py", "from pykka_imagestore.core.tar.reader import read_entries"),
        ("core/a.py", "from pykka_imagestore.core import formats"),
        ("core/deep/a.py", "import os.path"),
        ("core/formats/a.py", "from pykka_imagestore.core.tar.format import BLOCK"),
        ("core/formats/a.py", "import os"),
        ("core/tar/a.py", "from pykka_imagestore.core.formats.json_fields import parse_json"),
        ("core/tar/a.py", "import socket"),
        ("durable/a.py", "from pykka_imagestore.jobs.untar import untar"),
        ("durable/a.py", "from pykka_imagestore.fs.walk import Walk"),
        ("durable/a.py", "from pykka_imagestore.runtime.worker import report"),
        ("fs/a.py", "from pykka_imagestore.jobs.unpack.layer_stream import LayerStream"),
        ("fs/a.py", "from pykka_imagestore.durable.disk import Disk"),
        ("fs/a.py", "from pykka_imagestore.core.formats import oci_layout"),
        ("fs/a.py", "import socket"),
        ("registry/a.py", "from pykka_imagestore.durable.disk import Disk"),
        ("registry/a.py", "from pykka_imagestore.fs.walk import Walk"),
        ("registry/a.py", "from pykka_imagestore.rootfs.overlay import Overlay"),
        ("registry/a.py", "import os"),
        ("registry/a.py", "from pathlib import Path"),
        ("rootfs/a.py", "from pykka_imagestore.registry.client import Client"),
        ("rootfs/a.py", "from pykka_imagestore.jobs.unpack.extractor import Extractor"),
        ("rootfs/a.py", "from pykka_imagestore.runtime.worker import report"),
        ("jobs/a.py", "import pykka"),
        ("jobs/a.py", "def late():\n    from pykka import ThreadingActor"),
        ("jobs/a.py", "from pykka_imagestore.local_store import LocalStore"),
        ("jobs/a.py", "from pykka_imagestore.runtime import WorkerPool"),
        ("jobs/a.py", "from pykka_imagestore.runtime.pool import WorkerPool"),
        ("jobs/unpack/a.py", "import pykka"),
        ("jobs/unpack/a.py", "from pykka_imagestore.jobs.untar_layer import untar_layer"),
        ("jobs/unpack/a.py", "from pykka_imagestore.jobs import untar_layer"),
        ("jobs/unpack/a.py", "from pykka_imagestore.jobs.archive.opening import read_at"),
        ("jobs/unpack/a.py", "from pykka_imagestore.jobs.check.findings import Findings"),
        ("jobs/unpack/a.py", "from pykka_imagestore.runtime.answers import PlainAnswers"),
        ("jobs/archive/a.py", "from pykka_imagestore.jobs.untar_image import untar_image"),
        ("jobs/archive/a.py", "from pykka_imagestore.jobs.unpack.extractor import Extractor"),
        ("jobs/archive/a.py", "from pykka_imagestore.jobs.check.findings import Findings"),
        ("jobs/check/a.py", "from pykka_imagestore.jobs.check_layer import check_layer"),
        ("jobs/a.py", "from pykka_imagestore.jobs.answers.allowlist import ALLOWED"),
        ("jobs/answers/a.py", "from pykka_imagestore.runtime.pool import WorkerPool"),
        ("jobs/answers/a.py", "from pykka_imagestore.collector import Collector"),
        ("jobs/check/a.py", "from pykka_imagestore.jobs.archive.opening import read_at"),
        ("runtime/a.py", "from pykka_imagestore.errors import StoreError"),
        ("provision/a.py", "from pykka_imagestore.staging import Staging"),
        ("provision/a.py", "from pykka_imagestore.jobs.make_stack import make_stack"),
        ("provision/a.py", "import pykka"),
        ("local_store.py", "from pykka_imagestore.cli import main"),
        ("local_store.py", "import pykka_imagestore.cli.main"),
        ("local_store.py", "from pykka_imagestore.cli.verbs import put"),
        ("cli/a.py", "from pykka_imagestore.cli.verbs.put import run"),
        ("cli/verbs/a.py", "from pykka_imagestore.cli.verbs.put import run"),
        ("cli/verbs/a.py", "from pykka_imagestore.cli import verbs"),
        ("errors.py", "from pykka_imagestore.core import image_name"),
        ("text.py", "from pykka_imagestore.errors import StoreError"),
        ("_proto/a.py", "from pykka_imagestore import errors"),
    ],
)
def test_import_against_the_rules_is_found(tmp_path, module, line):
    write(tmp_path / module, line)

    assert len(import_violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("jobs/a.py", "from pykka_imagestore.runtime.worker import report"),
        ("jobs/a.py", "from pykka_imagestore.jobs.archive.opening import read_at"),
        ("jobs/archive/a.py", "from pykka_imagestore.runtime import worker"),
        ("jobs/check/a.py", "from pykka_imagestore.jobs.unpack import layer_stream"),
        ("jobs/archive/a.py", "from pykka_imagestore.jobs.unpack.inflate import inflate"),
        ("jobs/unpack/a.py", "from pykka_imagestore.jobs.archive.open_blob import open_blob"),
        ("jobs/answers/a.py", "from pykka_imagestore.jobs.untar_layer import LayerCounts"),
        ("core/formats/a.py", "from pykka_imagestore.core import platform"),
        ("provision/a.py", "from pykka_imagestore.runtime import DiscardedError"),
        ("local_store.py", "from pykka_imagestore.collector import Collector"),
        ("provisioner.py", "from pykka_imagestore.provision.making import make"),
        ("cli/verbs/a.py", "from pykka_imagestore import LocalStore"),
    ],
)
def test_import_within_the_rules_is_fine(tmp_path, module, line):
    write(tmp_path / module, line)

    assert import_violations(tmp_path) == []


def test_directory_without_rules_is_found(tmp_path):
    write(tmp_path / "core" / "deep" / "a.py", "")

    assert {room for room, _ in modules(tmp_path)} - MAY_IMPORT.keys() == {"core.deep"}


def test_import_in_a_circle_is_found(tmp_path):
    write(tmp_path / "core" / "a.py", "from pykka_imagestore.core.b import name")
    write(tmp_path / "core" / "b.py", "from pykka_imagestore.core import a")

    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(tmp_path)).prepare()


@pytest.mark.parametrize("line", ["if TYPE_CHECKING:", "def late():"])
def test_import_for_a_type_checker_or_in_a_function_makes_no_circle(tmp_path, line):
    write(tmp_path / "core" / "a.py", "from pykka_imagestore.core.b import name")
    write(tmp_path / "core" / "b.py", f"{line}\n    from pykka_imagestore.core.a import Name")

    TopologicalSorter(import_graph(tmp_path)).prepare()


def test_sync_outside_durable_is_found(tmp_path):
    for room in ("durable", "jobs"):
        write(tmp_path / room / "a.py", "import os\nos.fsync(0)\n")

    assert calls(tmp_path, SYNCING, MAY_SYNC) == ["jobs/a.py:2 uses fsync"]


@pytest.mark.parametrize("line", ["os.scandir(path)", "os.listdir(path)", "shutil.rmtree(path)", "path.rglob('*')"])
def test_walk_outside_fs_is_found(tmp_path, line):
    for room in ("fs", "rootfs"):
        write(tmp_path / room / "a.py", line)

    assert calls(tmp_path, WALKING, MAY_WALK) == [f"rootfs/a.py:1 uses {line.split('(')[0].split('.')[1]}"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
