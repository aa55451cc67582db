"""Inflates xz with a bound on the memory that a stream may ask for."""

from __future__ import annotations

import lzma

from pykka_imagestore.core.tar.format import OverLimitError, TarError


class XzDecoder:
    """Inflates one stream.

    Args:
        memory_bytes: How much memory it may ask for.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory_bytes)

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        """Whether more comes out only after more goes in."""
        return self._decoder.needs_input

    @property
    def unused_data(self) -> bytes:
        """Bytes that went in and lie behind the stream's end."""
        return self._decoder.unused_data

    def decompress(self, data: memoryview | bytes, max_length: int, /) -> bytes:
        """Return at most ``max_length`` bytes of what comes out.

        Raises:
            TarError: The stream is damaged, or asks for too much memory.
        """
        try:
            return self._decoder.decompress(data, max_length)
        except lzma.LZMAError as error:
            if "Memory usage limit" not in str(error):
                refusal = f"cannot be inflated: {error}"
                raise TarError(refusal) from error
            msg = f"asks for more memory to be inflated than {self._memory_bytes} bytes, the limit"
            raise OverLimitError(msg, "decoder_bytes") from error
