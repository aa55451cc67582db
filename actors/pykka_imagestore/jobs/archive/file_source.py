"""A range of an open file as a ``ByteSource``."""

from __future__ import annotations

import io
import os

from pykka_imagestore.core.byte_source import BLOCK_BYTES
from pykka_imagestore.jobs.archive.opening import read_at


class FileSource(io.RawIOBase):
    """A range of an open file; ``close`` leaves the file open, for other ranges of it.

    Args:
        file: The open file. Its own position is neither used nor changed.
        path: Its path, for errors.
        offset: Where the range begins.
        size: How many bytes it has; a file that ends before gives fewer.
    """

    def __init__(self, file: int, path: str, offset: int, size: int) -> None:
        self._file, self._path = file, path
        self._offset, self._size = offset, size
        self._position = 0
        self.bytes_read = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to an offset from the range's first byte."""
        if whence != os.SEEK_SET:
            msg = "only an offset from the first byte is supported"
            raise io.UnsupportedOperation(msg)
        self._position = offset
        return offset

    def tell(self) -> int:
        """Return the offset from the range's first byte."""
        return self._position

    def peek(self, size: int, /) -> bytes:
        """Return the next ``size`` bytes, fewer at the end, and leave them to be read."""
        size = max(0, min(size, self._size - self._position))
        return read_at(self._path, self._file, size, self._offset + self._position)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next ``size`` bytes, fewer at the end; by default all."""
        if size < 0:
            return self.readall()
        data = self.peek(size)
        self._position += len(data)
        self.bytes_read += len(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill a part of the buffer, as the inflaters like to read."""
        data = self.read(min(len(buffer), BLOCK_BYTES))  # of the gzip reader's buffer, half is then never touched
        buffer[: len(data)] = data
        return len(data)
