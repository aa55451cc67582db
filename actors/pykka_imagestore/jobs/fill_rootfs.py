"""Do one share of copying or linking a root file system. Runs in a worker process."""

from __future__ import annotations

from pykka_imagestore.core.rootfs import FillPart
from pykka_imagestore.rootfs.fill import fill


def fill_rootfs(part: FillPart) -> None:
    """Do a share. Nothing is synced.

    Safe to run again after it was cut off anywhere: the same comes of it. All shares may run at once.

    Raises:
        OSError: A layer cannot be read, or the disk failed or is full. What was made stays, to be removed with the
            container's directory.
    """
    fill(part)
