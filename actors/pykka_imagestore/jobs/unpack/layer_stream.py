"""The bytes of a layer: from a ``ByteSource``, inflated, hashed, a block at a time.

What is read at once is bounded, so a worker's memory does not grow with the layer.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, cast

from isal import igzip, igzip_lib

from pykka_imagestore.core.byte_source import BLOCK_BYTES, ByteSource
from pykka_imagestore.core.digest import DiffID, Digest, digest_of, hasher
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.jobs.unpack.frames import FrameReader, Readable
from pykka_imagestore.jobs.unpack.hash_thread import HashThread

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_ZSTD_WINDOW_LOG = 25  # the decoder keeps 32 MiB

_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\0"
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame, or one to skip: pzstd begins so
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")  # with its first block's, since a tar may begin with "BZh"
MAGIC_BYTES = 10
_GZIP_ERROR = cast(type[Exception], igzip_lib.IsalError)  # its stub says that it is an instance


_CUT_OFF = "is cut off: the layer ends inside its body"


def is_compressed(magic: bytes) -> bool:
    """Tell from a file's first bytes whether it is of a compression that we read."""
    return magic.startswith((_GZIP, _XZ)) or bool(_ZSTD.match(magic) or _BZIP2.match(magic))


def inflate(file: ByteSource | BinaryIO, magic: bytes, limits: Limits = DEFAULT_LIMITS) -> Readable:
    """Return a reader of the uncompressed bytes, by what the first bytes say the compression is, if any.

    Args:
        limits: How much the decoder may be asked for.
    """
    source = cast(BinaryIO, file)
    if magic.startswith(_GZIP):
        return cast(Readable, igzip.open(source))  # type: ignore[no-untyped-call]
    if _ZSTD.match(magic):
        options = {int(zstd.DecompressionParameter.window_log_max): MAX_ZSTD_WINDOW_LOG}
        return FrameReader(source, partial(zstd.ZstdDecompressor, options=options), limits)
    if magic.startswith(_XZ):
        from pykka_imagestore.jobs.unpack.xz import XzDecoder  # noqa: PLC0415 - seldom needed

        return FrameReader(source, partial(XzDecoder, limits.decoder_bytes), limits, is_padded=True)
    if _BZIP2.match(magic):
        import bz2  # noqa: PLC0415 - seldom needed

        return cast(Readable, bz2.BZ2File(_in_blocks(source)))
    return cast(Readable, source)


def _in_blocks(source: BinaryIO) -> BinaryIO:
    """Return a reader for those who read in small steps."""
    return io.BufferedReader(cast(io.RawIOBase, source), BLOCK_BYTES)


def read_some(source: Readable, size: int) -> bytes:
    """Return at most ``size`` bytes of what comes next, none at the end.

    Raises:
        TarError: The compressed bytes are damaged or cut off.
        OSError: The disk failed.
    """
    try:
        return source.read(size)
    except (EOFError, zstd.ZstdError, _GZIP_ERROR, ValueError) as error:
        msg = f"cannot be inflated: {error}"
        raise TarError(msg) from error
    except OSError as error:
        if error.errno is not None:
            raise
        msg = f"cannot be inflated: {error}"  # gzip and bzip2 call their own complaints OSError
        raise TarError(msg) from error


def write_all(descriptor: int, data: bytes | memoryview, more: bytes | memoryview = b"") -> None:
    """Write bytes, and those that come next, with one call if the disk takes all."""
    written = os.writev(descriptor, (data, more)) if more else os.write(descriptor, data)
    if written < len(data) + len(more):
        rest = memoryview(b"".join((data, more)))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


class _HashedSource(io.RawIOBase):
    """A ``ByteSource`` whose bytes are hashed where they are read; a ``HashThread`` does it."""

    def __init__(self, source: ByteSource, computed: hashlib._Hash, hash_thread: HashThread) -> None:
        self._source = source
        self._update = computed.update
        self._hash_thread = hash_thread

    @property
    def bytes_read(self) -> int:
        return self._source.bytes_read

    def readable(self) -> bool:
        return True

    def peek(self, size: int, /) -> bytes:
        return self._source.peek(size)

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._hash_thread.do(self._update, data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self.read(min(len(buffer), BLOCK_BYTES))
        buffer[: len(data)] = data
        return len(data)


class LayerStream:
    """A layer's uncompressed bytes: a ``Source`` for the tar reader that hashes all that passes.

    Args:
        source: The layer as it is stored.
        digest: What that must be, for ``blob_digest``; None if nobody asks.
        on_block: Called with the stream after each block that was read.
        limits: As for ``inflate``.
        keep: Called with the bytes that are no file's body, all that pass ``take``, ``skip`` and ``drain``, about a
            block at a time; with the last ones by ``drain``.
        hash_thread: Does the hashing, and calls ``keep``.
    """

    def __init__(
        self,
        source: ByteSource,
        digest: Digest | None,
        on_block: Callable[[LayerStream], object],
        limits: Limits = DEFAULT_LIMITS,
        keep: Callable[[bytes], object] | None = None,
        hash_thread: HashThread | None = None,
    ) -> None:
        self._hash_thread = HashThread() if hash_thread is None else hash_thread
        magic = source.peek(MAGIC_BYTES)
        # What is not compressed is hashed once.
        self._is_plain_sha256 = not is_compressed(magic) and (digest or "").startswith("sha256:")
        self._blob = None if digest is None or self._is_plain_sha256 else hasher(digest)
        self._stored = source if self._blob is None else _HashedSource(source, self._blob, self._hash_thread)
        self._source = inflate(self._stored, magic, limits)
        self._on_block = on_block
        self._hash = hashlib.sha256()
        self._block = b""
        self._start = self._end = 0
        self._keep = keep
        self._kept: list[bytes] = []  # what was taken of this block
        self.size_bytes = 0

    @property
    def bytes_read(self) -> int:
        """Bytes read of the layer as it is stored."""
        return self._stored.bytes_read

    def diff_id(self) -> DiffID:
        """Return the digest of what was read so far."""
        self._hash_thread.settle()
        return DiffID(f"sha256:{self._hash.hexdigest()}")

    def blob_digest(self) -> Digest | None:
        """Read what is left of the layer as it is stored, and return that one's digest; None if nobody asks."""
        if self._is_plain_sha256:
            self.drain()
            return Digest(self.diff_id())
        if self._blob is None:
            return None
        while self._stored.read(BLOCK_BYTES):
            self._on_block(self)
        self._hash_thread.settle()
        return digest_of(self._blob)

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes, that are no body; fewer only at the end."""
        start, end = self._start, self._start + size
        if end <= self._end:  # as in ``_read``, and spares each header the call
            self._start = end
            data = self._block[start:end]
        else:
            data = self._read(size)
        self._kept.append(data)
        return data

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes, that make no file, hashing them."""
        while size and (self._start < self._end or self._fill()):
            size -= len(self.take(min(size, self._end - self._start)))

    def read_body(self, size: int) -> bytes:
        """Return the next ``size`` bytes.

        Raises:
            TarError: There are not as many.
        """
        data = self._read(size)
        if len(data) < size:
            raise TarError(_CUT_OFF)
        return data

    def write_to(self, descriptor: int, size: int) -> None:
        """Write the next ``size`` bytes to a file.

        Raises:
            TarError: There are not as many.
        """
        while size:
            rest = memoryview(self._block)[self._start : self._start + size]
            self._start += len(rest)
            if len(rest) == size:
                write_all(descriptor, rest)
                return
            size -= len(rest)
            if not self._fill():
                raise TarError(_CUT_OFF)
            # So much that the file is written in whole blocks of its own, for which the kernel has large folios.
            more = memoryview(self._block)[: min(size, BLOCK_BYTES - len(rest))]
            self._start = len(more)
            size -= len(more)
            write_all(descriptor, rest, more)

    def drain(self) -> None:
        """Read and hash what is left after the end of the archive."""
        while self._start < self._end or self._fill():
            self.skip(self._end - self._start)

    def _read(self, size: int) -> bytes:
        start, end = self._start, self._start + size
        if end <= self._end:
            self._start = end
            return self._block[start:end]
        parts = []
        while size and (self._start < self._end or self._fill()):
            part = self._block[self._start : self._start + size]
            parts.append(part)
            self._start += len(part)
            size -= len(part)
        return b"".join(parts)

    def _fill(self) -> bool:
        if self._keep is not None:
            self._hash_thread.do(self._keep, b"".join(self._kept))
        self._kept.clear()
        self._block = b""  # the next one takes its place in memory
        self._block = read_some(self._source, BLOCK_BYTES)
        self._start, self._end = 0, len(self._block)
        self._hash_thread.do(self._hash.update, self._block)
        self.size_bytes += self._end
        self._on_block(self)
        return self._end > 0
