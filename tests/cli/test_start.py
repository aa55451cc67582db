"""What ``imagestore list`` imports: it should be there at once, and imports take most of its time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.processes import TIMEOUT
from support.rootfs import require_mounts

# Each takes milliseconds, and a list of images needs none of them.
NEEDLESS = {
    "asyncio",
    "ctypes",
    "hashlib",
    "importlib.metadata",
    "json",
    "multiprocessing",
    "pykka",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
}
NEEDLESS_OF_OURS = {"pykka_imagestore.core.budget", "pykka_imagestore.core.inventory"}

# The package's own names are made by runtime/lazy, which imports nothing.
NEEDED = {"pykka_imagestore.runtime", "pykka_imagestore.runtime.lazy"}


def last_lines(program, store):
    """Return the last two lines that a program prints that runs the command line on a store."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=store.environment,
        timeout=TIMEOUT,
        check=True,
    )
    return done.stdout.splitlines()[-2:]


def test_list_imports_nothing_that_it_does_not_need(filled):
    program = f"""
import sys
before = set(sys.modules)
from pykka_imagestore.cli import main
status = main(["list"])
ours = {{name for name in sys.modules if name.startswith("pykka_imagestore.")}}
print(status, sorted({NEEDLESS | NEEDLESS_OF_OURS!r} & set(sys.modules) - before))
parts = {{name for name in ours if name.startswith(("pykka_imagestore.runtime", "pykka_imagestore.jobs"))}}
print(sorted(parts - {NEEDED!r}))
"""

    assert last_lines(program, filled) == ["0 []", "[]"]


@pytest.mark.root
@pytest.mark.overlay
def test_commands_that_only_mount_import_neither_actors_nor_tasks(filled):
    require_mounts()
    filled("provision", "first", "app:1")
    filled("destroy", "first")

    for words in (["provision", "box", "app:1"], ["destroy", "box"]):
        program = f"""
import sys
from pykka_imagestore.cli import main
status = main({words})
print(status, sorted({{"pykka", "secrets", "socket", "subprocess", "multiprocessing"}} & set(sys.modules)))
print(sorted(name for name in sys.modules if ".jobs" in name or name.endswith((".local_store", ".provisioner"))))
"""
        assert last_lines(program, filled) == ["0 []", "[]"]
