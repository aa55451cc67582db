"""Bounds how much is written below directories: by the quota of a project, where the file system has those.

A project is a number that files carry. A directory can hand its number down to all that is made in it, and a file
system that keeps quotas of projects lets no more be written under a number than its limit. Nothing of another number
can be renamed or linked into such a directory.

The limit holds for root too, through an overlay; ext4 does not hold it for a process with CAP_SYS_RESOURCE that writes
to the directory itself. A process outside of any user namespace may give its own files another number, and so leave
the quota: what runs untrusted programs without a user namespace has to filter that call (FS_IOC_FSSETXATTR).

Spec:
    Linux, include/uapi/linux/quota.h, dqblk_xfs.h and fs.h; quotactl_fd(2), which is of Linux 5.14. The commands of the
    first are understood by every file system that has quotas, XFS too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable

from pykka_imagestore.fs.open_directories import opened_directory
from pykka_imagestore.rootfs.place import mount_of
from pykka_imagestore.rootfs.system_calls import buffer_of, call

Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTATV = 0x800007, 0x800008, 0x5808
PRJQUOTA = 2
QIF_BLIMITS = 1
QIF_DQBLKSIZE = 1024
FS_QSTATV_VERSION1 = 1
FS_QUOTA_PDQ_ENFD = 1 << 5
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
FS_XFLAG_PROJINHERIT = 0x200

# struct if_dqblk: hard and soft limit of space and what is used of it, the same of inodes, two times, what is valid.
DQBLK = struct.Struct("=8QI4x")
STATV_FLAGS = struct.Struct("=bxH")
STATV_BYTES = 256  # struct fs_quota_statv takes less
FSXATTR = struct.Struct("=5I8x")  # struct fsxattr: flags, two sizes, the project, another size

# People and other programs count from below: Docker, containerd and the kubelet from 1,048,577 on.
FIRST_PROJECT, LAST_PROJECT = 1 << 30, (1 << 31) - 1

_TRIES = 1000
_HOW = {
    "ext4": (
        "unmount it, run tune2fs -O project,quota on it, and mount it with the option prjquota; the kernel has to be "
        "built with CONFIG_QFMT_V2"
    ),
    "xfs": (
        "unmount it, and mount it with the option pquota, which a remount does not turn on; the kernel has to be built "
        "with CONFIG_XFS_QUOTA"
    ),
}


def quota_refusal(path: str) -> str | None:
    """Return why what is written below a directory cannot be bounded, and who can change that; None if it can.

    Raises:
        OSError: The directory cannot be opened.
    """
    with opened_directory(path) as directory:
        if not _has_call():
            return "this kernel, or what filters its calls, has no quotactl_fd(2), which is of Linux 5.14"
        if not _keeps_limits(directory):
            return _no_quotas(directory)
        try:
            _read(directory, FIRST_PROJECT)
        except PermissionError:
            return "to set a quota takes CAP_SYS_ADMIN, and not in a user namespace; run it as root"
        return None


def choose_project(path: str) -> int:
    """Return a project that nothing on a directory's file system uses, and that has no limit there.

    Chosen at random among a thousand million, so that two who choose at once do not choose the same.

    Raises:
        OSError: The file system cannot tell, or finds none.
    """
    with opened_directory(path) as directory:
        for _ in range(_TRIES):
            project = FIRST_PROJECT + _random_below(LAST_PROJECT - FIRST_PROJECT + 1)
            if not any(_read(directory, project)):
                return project
    raise OSError(errno.EBUSY, f"{_TRIES} projects in a row are in use", path)


def count_below(paths: Iterable[str], project: int) -> None:
    """Have whatever is made in some directories counted under a project, and they themselves.

    Args:
        paths: Empty directories: what is in one already would not count.

    Raises:
        OSError: The file system has no projects, or this process may not set them.
    """
    for path in paths:
        with opened_directory(path) as directory:
            _hand_down(directory, project)


def bound(path: str, project: int, size_bytes: int) -> None:
    """Let so many bytes more be written under a project than there are now: in whole KiB, one at least.

    Blocks of directories count, and all of a file that is copied up to be changed.

    Args:
        path: A directory of its file system.

    Raises:
        OSError: The file system cannot, or this process may not.
    """
    with opened_directory(path) as directory:
        _, _, used, *_ = _read(directory, project)
        _limit(directory, project, max((used + size_bytes) // QIF_DQBLKSIZE, 1))


def lift_bound(path: str, project: int) -> None:
    """Forget a project's limit; what still lies under its number keeps the number taken. Idempotent.

    Does nothing where the file system has no quotas, as after it was mounted without.

    Args:
        path: A directory of its file system.

    Raises:
        OSError: The directory cannot be opened, or this process may not.
    """
    with opened_directory(path) as directory:
        if _has_call() and _keeps_limits(directory):
            _limit(directory, project, 0)


def _random_below(bound: int) -> int:
    # As good as secrets.randbelow, which loads OpenSSL: each program that makes a root file system would wait for that.
    return int.from_bytes(os.urandom(8)) % bound


def _no_quotas(directory: int) -> str:
    mounted = mount_of(directory)
    if mounted is None:
        return "its file system enforces no project quotas"
    how = _HOW.get(mounted.kind, "move the store to ext4 or XFS, which can")
    return f"the {mounted.kind} at {mounted.point} enforces no project quotas: {how}"


def _has_call() -> bool:
    try:
        _quotactl(-1, Q_GETQUOTA, 0, bytearray(DQBLK.size))
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def _keeps_limits(directory: int) -> bool:
    """Tell whether a file system counts by projects, and refuses what is beyond a limit: it may do the first alone."""
    state = bytearray(STATV_BYTES)
    state[0] = FS_QSTATV_VERSION1
    try:
        _quotactl(directory, Q_XGETQSTATV, 0, state)
    except OSError:
        return False
    flags: int = STATV_FLAGS.unpack_from(state)[1]
    return bool(flags & FS_QUOTA_PDQ_ENFD)


def _read(directory: int, project: int) -> tuple[int, ...]:
    """Return the limits of a project, and what is used of them: hard, soft, used of space, and the same of inodes."""
    quota = bytearray(DQBLK.size)
    try:
        _quotactl(directory, Q_GETQUOTA, project, quota)
    except FileNotFoundError:  # XFS has never heard of it
        return (0,) * 6
    return DQBLK.unpack(quota)[:6]


def _limit(directory: int, project: int, blocks: int) -> None:
    _quotactl(directory, Q_SETQUOTA, project, bytearray(DQBLK.pack(blocks, 0, 0, 0, 0, 0, 0, 0, QIF_BLIMITS)))


def _hand_down(directory: int, project: int) -> None:
    """Have whatever is made in a directory belong to a project, and the directory itself."""
    attributes = bytearray(FSXATTR.size)
    fcntl.ioctl(directory, FS_IOC_FSGETXATTR, attributes)
    flags, extent, extents, _, copied = FSXATTR.unpack(attributes)
    changed = FSXATTR.pack(flags | FS_XFLAG_PROJINHERIT, extent, extents, project, copied)
    fcntl.ioctl(directory, FS_IOC_FSSETXATTR, changed)


def _quotactl(directory: int, command: int, project: int, data: bytearray) -> None:
    call("quotactl_fd", directory, command << 8 | PRJQUOTA, project, buffer_of(data))
