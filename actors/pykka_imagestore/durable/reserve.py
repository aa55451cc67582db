"""Room that a store reserves: an operation that frees room on a full disk must not fail for want of it.

``reserve/<number>`` are files of PIECE_BYTES each, allocated and never read: they keep blocks and inodes. A removal, a
prune or a lease that finds the disk full deletes one, and tries again. They are made again when a store is opened, and
when something was deleted. Nothing is synced: a power cut may leave some of them, which is as if others had been used.
Files of another size are somebody's own, and are left alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.files import create_file, make_directory
from pykka_imagestore.durable.permissions import has_directory
from pykka_imagestore.errors import StateError

T = TypeVar("T")

PIECES = 16
PIECE_BYTES = 64 << 10
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
STAT_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's are


def in_reserve(paths: StorePaths, act: Callable[[], T]) -> T:
    """Return ``act()``; where the disk is full, give up the reserve for it, piece by piece.

    Args:
        act: Leaves nothing behind when it raises an OSError: it is called again.

    Raises:
        OSError: What ``act`` raises, for another reason or when there is no reserve left.
    """
    while True:
        try:
            return act()
        except OSError as error:
            if error.errno not in _FULL or not _give_up_piece(paths):
                raise


def make_reserve(paths: StorePaths) -> None:
    """Make what is missing of the reserve, as far as there is room."""
    with suppress(OSError, StateError):  # the disk is full, or may only be read
        if not has_directory(paths.reserve):
            make_directory(paths.reserve, 0o700)
        for number in range(PIECES):
            _make_piece(paths.reserve / str(number))


def _give_up_piece(paths: StorePaths) -> bool:
    """Delete a piece; tell whether there was one."""
    for number in range(PIECES):
        piece = paths.reserve / str(number)
        with suppress(OSError):
            if _is_piece(piece.lstat()):
                piece.unlink()
                return True
    return False


def _is_piece(found: os.stat_result) -> bool:
    # Its maker may have died before it had its size; what has another name, too, may be needed there.
    return stat.S_ISREG(found.st_mode) and found.st_size in (0, PIECE_BYTES) and found.st_nlink == 1


def _make_piece(path: Path) -> None:
    with suppress(FileNotFoundError):
        found = path.lstat()
        # A piece that was copied, or whose maker died, may have its size and no blocks.
        if not _is_piece(found) or found.st_blocks * STAT_BLOCK_BYTES >= PIECE_BYTES:
            return
    descriptor = create_file(path, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, PIECE_BYTES)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
