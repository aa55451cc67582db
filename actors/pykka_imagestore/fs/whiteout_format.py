"""Whiteouts: what their entries are called, and what they are on disk.

Spec:
    OCI image-spec v1.1, layer.md, "Whiteouts"; Linux, filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.fs.flags import CREATE_FLAGS

WHITEOUT_PREFIX = b".wh."
OPAQUE_WHITEOUT = b".wh..wh..opq"
WHITEOUT_META_PREFIX = b".wh..wh."  # aufs' own bookkeeping: no content

WHITEOUT_DEVICE = os.makedev(0, 0)
OPAQUE_XATTRS = {
    WhiteoutFormat.OVERLAY_TRUSTED: b"trusted.overlay.opaque",
    WhiteoutFormat.OVERLAY_USER: b"user.overlay.opaque",
}


def is_whiteout(status: os.stat_result) -> bool:
    """Tell whether something is a whiteout in overlayfs' form."""
    # No entry gets this device otherwise: one that asks for it is a whiteout.
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == WHITEOUT_DEVICE


def write_whiteout(name: bytes, directory: int, form: WhiteoutFormat) -> None:
    """Say in a directory that what lower layers have by a name is gone.

    Raises:
        FileExistsError: The layer has something of that name, or says so already.
    """
    if form == WhiteoutFormat.FILES:
        write_mark(WHITEOUT_PREFIX + name, directory)
    else:
        os.mknod(name, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=directory)


def write_mark(name: bytes, directory: int) -> None:
    """Make an empty file, whose name says something of lower layers.

    Raises:
        FileExistsError: It is there.
    """
    os.close(os.open(name, CREATE_FLAGS, 0o600, dir_fd=directory))


def whiteout_of(path: bytes) -> bytes:
    """Return the path of the entry that says that ``path`` is gone."""
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + WHITEOUT_PREFIX + name


def choose_whiteout_format(root: int) -> WhiteoutFormat:
    """Return the best form of whiteouts that this process may write here; tries each out below ``root``."""
    for form, xattr in OPAQUE_XATTRS.items():
        try:
            write_whiteout(_PROBE, root, form)
            os.unlink(_PROBE, dir_fd=root)
            os.setxattr(root, xattr, b"y")
            os.removexattr(root, xattr)
        except OSError:
            continue
        return form
    return WhiteoutFormat.FILES


_PROBE = b".wh..wh.probe"  # a name that no entry can have
