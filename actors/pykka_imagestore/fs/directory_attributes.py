"""Gives one directory what another has: for a directory that stands in another's place."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from pykka_imagestore.fs.attributes import OVERLAY_XATTRS, disown
from pykka_imagestore.fs.pins import pin_path


def copy_directory_attributes(source: int, target: int) -> None:
    """Give an open directory the mode, owner, times and extended attributes of another, which may be pinned only.

    What this process may not set is left out, and so is what an overlay says about its layers.
    """
    place = pin_path(source)
    status = os.stat(place)
    disown(target)
    for key in map(os.fsencode, os.listxattr(place)):
        if not key.startswith(OVERLAY_XATTRS):
            with suppress(OSError):  # no such thing here, or a privilege is missing
                os.setxattr(target, key, os.getxattr(place, key))
    with suppress(OSError):
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))  # after the access list and the owner, which change it
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
