"""The journal as an open file: what was read of it, what is durable of it, and the writing of a frame."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from pykka_imagestore.core.journal import HEADER_BYTES, Frame, pack_frame, parse_header
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.durable.files import open_file
from pykka_imagestore.errors import CheckpointError


class JournalFile(Uncopyable):
    """An open journal, closed when its last reference goes: one thread may sync it while another replaces it.

    Attributes:
        sequence: Of the last frame that was read.
        end: Bytes that were read.
        synced: Bytes that are known to be durable; if there are any, the file's name is durable, too.
        torn_bytes: Bytes after ``end`` that are no whole frame.
    """

    instead = "open it again"

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        status = os.fstat(self.descriptor)
        self._identity = (status.st_dev, status.st_ino)
        sequence = parse_header(os.pread(self.descriptor, HEADER_BYTES, 0))
        if sequence is None:
            raise CheckpointError(str(path), "it does not begin as a journal of images")
        self.sequence = sequence
        self.end = HEADER_BYTES
        self.synced = self.torn_bytes = 0

    def __del__(self) -> None:
        os.close(self.descriptor)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file, for reading alone if this process may not write it.

        Raises:
            CheckpointError: It does not begin as a journal.
            MisplacedFileError, ForeignStoreError: As ``open_file``.
        """
        try:
            return cls(path, open_file(path, os.O_RDWR))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            return cls(path, open_file(path))

    def is_at(self, status: os.stat_result) -> bool:
        """Tell whether a file that was found under its name is this one, and still has all that was read of it."""
        # While the file is open, its inode number is given to no other.
        return (status.st_dev, status.st_ino) == self._identity and status.st_size >= self.end

    def read_tail(self) -> bytes:
        """Return what was not read yet."""
        size = os.fstat(self.descriptor).st_size - self.end
        return os.pread(self.descriptor, size, self.end) if size > 0 else b""

    def has_other_names(self) -> bool:
        """Tell whether the file has another name, too."""
        return os.fstat(self.descriptor).st_nlink > 1

    def append(self, frame: Frame) -> None:
        """Write a frame, not synced, in the place of what is torn.

        Raises:
            OSError: It could not be written. Nothing of it is left, unless the disk refuses to cut it off, too.
        """
        if self.torn_bytes:
            os.ftruncate(self.descriptor, self.end)
        try:
            _write_at(self.descriptor, pack_frame(frame), self.end)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self.descriptor, self.end)
            error.filename = str(self.path)
            raise


def _write_at(descriptor: int, data: bytes, position: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written
