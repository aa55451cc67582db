"""Bounds on what is written, on file systems of their own; where the kernel has no quotas, on what it is told."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import ExitStack

import pytest
from support import seams
from support.privileges import as_ordinary_user, in_user_namespace
from support.processes import TIMEOUT
from support.quotas import Kernel, in_turn, mounted_image, project_of

from pykka_imagestore.rootfs import quota
from pykka_imagestore.rootfs.quota import (
    DQBLK,
    FIRST_PROJECT,
    FSXATTR,
    LAST_PROJECT,
    STATV_FLAGS,
    bound,
    choose_project,
    count_below,
    lift_bound,
    quota_refusal,
)
from pykka_imagestore.rootfs.system_calls import NUMBERS

PROJECT = FIRST_PROJECT + 7
MIB = 1 << 20
root = pytest.mark.root


@pytest.fixture
def mounted(tmp_path):
    """Return a function that makes a file system and mounts it; a test is skipped where it cannot be."""
    with ExitStack() as mounts:
        yield lambda kind, options="": mounts.enter_context(mounted_image(tmp_path, kind, options))


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def refused(path):
    refusal = quota_refusal(str(path))
    assert refusal is not None
    assert refusal.isprintable()
    return refusal


# -- what the headers say

PROGRAM = r"""
#include <stddef.h>
#include <stdio.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <sys/syscall.h>
int main(void) {
    printf("%d %d %d %d %d %d %d %d ", SYS_quotactl_fd, Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTATV, PRJQUOTA,
           FS_QSTATV_VERSION1, FS_QUOTA_PDQ_ENFD, FS_XFLAG_PROJINHERIT);
    printf("%lu %lu %zu %zu %zu %zu %zu %zu", (unsigned long) FS_IOC_FSGETXATTR, (unsigned long) FS_IOC_FSSETXATTR,
           sizeof(struct if_dqblk), offsetof(struct if_dqblk, dqb_curspace), offsetof(struct if_dqblk, dqb_valid),
           sizeof(struct fsxattr), offsetof(struct fsxattr, fsx_projid), offsetof(struct fs_quota_statv, qs_flags));
}
"""


def test_numbers_and_structures_are_those_of_the_kernels_headers(tmp_path):
    (tmp_path / "told.c").write_text(PROGRAM)
    if shutil.which("cc") is None or run("cc", "-o", tmp_path / "told", tmp_path / "told.c").returncode:
        pytest.skip("there is no C compiler here, or no headers of the kernel")

    told = [int(number) for number in run(tmp_path / "told").stdout.split()]

    assert told == [
        NUMBERS["quotactl_fd"],
        quota.Q_GETQUOTA,
        quota.Q_SETQUOTA,
        quota.Q_XGETQSTATV,
        quota.PRJQUOTA,
        quota.FS_QSTATV_VERSION1,
        quota.FS_QUOTA_PDQ_ENFD,
        quota.FS_XFLAG_PROJINHERIT,
        quota.FS_IOC_FSGETXATTR,
        quota.FS_IOC_FSSETXATTR,
        DQBLK.size,
        16,
        64,
        FSXATTR.size,
        12,
        STATV_FLAGS.size - 2,
    ]


# -- where there are no quotas


@root
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_file_system_without_quotas_is_refused_with_what_to_mount_how(mounted, kind):
    place = mounted(kind)

    refusal = refused(place)

    option = {"ext4": "prjquota", "xfs": "pquota"}[kind]
    assert refusal.startswith(f"the {kind} at {place} enforces no project quotas: ")
    assert f"the option {option}" in refusal


@root
@pytest.mark.parametrize("kind", ["ext4 that could", "xfs"])
def test_file_system_that_counts_and_bounds_nothing_is_refused(mounted, kind):
    place = mounted(kind, "pqnoenforce" if kind == "xfs" else "")

    assert "enforces no project quotas" in refused(place)


def test_other_file_system_is_refused_by_its_kind():
    assert refused("/proc").startswith("the proc at /proc enforces no project quotas: ")


def test_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        quota_refusal(str(tmp_path / "missing"))


def test_kernel_without_the_call_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(seams.CALL_ON_QUOTAS, Kernel(missing=True))

    assert "quotactl_fd(2), which is of Linux 5.14" in refused(tmp_path)


# -- projects: XFS keeps them without quotas


@root
def test_whatever_is_made_below_belongs_to_the_project_and_nothing_else_comes_in(mounted):
    place = mounted("xfs")
    (place / "upper").mkdir()
    (place / "other").mkdir()
    (place / "other" / "file").write_text("")

    count_below([str(place / "upper")], PROJECT)
    (place / "upper" / "deep" / "deeper").mkdir(parents=True)
    (place / "upper" / "deep" / "file").write_text("")

    counted = ["upper", "upper/deep", "upper/deep/deeper", "upper/deep/file"]
    assert [project_of(place / path) for path in counted] == [PROJECT] * 4
    assert project_of(place / "other" / "file") == 0
    for move in (os.rename, os.link):
        with pytest.raises(OSError, match="cross-device") as raised:
            move(place / "other" / "file", place / "upper" / "file")
        assert raised.value.errno == errno.EXDEV


@root
def test_directories_of_one_project_give_to_each_other_as_an_overlays_do(mounted):
    place = mounted("xfs")
    for name in ("upper", "work"):
        (place / name).mkdir()
    count_below([str(place / "upper"), str(place / "work")], PROJECT)
    (place / "work" / "file").write_text("")

    os.rename(place / "work" / "file", place / "upper" / "file")

    assert project_of(place / "upper" / "file") == PROJECT


@root
def test_in_a_user_namespace_no_file_leaves_its_project(mounted):
    place = mounted("xfs")
    (place / "upper").mkdir()
    count_below([str(place / "upper")], PROJECT)
    (place / "upper" / "file").write_text("")

    with pytest.raises(OSError, match=r"Invalid argument|not permitted"):
        in_user_namespace(count_below, [str(place / "upper")], PROJECT + 1)

    assert project_of(place / "upper") == PROJECT


# -- bounds: where the kernel has them

QUOTAS = [("ext4 that could", "prjquota"), ("xfs", "pquota")]


@pytest.fixture(params=QUOTAS, ids=[kind for kind, _ in QUOTAS])
def bounded(request, mounted):
    """Return a file system that keeps quotas of projects."""
    place = mounted(*request.param)
    assert quota_refusal(str(place)) is None
    return place


def counted(directory, size_bytes):
    directory.mkdir()
    project = choose_project(str(directory))
    count_below([str(directory)], project)
    bound(str(directory), project, size_bytes)
    return project


def write(path, size_bytes):
    """Write and sync so much; return how much there was room for."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    written = 0
    try:
        while written < size_bytes:
            written += os.write(file, bytes(min(64 << 10, size_bytes - written)))
        os.fsync(file)
    except OSError as error:
        assert error.errno in (errno.EDQUOT, errno.ENOSPC)  # noqa: PT017 - either, and none is fine too
    finally:
        os.close(file)
    return written


@root
def test_writer_gets_no_further_than_the_bound_and_a_neighbour_does(bounded):
    counted(bounded / "mine", 8 * MIB)
    counted(bounded / "neighbours", 64 * MIB)

    assert 7 * MIB < write(bounded / "mine" / "a", 32 * MIB) <= 8 * MIB
    assert write(bounded / "mine" / "b", MIB) < MIB
    assert write(bounded / "neighbours" / "a", 32 * MIB) == 32 * MIB
    assert write(bounded / "anybodys", 32 * MIB) == 32 * MIB
    (bounded / "mine" / "a").unlink()
    assert write(bounded / "mine" / "c", 4 * MIB) == 4 * MIB


@root
def test_bound_counts_from_what_is_there_and_goes_when_it_is_lifted(bounded):
    project = counted(bounded / "mine", 64 * MIB)
    write(bounded / "mine" / "a", 16 * MIB)

    bound(str(bounded), project, 4 * MIB)
    assert 3 * MIB < write(bounded / "mine" / "b", 32 * MIB) <= 4 * MIB

    for _ in range(2):
        lift_bound(str(bounded), project)
    assert write(bounded / "mine" / "c", 32 * MIB) == 32 * MIB


@root
def test_project_in_use_is_not_chosen(bounded, monkeypatch):
    project = counted(bounded / "mine", 8 * MIB)
    monkeypatch.setattr(seams.RANDOM_PROJECT, in_turn(project - FIRST_PROJECT, 5))

    assert choose_project(str(bounded)) == FIRST_PROJECT + 5


@root
def test_ordinary_user_and_roots_of_namespaces_set_none(bounded):
    for call in (as_ordinary_user, in_user_namespace):
        assert "takes CAP_SYS_ADMIN" in call(refused, str(bounded))


# -- what a kernel is told, by one that only remembers: many are built without quotas


@pytest.fixture(params=[False, True], ids=["ext4", "xfs"])
def kernel(request, monkeypatch):
    kernel = Kernel(is_xfs=request.param)
    monkeypatch.setattr(seams.CALL_ON_QUOTAS, kernel)
    return kernel


@pytest.mark.parametrize(
    ("used", "size_bytes", "blocks"),
    [(0, 1, 1), (0, 1024, 1), (0, 2047, 1), (0, 10 * MIB, 10240), (8192, 10 * MIB, 10248), (0, 1 << 50, 1 << 40)],
)
def test_limit_is_so_much_more_than_is_used_in_whole_blocks(kernel, tmp_path, used, size_bytes, blocks):
    if used:
        kernel.use(PROJECT, used)

    bound(str(tmp_path), PROJECT, size_bytes)

    assert kernel.limit(PROJECT) == blocks


def test_limit_is_lifted_and_what_is_used_keeps_the_project_taken(kernel, tmp_path, monkeypatch):
    kernel.use(PROJECT, 4096)
    bound(str(tmp_path), PROJECT, MIB)
    monkeypatch.setattr(seams.RANDOM_PROJECT, in_turn(7, 8))

    lift_bound(str(tmp_path), PROJECT)

    assert kernel.limit(PROJECT) == 0
    assert choose_project(str(tmp_path)) == FIRST_PROJECT + 8


@pytest.mark.usefixtures("kernel")
def test_project_with_a_limit_is_taken(tmp_path, monkeypatch):
    bound(str(tmp_path), PROJECT, MIB)
    monkeypatch.setattr(seams.RANDOM_PROJECT, in_turn(7, 9))

    assert choose_project(str(tmp_path)) == FIRST_PROJECT + 9


@pytest.mark.usefixtures("kernel")
def test_projects_are_chosen_where_nobody_counts_from_below(tmp_path):
    chosen = {choose_project(str(tmp_path)) for _ in range(100)}

    assert len(chosen) == 100
    assert all(FIRST_PROJECT <= project <= LAST_PROJECT for project in chosen)


def test_file_system_whose_projects_are_all_taken_is_told(kernel, tmp_path, monkeypatch):
    kernel.use(PROJECT, 1)
    monkeypatch.setattr(seams.RANDOM_PROJECT, lambda _: 7)

    with pytest.raises(OSError, match="1000 projects in a row are in use"):
        choose_project(str(tmp_path))


@pytest.mark.usefixtures("kernel")
def test_quota_that_is_kept_is_not_refused_and_one_that_only_counts_is(tmp_path, monkeypatch):
    assert quota_refusal(str(tmp_path)) is None

    monkeypatch.setattr(seams.CALL_ON_QUOTAS, Kernel(enforces=False))
    assert "enforces no project quotas" in refused(tmp_path)


def test_lifting_where_there_are_no_quotas_any_more_does_nothing(tmp_path, monkeypatch):
    for kernel in (Kernel(missing=True), Kernel(enforces=False)):
        monkeypatch.setattr(seams.CALL_ON_QUOTAS, kernel)
        lift_bound(str(tmp_path), PROJECT)

        assert kernel.quotas == {}
