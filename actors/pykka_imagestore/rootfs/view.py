"""A directory that is mounted a second time, with attributes of its own: what is below it can then only be read."""

from __future__ import annotations

import os

from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.fs.open_directories import pinned_directory
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.mounts import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    clone_tree,
    set_attributes,
)
from pykka_imagestore.rootfs.place import attached
from pykka_imagestore.rootfs.refusals import failed


def mount_attributes(request: RootfsRequest) -> int:
    """Return what a request's mount is to be: one that no runtime guards gives nobody another user's rights."""
    guards = 0 if request.for_runtime else MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    return guards | (MOUNT_ATTR_RDONLY if request.read_only else 0)


def show(directory: str, request: RootfsRequest, backend: str) -> Mounted:
    """Mount a directory as a request's root file system, without what is mounted below it.

    Args:
        backend: For whom, for the error.

    Raises:
        RootfsError: The kernel refused.
        InvalidInputError: The target is no empty directory of this user's.
        OSError: The directory is not there, or the machine has no room.
    """
    try:
        descriptor = _clone(directory, mount_attributes(request))
    except OSError as error:
        raise failed(backend, request, error) from error
    return attached(descriptor, request)


def why_not_shown(directory: str) -> str | None:
    """Return what the kernel says against mounting a directory a second time; None if it lets this process do so.

    In a user namespace the answer is not the same for all: what hides something of another one's cannot be mounted.
    """
    try:
        os.close(_clone(directory, MOUNT_ATTR_NOSUID))  # with an attribute: mount_setattr(2) is of 5.12, and younger
    except OSError as error:
        return error.strerror
    return None


def _clone(directory: str, attributes: int) -> int:
    with pinned_directory(directory) as pin:
        descriptor = clone_tree(pin)
    try:
        set_attributes(descriptor, attributes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
