"""What runs of the tests are given, whoever starts them: seen from inside small ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.privileges import as_ordinary_user, ordinary_users_place
from support.processes import TIMEOUT
from support.surroundings import MEMORY, why_not_in_memory

LOOK = """
import re, subprocess, sys
from pathlib import Path

def test_look(tmp_path):
    status = subprocess.check_output(["cat", "/proc/self/status"], text=True)
    Path("seen").write_text(" ".join([str(tmp_path), *re.findall("(?:SigBlk|SigIgn|Umask):(.*)", status)]))
    assert "-vv" not in sys.argv
"""
UNFAVOURABLE = """
import os, signal, sys

for number in signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.umask(0o077)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run(
    directory: Path, *options: str, temporary: str = "", before: tuple[str, ...] = ()
) -> tuple[str, Path, list[int]]:
    """Run a test; return what pytest says, where the files were, and a program's umask and signals that do nothing."""
    (directory / "test_look.py").write_text(LOOK)
    done = subprocess.run(
        [sys.executable, *before, "-m", "pytest", "-q", "-p", "support.surroundings", *options, "test_look.py"],
        cwd=directory,
        env={**os.environ, "TMPDIR": temporary, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    where, *masks = (directory / "seen").read_text().split()
    usable = sum(1 << number - 1 for number in signal.valid_signals())  # the C library has some to itself
    return done.stdout, Path(where), [int(masks[0], 8), *(int(mask, 16) & usable for mask in masks[1:])]


@pytest.mark.skipif(why_not_in_memory() is not None, reason=str(why_not_in_memory()))
def test_files_are_in_memory_and_those_of_what_failed_stay_until_the_next_run(tmp_path: Path) -> None:
    said, where, _ = run(tmp_path, "-vv")
    directory = where.parents[2]

    assert directory.parent == MEMORY
    assert f"files of what failed are in {directory} until the next run" in said
    assert where.exists()

    said, where, _ = run(tmp_path)

    assert "1 passed" in said
    assert not directory.exists()
    assert not where.parents[2].exists()


def test_files_are_where_the_caller_wants_them_and_what_is_inherited_is_as_usual(tmp_path: Path) -> None:
    said, where, inherited = run(tmp_path, "-n1", temporary=str(tmp_path), before=("-c", UNFAVOURABLE))

    assert "1 passed" in said
    assert where.is_relative_to(tmp_path)
    assert inherited == [0o022, 0, 0]


@pytest.mark.root
def test_an_ordinary_user_gets_a_place_that_he_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(private))

    place = ordinary_users_place.__wrapped__()

    assert place != str(private)
    assert as_ordinary_user(os.access, place, os.X_OK)
