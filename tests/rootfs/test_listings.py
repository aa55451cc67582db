"""What a root file system lists is there: the kernel lists whiteouts of a directory that it does not merge."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing

import pytest
from support import tars
from support.privileges import as_ordinary_user
from support.processes import TIMEOUT
from support.rootfs import namespace_of, no_mounts_left, python_for_all, require_mounts
from support.stacked import made, unpacked, with_fix_ups

from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.rootfs.namespace import InNamespace
from pykka_imagestore.rootfs.overlay import Overlay

pytestmark = [pytest.mark.root, pytest.mark.overlay]

LOWER = tars.tar(tars.file(b"d/secret"), tars.file(b"both/gone"), tars.whiteout(b"never"), tars.whiteout(b"low/never"))
UPPER = tars.tar(
    tars.directory(b"d"),
    tars.opaque(b"d"),
    tars.whiteout(b"d/secret"),
    tars.whiteout(b"d/never"),
    tars.file(b"d/f"),
    tars.whiteout(b"both/gone"),
    tars.whiteout(b"new/in/never"),
    tars.whiteout(b"new/never"),
    tars.whiteout(b"not"),
)
# Positions of layers, the lowest first.
STACKS = {"one layer": (1,), "two layers": (0, 1), "one layer twice": (1, 1), "one layer below and above": (1, 0, 1)}
SHOWN = {
    "one layer": {"both", "d", "d/f", "new", "new/in"},
    "two layers": {"both", "d", "d/f", "low", "new", "new/in"},
    "one layer twice": {"both", "d", "d/f", "new", "new/in"},
    "one layer below and above": {"both", "d", "d/f", "low", "new", "new/in"},
}

each_stack = pytest.mark.parametrize("stack", STACKS)
read_only_or_not = pytest.mark.parametrize("read_only", [False, True])


@each_stack
@read_only_or_not
def test_all_that_an_overlay_lists_is_there(tmp_path, stack, read_only):
    require_mounts()
    with no_mounts_left(tmp_path):
        listed, missing, left = list_and_remove(Overlay(), tmp_path, stack, read_only)

    assert (listed, missing) == (SHOWN[stack], set())
    assert left == ([] if not read_only else None)


@each_stack
@read_only_or_not
@pytest.mark.parametrize("is_ordinary", [True, False])
def test_all_that_an_overlay_in_a_user_namespace_lists_is_there(
    tmp_path, users_directory, package_for_all, stack, read_only, is_ordinary
):
    if is_ordinary:
        told = as_ordinary_user(list_in_namespace, users_directory, package_for_all, stack, read_only)
    else:
        told = list_in_namespace(tmp_path, None, stack, read_only)

    listed, missing, left = told
    assert (listed, missing) == (SHOWN[stack], set())
    assert left == ([] if not read_only else None)


def list_in_namespace(place, package, stack, read_only):
    with closing(namespace_of(None if package is None else python_for_all(package))) as namespace:
        return list_and_remove(InNamespace(Overlay(), namespace), place, stack, read_only)


def list_and_remove(backend, place, stack, read_only):
    """Return what a root file system lists; what of that is not there; what a removal of all leaves, if it may."""
    both = unpacked([LOWER, UPPER], place)
    layers = with_fix_ups([both[number] for number in STACKS[stack]], backend.reads, place / "stack")
    with made(backend, RootfsRequest(layers, str(place / "box"), read_only=read_only)) as mounted:
        listed, missing = set(), set()
        for path, directories, files, directory in os.fwalk(".", dir_fd=mounted.fd):
            for name in (*directories, *files):
                below = os.path.normpath(os.path.join(path, name))
                listed.add(below)
                try:
                    os.stat(name, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    missing.add(below)
        return listed, missing, None if read_only else remove_all(mounted.fd)


def remove_all(root):
    names = os.listdir(f"/proc/self/fd/{root}")
    places = [f"/proc/self/fd/{root}/{name}" for name in names]
    subprocess.run(["rm", "-r", "--", *places], pass_fds=[root], check=True, timeout=TIMEOUT)
    return os.listdir(f"/proc/self/fd/{root}")
