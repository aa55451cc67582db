"""Which programs are here that run something in a root file system, and in which version."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

_PROGRAMS = ("crun", "runc", "youki", "runsc", "bwrap", "nsenter", "chroot", "podman", "docker", "apptainer", "enroot")
# Before these, an image's /dev or a mount's target could be exchanged for a symlink: crun CVE-2026-88264, runc
# CVE-2026-41579.
_SOUND = {"crun": (1, 30), "runc": (1, 4, 3)}
_VERSION = re.compile(rb"(?<![0-9])[0-9]{1,9}(?:\.[0-9]{1,9}){1,9}")
_SECONDS = 5.0
_MAX_BYTES = 4096  # of what a program says, whatever lies on the PATH by its name


@dataclass(frozen=True, slots=True)
class RuntimeProgram:
    """A program that runs something in a root file system.

    Attributes:
        name: What it is called.
        path: Where it is.
        version: What it says; None if it says none.
        sound_from: The first version without a known way out of a hostile image, if this one is older.
    """

    name: str
    path: str
    version: str | None
    sound_from: str | None


def find_runtimes(seconds: float = _SECONDS) -> tuple[RuntimeProgram, ...]:
    """Return those that are on the PATH; each is asked for its version, and has so long to say it."""
    found = ((name, shutil.which(name)) for name in _PROGRAMS)
    return tuple(_ask(name, path, seconds) for name, path in found if path is not None)


def _ask(name: str, path: str, seconds: float) -> RuntimeProgram:
    try:
        # In a session of its own, so that what it started ends with it.
        asked = subprocess.Popen(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return RuntimeProgram(name, path, None, None)
    with asked:
        try:
            found = _VERSION.search(_answer(asked, seconds))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(asked.pid, signal.SIGKILL)
    version = None if found is None else found[0].decode()
    return RuntimeProgram(name, path, version, _sound_from(name, version))


def _answer(asked: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return what a program says first, until it ends or is late."""
    assert asked.stdout is not None  # noqa: S101 - it is a pipe
    said, late = b"", time.monotonic() + seconds
    while len(said) < _MAX_BYTES:
        left = late - time.monotonic()
        if left <= 0 or not select.select([asked.stdout], [], [], left)[0]:
            return b""
        data = os.read(asked.stdout.fileno(), _MAX_BYTES)
        if not data:
            break
        said += data
    return said


def _sound_from(name: str, version: str | None) -> str | None:
    sound = _SOUND.get(name)
    if sound is None or version is None or tuple(map(int, version.split("."))) >= sound:
        return None
    return ".".join(map(str, sound))
