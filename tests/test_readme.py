"""The README's Python runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support.images import docker_save, layer
from support.processes import TIMEOUT

README = Path(__file__).parent.parent / "README.md"


def test_the_readmes_store_puts_an_image(tmp_path: Path) -> None:
    docker_save(tmp_path / "busybox.tar", {"busybox:1.36": [layer({"bin/sh": b"#!"})]})
    code = _blocks()[0].replace("/var/lib/agent/images", str(tmp_path / "store"))

    said = _run(code, tmp_path)

    assert re.fullmatch(r"sha256:[0-9a-f]{64} /.*/rootfs\n", said)


def test_the_readmes_runtime_runs_by_itself(tmp_path: Path) -> None:
    assert _run(_blocks()[1], tmp_path) == "5\n"


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def _run(code: str, directory: Path) -> str:
    (directory / "example.py").write_text(code)
    ran = subprocess.run(
        [sys.executable, "example.py"], cwd=directory, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
