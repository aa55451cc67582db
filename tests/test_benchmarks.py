"""The benchmarks run, on tiny inputs. What they measure is nobody's condition here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", ["put.py", "runtime.py"])
def test_benchmark_runs_and_writes_json(tmp_path, name):
    if not (BENCHMARKS / name).exists():
        pytest.skip(f"there is no {name}")

    done = subprocess.run(
        [sys.executable, BENCHMARKS / name, "--quick", "--json", tmp_path / "result.json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert json.loads((tmp_path / "result.json").read_text())["versions"]["python"]
