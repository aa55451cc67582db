"""The directories of this process' cgroup, and of those above it."""

from __future__ import annotations

from pathlib import Path


def cgroup_directories(root: Path, mount_point: str, controller: str) -> list[Path]:
    """Return this process' cgroup and all above it, as seen below the mount point."""
    mount = root / mount_point
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = mount / path.lstrip("/")
            return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]
    return []


def read(path: Path) -> str:
    """Return a file's text; nothing if it is missing or not readable."""
    try:
        return path.read_text()
    except OSError:
        return ""
