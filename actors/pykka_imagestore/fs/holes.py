"""The holes of a sparse file, which its tar does not hold."""

from __future__ import annotations

import errno
import os

from pykka_imagestore.core.tar.format import SparseMap

_BLOCK_BYTES = 256 << 10


def has_only_holes(file: int, sparse: SparseMap) -> bool:
    """Tell whether there is nothing between the segments of a file."""
    end = 0
    for offset, size in (*sparse.segments, (sparse.size_bytes, 0)):
        if not _is_hole(file, end, offset):
            return False
        end = offset + size
    return True


def _is_hole(file: int, start: int, end: int) -> bool:
    while start < end:
        try:
            start = os.lseek(file, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            raise
        # Zeros are as good: a file system may keep whole blocks only.
        data = os.pread(file, max(0, min(end - start, _BLOCK_BYTES)), start)
        if data.strip(b"\0"):
            return False
        start += len(data) or end
    return True
