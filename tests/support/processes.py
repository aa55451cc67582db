"""Other processes: the tests talk to them, and kill them."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pykka_imagestore

# What a program that a test starts imports, beside what is installed.
SOURCES = [Path(pykka_imagestore.__file__).parents[1], Path(__file__).parents[1]]
TIMEOUT = 300  # for whatever only ends a hang: a slow disk or a busy machine is none


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until another process has done something."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # another process' files: there is nothing to wait on


def session_processes(leader: int) -> list[str]:
    """Return the living processes of a session."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, _, session = (directory / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.append(directory.name)
    return found


def unpacks(directory: Path) -> bool:
    """Tell whether a layer's files are being written below a store's staging directory."""
    return any(directory.glob("staging/*/layer/rootfs/*"))


class Program:
    """A Python program in a process of its own, killed at the end of the ``with`` block.

    It tells what it has to with ``print(..., flush=True)``, and waits for the test with ``input()``.
    """

    def __init__(self, text: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdin
        assert self.process.stdout
        self._input, self._output = self.process.stdin, self.process.stdout
        self._said = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.kill()
        self._input.close()
        self._output.close()

    def line(self) -> str:
        """Return the next line that it says."""
        while b"\n" not in self._said:
            assert self._read(), "it has ended"
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def lines(self) -> list[str]:
        """Return all that it still says; wait for its end."""
        while self._read():
            pass
        self.process.wait(TIMEOUT)
        said, self._said = self._said, b""
        return said.decode().splitlines()

    def tell(self, text: str = "") -> None:
        """Give it a line."""
        self._input.write(f"{text}\n".encode())
        self._input.flush()

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        self.process.wait(TIMEOUT)

    def _read(self) -> bytes:
        assert select.select([self._output], [], [], TIMEOUT)[0], "it says nothing"
        data = os.read(self._output.fileno(), 1 << 16)
        self._said += data
        return data
