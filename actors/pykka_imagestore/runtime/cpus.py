"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from pykka_imagestore.runtime.cgroup import cgroup_directories, read


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs in this process' affinity, or of a cgroup's quota if that is less; at least 1.

    Args:
        root: The directory with ``proc`` and ``sys``.
    """
    affinity = len(os.sched_getaffinity(0))
    quotas = [quota for quota in (_quota_v2(root), _quota_v1(root)) if quota is not None]
    return max(1, min([affinity, *(math.ceil(quota) for quota in quotas)]))


def _quota_v2(root: Path) -> float | None:
    """Return the tightest ``cpu.max`` from this process' cgroup up to the root. Kernel: cgroup-v2.rst."""
    quotas = []
    for directory in cgroup_directories(root, "sys/fs/cgroup", ""):
        quota, _, period = read(directory / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _quota_v1(root: Path) -> float | None:
    """Return the tightest CFS quota of the cpu controller. Kernel: sched-bwc.rst."""
    quotas = []
    for directory in cgroup_directories(root, "sys/fs/cgroup/cpu", "cpu"):
        quota, period = read(directory / "cpu.cfs_quota_us").strip(), read(directory / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)
