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
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP})


def entry_like(status: os.stat_result, place: int | bytes, link: bytes = b"") -> Entry:
    """Return an entry that asks for what a node is.

    Args:
        status: Its status.
        place: An open file or directory, or a path whose last component is not followed.
        link: Where it leads to, if it is a symlink.
    """
    return Entry(
        index=0,
        kind=_KINDS[stat.S_IFMT(status.st_mode)],
        name=b"",
        link=link,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        xattrs=_xattrs(place),
    )


def _xattrs(place: int | bytes) -> dict[bytes, bytes]:
    follow = isinstance(place, int)
    try:
        keys = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return NO_XATTRS
        raise
    named = ((os.fsencode(key), key) for key in keys)
    return {
        name: os.getxattr(place, key, follow_symlinks=follow) for name, key in named if not name.startswith(_NOT_COPIED)
    } or NO_XATTRS
