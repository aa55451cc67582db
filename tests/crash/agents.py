"""Agent processes, see ``agent.py``: started, killed, and their logs read."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent import NAMES
from history import History
from script import settle_prune, stored
from support.processes import TIMEOUT

AGENT = Path(__file__).with_name("agent.py")
PYTHONPATH = [path for path in [os.environ.get("PYTHONPATH")] if path]


@dataclass(frozen=True)
class Spec:
    """What an agent is to do.

    Attributes:
        directory: The store's.
        gallery: A saved gallery.
        log: The file that it writes its log to.
        seed: Of all that is random.
        threads: So many make calls.
        dawdles: Whether it waits now and then before a call of the disk.
    """

    directory: str
    gallery: str
    log: str
    seed: str
    threads: int = 2
    dawdles: bool = False


@dataclass
class Agent:
    """A running agent."""

    spec: Spec
    process: subprocess.Popen[str] = field(init=False)
    _read_bytes: int = 0
    _open_calls: dict[str, _Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = Path(f"{self.spec.log}.spec")
        spec.write_text(json.dumps(asdict(self.spec)))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", AGENT, spec],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(AGENT.parent.parent), *PYTHONPATH])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def go(self, calls: int) -> None:
        """Have each thread make so many calls."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()

    def wait(self, word: str) -> None:
        """Wait until it says a word: ``ready`` once, ``done`` after each ``go``."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], TIMEOUT)[0], f"the agent does not say {word!r}"
        said = self.process.stdout.readline()
        assert said == f"{word}\n", f"the agent said {said!r} and not {word!r}"

    def kill(self) -> None:
        """Kill the process; its workers see that and die. Return when it is gone."""
        self.process.kill()
        self._ended()

    def kill_worker(self) -> bool:
        """Kill one of its workers; False if it has none."""
        for pid, comm in self._session():
            if comm == "imagestore":
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                return True
        return False

    def end(self) -> None:
        """Have it close its store and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(timeout=TIMEOUT)
        self._ended()
        assert status == 0, f"an agent ended with {status}"

    def wait_for_workers(self) -> None:
        """Wait until none of its workers lives; it must be dead itself."""
        until = time.monotonic() + TIMEOUT
        while self._session():
            assert time.monotonic() < until, f"workers outlive their agent: {self._session()}"
            time.sleep(0.005)

    def tell(self, history: History) -> None:
        """Add what is new in the log to a history; what a dead agent was not told any more may have been made.

        Raises:
            AssertionError: The agent saw what must not be.
        """
        is_dead = self.process.returncode is not None
        path = Path(self.spec.log)
        data = path.read_bytes()[self._read_bytes :] if path.exists() else b""
        for line in data.splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._read_bytes += len(line)
                self._read(json.loads(line), history)
        if is_dead:
            for call in self._open_calls.values():
                call.answered({"failed": True}, history, time.monotonic())
            self._open_calls.clear()

    def _read(self, line: dict[str, Any], history: History) -> None:
        assert "violation" not in line, f"agent {self.spec.seed}: {line['violation']}\n{line['trace']}"
        if "what" in line:
            self._open_calls[line["call"]] = _Call.begun(line, history)
        else:
            self._open_calls.pop(line["call"]).answered(line["answer"], history, line["time"])

    def _ended(self) -> None:
        self.process.wait(timeout=TIMEOUT)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _session(self) -> list[tuple[int, str]]:
        """Return the processes of its session that live, beside itself: id and name."""
        found = []
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit() and int(directory.name) != self.process.pid:
                try:
                    comm, _, rest = (directory / "stat").read_text().partition("(")[2].rpartition(")")
                except OSError:
                    continue
                state, _, _, session = rest.split()[:4]
                if int(session) == self.process.pid and state != "Z":
                    found.append((int(directory.name), comm))
        return found


@dataclass
class _Call:
    """A call of which the log told, and the writes that it may have made."""

    what: str
    name: str
    start: float
    writes: dict[str, int]

    @classmethod
    def begun(cls, line: dict[str, Any], history: History) -> _Call:
        start = line["time"]
        match line["what"]:
            case "put":
                values = {stored(line["name"]): line["image"]}
            case "remove":
                values = {stored(line["name"]): None}
            case "prune" if "keep" in line:
                values = dict.fromkeys(stored(name) for name in NAMES if name not in line["keep"])
            case _:
                values = {}
        writes = {name: history.begin(name, value, start) for name, value in values.items()}
        return cls(line["what"], stored(line.get("name", "none")), start, writes)

    def answered(self, answer: dict[str, Any], history: History, at: float) -> None:
        assert "incomplete" not in answer, f"{self.what} of {self.name}: {answer['incomplete']}"
        if self.what == "prune":
            settle_prune(history, self.writes, set(answer["gone"]) if "gone" in answer else None, at)
        elif "shown" in answer:
            for write in self.writes.values():
                history.take_back(write)
            history.read(self.name, answer["shown"], self.start, at)
        else:
            for write in self.writes.values():
                history.end(write, is_certain="made" in answer, at=at)
