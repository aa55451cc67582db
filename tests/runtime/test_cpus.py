from __future__ import annotations

import os

import pytest

from pykka_imagestore.runtime.cpus import usable_cpus


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make a machine of 8 CPUs, of these files."""

    def make(files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return make


def test_without_cgroups_it_is_the_affinity(machine):
    assert usable_cpus(machine({})) == 8


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("max 100000", 8), ("900000 100000", 8)],
)
def test_a_quota_of_cgroup_v2_counts_rounded_up(machine, quota, cpus):
    root = machine({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})

    assert usable_cpus(root) == cpus


def test_the_tightest_quota_from_the_own_cgroup_up_to_the_root_counts(machine):
    root = machine(
        {
            "proc/self/cgroup": "0::/pod/container",
            "sys/fs/cgroup/pod/container/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/cpu.max": "300000 100000",
            "sys/fs/cgroup/cpu.max": "700000 100000",
        }
    )

    assert usable_cpus(root) == 3


@pytest.mark.parametrize(("quota", "cpus"), [("400000", 4), ("-1", 8)])
def test_a_quota_of_cgroup_v1_counts(machine, quota, cpus):
    root = machine(
        {
            "proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": quota,
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
        }
    )

    assert usable_cpus(root) == cpus


@pytest.mark.parametrize("nonsense", ["", "100000", "many few", "100000 zero"])
def test_nonsense_is_no_quota(machine, nonsense):
    root = machine({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": nonsense})

    assert usable_cpus(root) == 8
