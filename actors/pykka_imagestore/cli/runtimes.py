"""Which programs are here that run something in a root file system, and in which version."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

_PROGRAMS = ("crun", "runc", "youki", "runsc", "bwrap", "nsenter", "chroot", "podman", "docker", "apptainer", "enroot")
# Before these, an image's /dev or a mount's target could be exchanged for a symlink: crun CVE-2026-88264, runc
# CVE-2026-41579.
_SOUND = {"crun": (1, 30), "runc": (1, 4, 3)}
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_SECONDS = 5.0


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


def find_runtimes() -> tuple[RuntimeProgram, ...]:
    """Return those that are on the PATH; each is asked for its version."""
    found = ((name, shutil.which(name)) for name in _PROGRAMS)
    return tuple(_ask(name, path) for name, path in found if path is not None)


def _ask(name: str, path: str) -> RuntimeProgram:
    try:
        asked = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return RuntimeProgram(name, path, None, None)
    version = _VERSION.search(asked.stdout)
    return RuntimeProgram(name, path, version and version[0], _sound_from(name, version and version[0]))


def _sound_from(name: str, version: str | None) -> str | None:
    sound = _SOUND.get(name)
    if sound is None or version is None or tuple(map(int, version.split("."))) >= sound:
        return None
    return ".".join(map(str, sound))
