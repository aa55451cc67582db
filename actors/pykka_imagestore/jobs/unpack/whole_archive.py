"""Tells that what was unpacked is no layer, but a whole image archive: its files are no root file system's."""

from __future__ import annotations

import os
import stat

from pykka_imagestore.core.formats.docker_archive import MANIFEST, is_manifest
from pykka_imagestore.core.formats.oci_layout import INDEX, LAYOUT

_MAX_MANIFEST_BYTES = 4 << 20


def find_archive_file(directory: int) -> str | None:
    """Return the name of the file by which a directory is an unpacked image archive; None if it is none.

    Nobody else may write into the directory meanwhile.
    """
    if _is_file(LAYOUT, directory) and _is_file(INDEX, directory):
        return LAYOUT
    return MANIFEST if _is_file(MANIFEST, directory) and is_manifest(_read(MANIFEST, directory)) else None


def _is_file(name: str, directory: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except (FileNotFoundError, PermissionError):  # a layer may have closed its own root to this user
        return False


def _read(name: str, directory: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MAX_MANIFEST_BYTES)
