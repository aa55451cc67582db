"""The examples run alone, and are short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT

NEED_ROOT = {"run_in_rootfs"}
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def run(example: Path, *arguments: object, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", example, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=directory,
        env={**os.environ, "TMPDIR": str(directory)},
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_runs_and_leaves_nothing(example, tmp_path):
    if example.stem in NEED_ROOT and os.geteuid() != 0:
        pytest.skip("it says that it needs root")

    done = run(example, directory=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_is_short(example):
    assert len(example.read_text().splitlines()) < 60


def test_quickstart_takes_an_archive(tmp_path):
    archive = docker_save(tmp_path / "mine.tar", {"mine:1": [layer({"a": b""})]})

    done = run(EXAMPLES[0].with_name("quickstart.py"), archive, directory=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "mine:1" in done.stdout
