"""Keeps what of a layer's tar is no file's body, so that the tar can be put together again, byte for byte.

One zstd frame, and nothing else. Uncompressed it is the concatenation of all bytes of the tar but the bodies of regular
files that were unpacked: headers and extension headers, padding, maps of sparse files, end blocks, what follows them,
and the bodies of entries that make no file, as a whiteout's. A reader that parses it as a tar knows at each file's
header how many bytes are missing there. The idea is that of github.com/vbatts/tar-split.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Callable
from typing import Self

from pykka_imagestore.core.byte_source import BLOCK_BYTES
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.fs.create import open_own
from pykka_imagestore.jobs.unpack.inflate import read_some

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEVEL = 1
_WINDOW_LOG = 17
_MAX_WINDOW_LOG = 25  # older versions had larger windows


class TarSplitWriter:
    """Writes a new tar-split."""

    def __init__(self, path: str) -> None:
        options = {
            int(zstd.CompressionParameter.compression_level): _LEVEL,
            int(zstd.CompressionParameter.checksum_flag): 1,
            # Each header resembles those close by. A larger window and a longer search cost twice the time, because
            # they evict the rest of the work from the CPU's cache.
            int(zstd.CompressionParameter.window_log): _WINDOW_LOG,
            int(zstd.CompressionParameter.target_length): 4,
        }
        self._sum = _Sum(path)
        self._file = zstd.ZstdFile(self._sum, "wb", options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            self._sum.close()

    @property
    def sums(self) -> tuple[int, int]:
        """The size of the file, and the CRC-32 of its bytes, once it is closed."""
        return self._sum.size_bytes, self._sum.checksum

    def write(self, data: bytes) -> None:
        """Add bytes; a block at most is kept in memory."""
        self._file.write(data)


def checksum_of(descriptor: int) -> int:
    """Return the CRC-32 of the bytes of an open split."""
    checksum = position = 0
    while data := os.pread(descriptor, BLOCK_BYTES, position):
        checksum = zlib.crc32(data, checksum)
        position += len(data)
    return checksum


class _Sum:
    """A new file that counts and sums what is written to it."""

    def __init__(self, path: str) -> None:
        self._file = os.fdopen(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")
        self.size_bytes = self.checksum = 0

    def close(self) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self.checksum = zlib.crc32(data, self.checksum)
        self.size_bytes += len(data)
        return self._file.write(data)


class TarSplitReader:
    """A layer's tar as it is put together again: a ``Source`` for the tar reader that hashes all that passes.

    Files' bodies are not in the split: the caller passes each to ``add`` when it has found the file's header.

    Args:
        descriptor: The open split.
        on_block: Called now and then.
    """

    def __init__(self, descriptor: int, on_block: Callable[[], object]) -> None:
        options = {int(zstd.DecompressionParameter.window_log_max): _MAX_WINDOW_LOG}
        self._file = zstd.ZstdFile(os.fdopen(descriptor, "rb", closefd=False), options=options)
        self._on_block = on_block
        self._next_block = 0
        self._hash = hashlib.sha256()
        self._block = b""
        self._start = self._end = 0
        self.size_bytes = 0

    def diff_id(self) -> DiffID:
        """Return the digest of what has passed so far."""
        return DiffID(f"sha256:{self._hash.hexdigest()}")

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes of the split; fewer only at the end.

        Raises:
            TarError: The split is damaged.
        """
        start, end = self._start, self._start + size
        if end <= self._end:
            self._start = end
            data = self._block[start:end]
        else:
            data = b"".join(self._take_parts(size))
        self.add(data)
        return data

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes of the split, hashing them."""
        while size and (step := len(self.take(min(size, BLOCK_BYTES)))):
            size -= step

    def drain(self) -> None:
        """Hash what is left after the end of the archive."""
        while self.take(BLOCK_BYTES):
            pass

    def add(self, data: bytes) -> None:
        """Add bytes of the tar that come next."""
        self._hash.update(data)
        self.size_bytes += len(data)
        if self.size_bytes >= self._next_block:
            self._next_block = self.size_bytes + BLOCK_BYTES
            self._on_block()

    def _take_parts(self, size: int) -> list[bytes]:
        parts = []
        while size and (self._start < self._end or self._fill()):
            parts.append(self._block[self._start : self._start + size])
            self._start += len(parts[-1])
            size -= len(parts[-1])
        return parts

    def _fill(self) -> bool:
        self._block = read_some(self._file, BLOCK_BYTES)
        self._start, self._end = 0, len(self._block)
        return self._end > 0
