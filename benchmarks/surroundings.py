"""What a measurement depends on, for its JSON: the machine, the file system, and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("pykka-imagestore", "pykka", "protobuf", "isal", "backports.zstd")


def machine() -> dict[str, object]:
    """Describe the machine."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "memory_bytes": memory,
        "kernel": platform.release(),
    }


def file_system(path: Path) -> dict[str, str]:
    """Return type and options of the file system that holds ``path``."""
    mounts = [line.split() for line in _lines("/proc/self/mountinfo")]
    holding = [mount for mount in mounts if path.resolve().is_relative_to(mount[4])]
    mount = max(enumerate(holding), key=lambda item: (len(item[1][4]), item[0]))[1]
    kind, source = mount[mount.index("-") + 1 :][:2]
    return {"type": kind, "device": Path(source).name, "options": mount[5]}


def versions(*tools: str) -> dict[str, str]:
    """Return the versions of Python, our packages, this source, and the installed tools."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    commit = _said("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    if commit:
        found["commit"] = commit
    for tool in tools:
        if said := _said(tool, "--version"):
            found[tool] = said
    return found


def _said(*command: str) -> str:
    """Return the first line that a program prints; nothing if there is no such program."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
