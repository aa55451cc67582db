"""The bytes of a layer, inflated and hashed a block at a time.

What is read at once is bounded, so a worker's memory does not grow with the layer.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

from pykka_imagestore.core.byte_source import BLOCK_BYTES, ByteSource
from pykka_imagestore.core.digest import DiffID, Digest, digest_of, hasher
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.fs.write import write_all
from pykka_imagestore.jobs.unpack.hash_thread import HashThread
from pykka_imagestore.jobs.unpack.inflate import MAGIC_BYTES, inflate, is_compressed, read_some

_CUT_OFF = "is cut off: the layer ends inside its body"


class _HashedSource(io.RawIOBase):
    """A ``ByteSource`` that has a ``HashThread`` hash all bytes that are read."""

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
        digest: The digest that the stored bytes must have, for ``blob_digest``; None if none is known.
        on_block: Called with the stream after each block that was read.
        limits: As for ``inflate``.
        keep: Called with the bytes that are no file's body: all that pass ``take``, ``skip`` and ``drain``, about a
            block at a time. ``drain`` passes the last ones.
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
        # The stored bytes of a layer that is not compressed are those of its tar, and are hashed once.
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
        """Read what is left of the layer as it is stored; return its digest as that, None if none is known."""
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
        """Return the next ``size`` bytes, which are no file's body; fewer only at the end."""
        start, end = self._start, self._start + size
        if end <= self._end:  # as in ``_read``, without the cost of the call for each header
            self._start = end
            data = self._block[start:end]
        else:
            data = self._read(size)
        self._kept.append(data)
        return data

    def skip(self, size: int) -> None:
        """Hash ``size`` bytes that make no file."""
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
            # As much as makes the file's own blocks whole: for these the kernel has large folios.
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
