from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from support.images import docker_save, layer, long_layer
from support.processes import TIMEOUT


class CommandLine:
    """Runs ``imagestore`` in a process of its own, on a store of its own."""

    def __init__(self, store: Path) -> None:
        self.store = store
        installed = Path(sys.executable).with_name("imagestore")
        self.command = [str(installed)] if installed.exists() else [sys.executable, "-m", "pykka_imagestore"]
        self.environment = {**os.environ, "IMAGESTORE_DIR": str(store), "PYTHONWARNINGS": "error"}
        self.environment.pop("PYTHONUNBUFFERED", None)  # as users have it

    def __call__(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        defaults = {"capture_output": True, "text": True, "timeout": TIMEOUT, "env": self.environment}
        return subprocess.run([*self.command, *map(str, arguments)], check=False, **{**defaults, **options})

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a run as the leader of a session of its own, so that its process group can be signalled."""
        return subprocess.Popen(
            [*self.command, *map(str, arguments)],
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "env": self.environment,
                "start_new_session": True,
                **options,
            },
        )

    def on_terminal(self, *arguments: object, terminal: str | None = "xterm", columns: int = 0) -> tuple[str, bytes]:
        """Run with stderr on a terminal, which may not say how wide it is; return what that showed, and stdout."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        if terminal is not None:
            self.environment["TERM"] = terminal
        run = self.start(*arguments, stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # what a terminal says when nobody has its other end open
            while data := os.read(ours, 65536):
                shown += data
        os.close(ours)
        output, _ = run.communicate(timeout=TIMEOUT)
        assert run.returncode == 0
        return shown.decode(), output


@pytest.fixture
def imagestore(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "store")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an archive of one image, ``app:1``, with two layers."""
    return save_app(tmp_path)


def save_app(directory: Path) -> Path:
    layers = [layer({"etc/os-release": b"ID=test\n"}), layer({"app/main.py": b"print('hello')\n"})]
    return docker_save(directory / "app.tar", {"app:1": layers}, config={"Env": ["A=B"]})


@pytest.fixture(scope="session")
def put_once(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    directory = tmp_path_factory.mktemp("filled")
    imagestore = CommandLine(directory / "store")
    assert imagestore("put", "--not-durable", save_app(directory)).returncode == 0
    return imagestore


@pytest.fixture
def filled(put_once: CommandLine, imagestore: CommandLine) -> CommandLine:
    """Return a command line whose store holds what ``archive`` does."""
    shutil.copytree(put_once.store, imagestore.store, symlinks=True)
    return imagestore


@pytest.fixture(scope="session")
def long_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive that takes a second or more to put."""
    return docker_save(tmp_path_factory.mktemp("long") / "long.tar", {"long:1": [long_layer(120_000)]})
