"""Run a program; measure its time, and the memory of the largest process of its tree."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SAMPLING_INTERVAL = 0.05  # seconds; each process' own high-water mark is read, so little is missed


@dataclass(frozen=True, slots=True)
class Run:
    """What a program did.

    Attributes:
        peak_bytes: The most resident memory that one process of its tree had at any time.
    """

    seconds: float
    peak_bytes: int
    output: str


class ProgramFailedError(Exception):
    """A program ended with a status other than 0; the text is the last line that it wrote."""


def run(*command: object, env: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end.

    Raises:
        ProgramFailedError: It failed.
    """
    begin = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        watch = MemoryWatch(process.pid)
        output, errors = process.communicate()
        seconds = time.perf_counter() - begin
    peak_bytes = watch.stop()
    if process.returncode != 0:
        raise ProgramFailedError(f"{command[0]}: {(errors.strip().splitlines() or ['no word'])[-1]}")
    return Run(seconds, peak_bytes, output)


class MemoryWatch:
    """Samples the memory of a process and its descendants in a thread, until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return the peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while True:
            self._peak = max([self._peak, *map(peak_of, tree(self._pid))])
            if self._ended.wait(SAMPLING_INTERVAL):
                return


def tree(pid: int) -> Iterator[int]:
    """Yield a process and its descendants; those that have ended meanwhile may be missing."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = children.read_text().split()
        except OSError:
            continue
        for child in below:
            yield from tree(int(child))


def peak_of(pid: int) -> int:
    """Return the most resident memory that a process ever had, in bytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    marks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(marks[0]) * 1024 if marks else 0
