"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs of this process' affinity, or fewer if a cgroup's quota says so; at least 1.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    affinity = len(os.sched_getaffinity(0))
    quotas = [quota for quota in (_quota_v2(root), _quota_v1(root)) if quota is not None]
    return max(1, min([affinity, *(math.ceil(quota) for quota in quotas)]))


def _quota_v2(root: Path) -> float | None:
    """Return the tightest ``cpu.max`` from this process' cgroup up to the root. Kernel: cgroup-v2.rst."""
    quotas = []
    for folder in _cgroup_folders(root, "sys/fs/cgroup", ""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _quota_v1(root: Path) -> float | None:
    """Return the tightest CFS quota of the cpu controller. Kernel: sched-bwc.rst."""
    quotas = []
    for folder in _cgroup_folders(root, "sys/fs/cgroup/cpu", "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_folders(root: Path, mount_point: str, controller: str) -> list[Path]:
    """Return this process' cgroup and all above it, as seen below the mount point."""
    mount = root / mount_point
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = mount / path.lstrip("/")
            return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
