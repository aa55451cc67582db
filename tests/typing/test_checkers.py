"""A caller's type checker sees the types that store.py and runtime.py beside this say, and the errors."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import SOURCES, TIMEOUT

HERE = Path(__file__).parent
PACKAGES = SOURCES[0]
PROGRAMS = [HERE / "runtime.py", HERE / "store.py"]


def require(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def check(*command: object, **environment: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=HERE,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return ran.returncode, ran.stdout


def test_mypy_sees_the_types(tmp_path: Path) -> None:
    require("mypy")
    # The source tree, if that is tested, is on the PYTHONPATH, which mypy does not look at.
    path = {} if PACKAGES.name == "site-packages" else {"MYPYPATH": str(PACKAGES)}

    status, said = check("mypy", f"--cache-dir={tmp_path}", *PROGRAMS, **path)

    assert status == 0, said


def test_pyright_sees_the_types() -> None:
    require("basedpyright")

    status, said = check("basedpyright", "--pythonpath", sys.executable, PYTHONPATH=str(PACKAGES))

    assert status == 0, said
    assert "0 errors, 0 warnings" in said
