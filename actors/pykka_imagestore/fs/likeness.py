"""What a file, directory or other node is, as an entry of a tar that would make one like it."""

from __future__ import annotations

import errno
import os
import stat

from pykka_imagestore.core.tar.format import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    NO_XATTRS,
    SYMLINK,
    Entry,
)
from pykka_imagestore.fs.attributes import OVERLAY_XATTRS

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER_DEVICE,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
_NOT_COPIED = (*OVERLAY_XATTRS, b"trusted.SGI_ACL_")  # the last: XFS shows ACLs a second time


def open_like(descriptor: int) -> Entry:
    """Return an entry that asks for what an open file or directory is."""
    return entry_like(os.fstat(descriptor), xattrs_of(descriptor))


def node_like(status: os.stat_result, name: bytes, directory: int) -> Entry:
    """Return an entry that asks for what has a name in a directory, and is no directory and no open file.

    Args:
        status: Its status.
    """
    link = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else b""
    return entry_like(status, xattrs_of(b"/proc/self/fd/%d/%s" % (directory, name)), link)


def entry_like(status: os.stat_result, xattrs: dict[bytes, bytes], link: bytes = b"") -> Entry:
    """Return an entry that asks for what a node is.

    Args:
        link: Where it leads to, if it is a symlink.
    """
    mode, device = status.st_mode, status.st_rdev
    return Entry(
        0,
        _KINDS[stat.S_IFMT(mode)],
        b"",
        link,
        stat.S_IMODE(mode),
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        os.major(device) if device else 0,
        os.minor(device) if device else 0,
        xattrs,
    )


def xattrs_of(place: int | bytes) -> dict[bytes, bytes]:
    """Return the extended attributes of a node, but for those that are a file system's or an overlay's own.

    Args:
        place: An open file or directory, or a path whose last component is not followed.
    """
    follow = isinstance(place, int)
    try:
        keys = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return NO_XATTRS
        raise
    if not keys:
        return NO_XATTRS
    named = ((os.fsencode(key), key) for key in keys)
    return {
        name: os.getxattr(place, key, follow_symlinks=follow) for name, key in named if not name.startswith(_NOT_COPIED)
    } or NO_XATTRS
