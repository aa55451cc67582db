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
    said = _run_with_image(0, tmp_path)

    assert re.fullmatch(r"sha256:[0-9a-f]{64} /.*/rootfs\n", said)


def test_the_readmes_root_file_system_is_made(tmp_path: Path) -> None:
    _run_with_image(0, tmp_path)

    said = _run_with_image(1, tmp_path)

    assert re.fullmatch(r"(/.*/task-17/rootfs|None) (overlay|copy) \(.*\) 0\n", said)


def test_the_readmes_runtime_runs_by_itself(tmp_path: Path) -> None:
    assert _run(_blocks()[2], tmp_path) == "5\n"


def _run_with_image(number: int, directory: Path) -> str:
    docker_save(directory / "busybox.tar", {"busybox:1.36": [layer({"bin/sh": b"#!"})]})
    return _run(_blocks()[number].replace("/var/lib/agent/images", str(directory / "store")), directory)


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def _run(code: str, directory: Path) -> str:
    (directory / "example.py").write_text(code)
    ran = subprocess.run(
        [sys.executable, "example.py"], cwd=directory, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
