"""A process that has a store open forks: the child can use a store of its own, and leaves the parent's alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT

PROGRAM = """
import atexit, os, sys, warnings
import pykka
from pykka_imagestore import LocalStore
from pykka_imagestore.runtime import WorkerPool

warnings.simplefilter("ignore")

def start():
    own = sys.argv[3] == "processes"  # of the store's own
    return LocalStore.start(sys.argv[1], durable=False, pool=None if own else WorkerPool(1, threads=True))

def error_of(future):
    return type(future.error() or future.get).__name__

with start() as store:
    store.put("first", sys.argv[2], progress=lambda _: None).get(timeout=60)
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 3 << 8
        assert store.get("first").get(timeout=60).name == "first:latest"
        store.put("second", sys.argv[2]).get(timeout=60)
        print(len(store.list().get(timeout=60)))
    else:
        {child}
if not pid:
    os._exit(3)
"""
CHILDREN = {
    "leaves the block": "pass",
    "exits": "sys.exit(3)",
    "exits at once": "os._exit(3)",
    "stops all actors at exit": "atexit.register(pykka.ActorRegistry.stop_all, timeout=20); sys.exit(3)",
    "closes it at exit": "atexit.register(store.close); sys.exit(3)",
    "asks it": (
        "assert {error_of(future) for future in (store.get('first'), store.list(), store.put('x', sys.argv[2]), "
        "store.check(), store.prune(), store.usage(), store.swept())} == {'ForkedError'}; sys.exit(3)"
    ),
    "closes all handles": (
        "parts = store._parts; "
        "handles = (store, parts.references, parts.layers, parts.collector, parts.checker); "
        "[handle.close() for handle in handles]; sys.exit(3)"
    ),
}


@pytest.mark.parametrize("workers", ["processes", "threads"])
@pytest.mark.parametrize("child", CHILDREN)
def test_child_however_it_ends_leaves_the_parents_store_alone(child: str, workers: str, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [layer({"file": b"content"})]})

    assert run(CHILDREN[child], tmp_path / "store", archive, workers) == "2\n"


@pytest.mark.parametrize("workers", ["processes", "threads"])
def test_child_opens_a_store_of_its_own_on_the_same_directory(workers: str, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [layer({"file": b"content"})]})
    child = """
        with start() as mine:
            mine.put("mine", sys.argv[2], progress=lambda _: None).get(timeout=60)
        sys.exit(3)
    """

    assert run(child.strip(), tmp_path / "store", archive, workers) == "3\n"


def run(child: str, store: Path, archive: Path, workers: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{child}", child), store, archive, workers],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout
