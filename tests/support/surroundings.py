"""What a run of the tests is given: a place for its files, signals, a umask. ``conftest.py`` loads it."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ROOM_BYTES = 1 << 30
_directory = pytest.StashKey[Path]()
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}  # and put back by subprocess


def pytest_configure(config: pytest.Config) -> None:
    # Tests write tens of thousands of files. Those processes that xdist starts inherit the variable.
    if not os.environ.get("TMPDIR") and why_not_in_memory() is None:
        config.stash[_directory] = _new_directory(config.rootpath)
        os.environ["TMPDIR"] = str(config.stash[_directory])
        tempfile.tempdir = None  # it remembers another


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    if not os.environ.get("TMPDIR"):
        terminalreporter.write_line(f"files were written to {tempfile.gettempdir()}, since {why_not_in_memory()}")
    elif _directory in config.stash and exitstatus == pytest.ExitCode.TESTS_FAILED:
        terminalreporter.write_line(f"files of what failed are in {config.stash[_directory]} until the next run")
        del config.stash[_directory]


def pytest_unconfigure(config: pytest.Config) -> None:
    if _directory in config.stash:
        _remove(config.stash[_directory])


@pytest.fixture(scope="session", autouse=True)
def _inherit_defaults() -> None:
    """Have programs that tests start find no signal ignored or blocked, and the usual umask, whoever starts the tests.

    nohup, cron and a script's & leave signals ignored. What is ignored here stays without effect here: it gets a
    handler, which no program inherits.
    """
    os.umask(0o022)
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            # Children that nobody waited for are forgotten by the kernel while SIGCHLD is ignored, by default not.
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def why_not_in_memory() -> str | None:
    """Return why tests had better write their files to a disk; None if there is room in memory."""
    try:
        with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
            os.setxattr(file.fileno(), "user.imagestore", b"")
    except OSError as error:
        return f"{MEMORY} takes no file with an extended attribute: {error.strerror}"
    status = os.statvfs(MEMORY)
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    room_bytes = min(status.f_bavail * status.f_frsize, int(available[1]) << 10 if available else 0)
    return None if room_bytes >= ROOM_BYTES else f"there is room for {room_bytes >> 20} MiB in {MEMORY}"


def _new_directory(checkout: Path) -> Path:
    """Make a directory, which others may enter, since some tests become another user; remove those of earlier runs."""
    prefix = f"images-{zlib.crc32(os.fsencode(checkout)) & 0xFFFF:04x}-"  # short: the path of a socket has 107 bytes
    for path in MEMORY.glob(f"{prefix}*"):
        if _lock(path):
            _remove(path)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY))
    if not _lock(directory):  # a run that starts just now took it for an earlier one's
        return _new_directory(checkout)
    directory.chmod(0o711)
    return directory


def _lock(directory: Path) -> bool:
    """Lock our directory while this process lives; return whether it is there and no one else has locked it."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    if os.fstat(descriptor).st_uid == os.geteuid():
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    os.close(descriptor)
    return False


def _remove(directory: Path) -> None:
    # Not rmtree, which ends at 1,000 directories in each other; nor into what a failed test left mounted.
    subprocess.run(["rm", "-rf", "--one-file-system", directory], check=False)
