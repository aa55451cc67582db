"""Which runtimes are there: whatever lies on the PATH by their names is asked, and may answer anything, or not."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from support.processes import SOURCES, TIMEOUT, wait_for

from pykka_imagestore.cli.runtimes import RuntimeProgram, find_runtimes


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a program called crun on a PATH that has nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(script):
        (tmp_path / "crun").write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        (tmp_path / "crun").chmod(0o755)
        return str(tmp_path / "crun")

    return make


@pytest.mark.parametrize(
    ("script", "version", "sound_from"),
    [
        ("echo crun version 1.30", "1.30", None),
        ("echo crun version 1.14.1", "1.14.1", "1.30"),
        (r"printf '\033[2J 1.31'", "1.31", None),
        ("echo none", None, None),
        ("exit 1", None, None),
        ("kill -9 $$", None, None),
        ("kill -STOP $$", None, None),
        ("exec sleep 1000", None, None),
        ("exec head -c 1000000000 /dev/zero", None, None),
        ("head -c 100000 /dev/zero | tr '\\0' 9; echo .1", None, None),
        (r"printf '\331\241.\331\242'", None, None),
    ],
)
def test_a_program_says_its_version_or_none(program, script, version, sound_from):
    path = program(script)

    assert find_runtimes(seconds=1) == (RuntimeProgram("crun", path, version, sound_from),)


def test_a_program_that_prints_without_end_takes_no_memory(program):
    program("exec head -c 1000000000 /dev/zero")
    text = """
        from pathlib import Path
        from pykka_imagestore.cli.runtimes import find_runtimes
        find_runtimes()
        # Not getrusage(2), whose peak is that of whoever started the process, too.
        print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    """
    environment = os.environ | {"PYTHONPATH": ":".join(map(str, SOURCES))}
    command = [sys.executable, "-c", textwrap.dedent(text)]
    said = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=TIMEOUT).stdout

    assert int(said) < 200_000  # KiB


def test_what_a_program_started_ends_with_it(program, tmp_path):
    program(f"sleep 1000 & echo $! > {tmp_path}/pid; echo 1.31")

    find_runtimes(seconds=1)

    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not is_running(pid))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False
