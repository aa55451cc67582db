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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent import NAMES
from history import History
from script import settle_prune, stored
from support.processes import TIMEOUT, session_processes, wait_for

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


class AgentProcess:
    """A program of this directory in a process and a session of its own, which does things when it is told to."""

    def __init__(self, program: Path, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(program.parents[1]), *PYTHONPATH])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def wait(self, word: str) -> None:
        """Wait until it says a word."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], TIMEOUT)[0], f"the agent does not say {word!r}"
        said = self.process.stdout.readline()
        assert said == f"{word}\n", f"the agent said {said!r} and not {word!r}"

    def kill(self) -> None:
        """Kill the process; its workers see that and die. Return when it is gone."""
        self.process.kill()
        self._ended()

    def end(self) -> None:
        """End what it reads, so that it closes its store and ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(timeout=TIMEOUT)
        self._ended()
        assert status == 0, f"an agent ended with {status}"

    def wait_for_workers(self) -> None:
        """Wait until none of its workers lives; it must be dead itself."""
        wait_for(lambda: not session_processes(self.process.pid))

    def _ended(self) -> None:
        self.process.wait(timeout=TIMEOUT)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Agent(AgentProcess):
    """A running ``agent.py``."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._read_bytes = 0
        self._open_calls: dict[str, _Call] = {}
        path = Path(f"{spec.log}.spec")
        path.write_text(json.dumps(asdict(spec)))
        super().__init__(AGENT, path)

    def go(self, calls: int) -> None:
        """Have each thread make so many calls."""
        self.say(str(calls))

    def kill_worker(self) -> bool:
        """Kill one of its workers; False if it has none."""
        for pid in session_processes(self.process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "imagestore\n":
                    os.kill(int(pid), signal.SIGKILL)
                    return True
        return False

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
