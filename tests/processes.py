"""Other processes: the tests talk to them, and kill them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
from types import TracebackType
from typing import Self

TIMEOUT = 30


class Program:
    """A Python program in a process of its own, killed at the end of the ``with`` block.

    It tells what it has to with ``print(..., flush=True)``, and waits for the test with ``input()``.
    """

    def __init__(self, text: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.kill()
        self.process.stdin.close()
        self.process.stdout.close()

    def line(self) -> str:
        """Return the next line that it says."""
        assert select.select([self.process.stdout], [], [], TIMEOUT)[0], "it says nothing"
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, text: str = "") -> None:
        """Give it a line."""
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        self.process.wait(TIMEOUT)

    def end(self) -> str:
        """Wait until it ends by itself, and well; return what it still said."""
        said, _ = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0
        return said
