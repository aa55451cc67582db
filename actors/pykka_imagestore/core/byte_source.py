"""What a worker reads a blob from: a range of a file, a pipe, later a socket."""

from __future__ import annotations

from typing import Final, Protocol

BLOCK_BYTES: Final = 256 * 1024
"""How much is read at once, so that a worker's memory does not grow with the blob."""


class ByteSource(Protocol):
    """The bytes of one blob as they are stored, from the first to the last.

    Lifecycle: the code that opens a blob lends its source for a ``with`` block and closes it when the block ends. In
    the block one thread looks at the first bytes with ``peek``, which tell how the blob is compressed, and then reads
    forward with ``read`` or ``readinto``. A call returns at most what it was asked for, and nothing only at the end. A
    reader may stop at any time; the rest is then never read. A source reads forward only, unless ``seekable()`` is
    true: then ``seek`` moves to any offset from the blob's first byte.
    """

    @property
    def bytes_read(self) -> int:
        """How many bytes ``read`` and ``readinto`` have returned so far."""

    def peek(self, size: int, /) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end, and leave them to be read."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes of what comes next, none at the end; all of it by default."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of the buffer with what comes next; return how much, 0 at the end."""

    def seekable(self) -> bool:
        """Tell whether ``seek`` works."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to an offset from the first byte; ``whence`` is always 0."""

    def close(self) -> None:
        """Release the source; nothing can be read afterwards. Safe to call again."""
