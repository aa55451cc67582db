"""What this machine can do for root file systems is tried out, and what it cannot is told with who can change that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.privileges import as_ordinary_user, on_file_system, with_capabilities
from support.processes import SOURCES, TIMEOUT
from support.rootfs import layer, namespace_of, no_mounts_left, python_for_all, request, require_mounts

from pykka_imagestore.rootfs.abilities import Ability, find_abilities
from pykka_imagestore.rootfs.overlay import Overlay

OF_OVERLAYS = [
    "overlays",
    "overlays in a user namespace",
    "overlays: layers told by descriptor",
    "overlays: layers told one by one, by path",
    "overlays: layers told in a page of options",
    "overlays: the option volatile",
    "overlays: the option uuid=null",
    "overlays: written to",
]
OF_FILES = ["reflinks", "hard links", "bounds on what is written", "a loop device that is free"]


def abilities(directory: Path, python: list[str] | None = None) -> dict[str, Ability]:
    namespace = namespace_of(python)
    try:
        found = find_abilities(str(directory), namespace)
    finally:
        namespace.close()
    assert os.listdir(directory) == []
    assert all(ability.tried and ability.works == (ability.obstacle is None) for ability in found)
    return {ability.name: ability for ability in found}


@pytest.mark.root
@pytest.mark.overlay
def test_root_may_mount(tmp_path):
    require_mounts()
    before = len(os.listdir("/proc/self/fd"))

    with no_mounts_left(tmp_path):
        found = abilities(tmp_path)

    assert [*found] == OF_OVERLAYS + OF_FILES
    assert all(found[name].works for name in OF_OVERLAYS if "user namespace" not in name)
    assert found["hard links"].works
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_an_ordinary_user_may_not_mount_here_but_in_a_namespace_of_its_own(users_directory, package_for_all):
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a user namespace")

    found = as_ordinary_user(abilities_of_user, users_directory, package_for_all)

    obstacle = found["overlays"].obstacle
    assert obstacle is not None
    assert "this process may not mount (fsopen: Operation not permitted" in obstacle.reason
    assert "CAP_SYS_ADMIN" in obstacle.remedy
    assert [name for name in OF_OVERLAYS if not found[name].works] == ["overlays"]
    loop = found["a loop device that is free"].obstacle
    assert loop is None or "/dev/loop-control" in loop.reason


def abilities_of_user(directory: Path, package: Path) -> dict[str, Ability]:
    return abilities(directory, python_for_all(package))


NOWHERE = """
import sys
open("/proc/sys/user/max_user_namespaces", "w").write("0")
from pykka_imagestore.provision.backends import new_namespace
from pykka_imagestore.rootfs.abilities import find_abilities
for ability in find_abilities(sys.argv[1], new_namespace()):
    print(ability.name, ability.works, ability.obstacle, sep="|")
"""


def test_where_nothing_can_be_mounted_each_trial_says_why(tmp_path):
    unshare = ["unshare", "--user", "--map-root-user"]  # and no mount namespace: this one is not its own
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a user namespace")
    program = f"import sys; sys.path[:0] = {[str(path) for path in SOURCES]}\n{NOWHERE}"

    told = subprocess.run(
        [*unshare, sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=TIMEOUT, check=True
    ).stdout

    lines = dict(line.split("|", 1) for line in told.splitlines())
    assert all(lines[name].startswith("False") for name in OF_OVERLAYS)
    assert "this process may not mount" in lines["overlays"]
    assert "user.max_user_namespaces is 0. Root can raise it with sysctl" in lines["overlays in a user namespace"]


@pytest.mark.root
@pytest.mark.overlay
def test_a_store_on_an_overlay_is_told_to_take_no_writes(tmp_path):
    require_mounts()
    base = layer(tmp_path / "base", {"store/": None})
    outer = request(tmp_path / "outer", base)
    with no_mounts_left(tmp_path):
        mounted = Overlay().mount(outer)

        found = abilities(Path(f"{mounted.path}/store"))

        os.close(mounted.fd)
        Overlay().unmount(outer)
    obstacle = found["overlays: written to"].obstacle
    assert found["overlays"].works
    assert obstacle is not None
    assert f"on the overlay that is mounted at {mounted.path}" in obstacle.reason
    assert "Move the store" in obstacle.remedy


@pytest.mark.root
def test_a_file_system_without_hard_links_and_reflinks_is_told(tmp_path):
    found = on_file_system("ramfs", "mode=700", str(tmp_path), abilities, tmp_path)

    reflinks = found["reflinks"].obstacle
    assert reflinks is not None
    assert f"the ramfs that is mounted at {tmp_path} has none" in reflinks.reason
    assert "XFS or btrfs" in reflinks.remedy


@pytest.mark.root
def test_a_process_without_the_capability_is_told(tmp_path):
    found = with_capabilities("-sys_admin", abilities, tmp_path)

    assert not found["overlays"].works
