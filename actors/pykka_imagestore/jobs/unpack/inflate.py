"""Inflates what is gzip, zstd, xz or bzip2, and passes on what is not compressed."""

from __future__ import annotations

import io
import re
import sys
from functools import partial
from typing import BinaryIO, cast

from pykka_imagestore.core.byte_source import BLOCK_BYTES, ByteSource
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.tar.format import OverLimitError, TarError
from pykka_imagestore.jobs.unpack.frames import FrameReader, Readable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\0"
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame, or one to skip: pzstd begins so
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")  # with its first block's, since a tar may begin with "BZh"
MAGIC_BYTES = 10


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
        from pykka_imagestore.jobs.unpack.gzip_reader import GzipReader  # noqa: PLC0415 - not for a docker-archive

        return GzipReader(source)
    if _ZSTD.match(magic):
        return _ZstdReader(source, limits)
    if magic.startswith(_XZ):
        from pykka_imagestore.jobs.unpack.xz import XzDecoder  # noqa: PLC0415 - seldom needed

        return FrameReader(source, partial(XzDecoder, limits.decoder_bytes), limits, is_padded=True)
    if _BZIP2.match(magic):
        import bz2  # noqa: PLC0415 - seldom needed

        return cast(Readable, bz2.BZ2File(_in_blocks(source)))
    return cast(Readable, source)


class _ZstdReader(FrameReader):
    """Reads zstd frames, each with a window of no more bytes than a decoder may have."""

    def __init__(self, source: Readable, limits: Limits) -> None:
        parameter = zstd.DecompressionParameter.window_log_max
        least, most = parameter.bounds()
        log = min(max(limits.decoder_bytes.bit_length() - 1, least), most)
        self._max_window_bytes = 1 << log
        super().__init__(source, partial(zstd.ZstdDecompressor, options={int(parameter): log}), limits)

    def read(self, size: int, /) -> bytes:
        try:
            return super().read(size)
        except zstd.ZstdError as error:
            if "too much memory" not in str(error):
                raise
            msg = f"asks for a window of more than {self._max_window_bytes} bytes to be inflated, the limit"
            raise OverLimitError(msg, "decoder_bytes") from error


def _in_blocks(source: BinaryIO) -> BinaryIO:
    """Return a reader for a decoder that reads in small steps."""
    return io.BufferedReader(cast(io.RawIOBase, source), BLOCK_BYTES)


def read_some(source: Readable, size: int) -> bytes:
    """Return at most ``size`` bytes of what comes next, none at the end.

    Raises:
        TarError: The compressed bytes are damaged or cut off.
        OSError: The disk failed.
    """
    try:
        return source.read(size)
    except (EOFError, zstd.ZstdError, ValueError) as error:
        msg = f"cannot be inflated: {error}"
        raise TarError(msg) from error
    except OSError as error:
        if error.errno is not None:
            raise
        msg = f"cannot be inflated: {error}"  # gzip and bzip2 raise OSError for damaged bytes too
        raise TarError(msg) from error
