"""Addresses of sockets: a path there has 107 bytes at most, and a staging directory may lie deeper than that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pykka_imagestore.fs.flags import DIRECTORY_FLAGS


@contextmanager
def short_path(path: str) -> Iterator[str]:
    """Lend a short name for a path, through its open directory."""
    directory = os.open(os.path.dirname(path), DIRECTORY_FLAGS | os.O_PATH)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)
