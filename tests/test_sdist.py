"""The source archive has all that its tests and its Makefile need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import TIMEOUT

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
MADE = {"__pycache__", "build", "dist", "PKG-INFO"}  # by tools, and no source
HIDDEN = {".ci", ".gitignore"}  # and a source all the same


def is_source(name: str) -> bool:
    return name in HIDDEN or not (name in MADE or name.startswith(".") or name.endswith((".egg-info", ".pyc")))


def files(directory: Path) -> Iterator[str]:
    for parent, directories, names in os.walk(directory):
        directories[:] = filter(is_source, directories)
        yield from (str(Path(parent, name).relative_to(directory)) for name in filter(is_source, names))


def test_a_source_archive_has_every_file(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    sources = set(files(ROOT))
    for name in sources:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / "tree" / name)

    subprocess.run(
        [sys.executable, "-c", BUILD, tmp_path],
        cwd=tmp_path / "tree",
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
    )

    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        found = {name.partition("/")[2] for name in members.getnames() if not members.getmember(name).isdir()}
    assert sources - found == set()
    assert {name for name in found - sources if ".egg-info/" not in name} <= {"PKG-INFO"}
