"""xz, with a bound on the memory that a stream may ask for."""

from __future__ import annotations

import lzma

from pykka_imagestore.core.tar import OverLimitError, TarError
from pykka_imagestore.jobs.streams import BLOCK_BYTES, Readable


class XzReader:
    """Reads xz streams in a row, as ``lzma.LZMAFile`` does, which knows no bound on the decoder's memory."""

    def __init__(self, source: Readable, memory_bytes: int) -> None:
        self._source = source
        self._memory_bytes = memory_bytes
        self._decoder = self._new_decoder()

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end.

        Raises:
            TarError: They are damaged, or ask for too much memory.
            EOFError: They end too early.
        """
        data = b""
        while not data:
            more = self._take_input()
            if self._decoder.eof:
                if not more:
                    break
                self._decoder = self._new_decoder()
            elif not more and self._decoder.needs_input:
                msg = "the compressed bytes end too early"
                raise EOFError(msg)
            data = self._decode(more, size)
        return data

    def _take_input(self) -> bytes:
        """Return the compressed bytes to go on with; between two streams, those after the padding."""
        if not self._decoder.eof:
            return self._source.read(BLOCK_BYTES) if self._decoder.needs_input else b""
        more = self._decoder.unused_data.lstrip(b"\0")
        while not more and (block := self._source.read(BLOCK_BYTES)):
            more = block.lstrip(b"\0")
        return more

    def _decode(self, data: bytes, size: int) -> bytes:
        try:
            return self._decoder.decompress(data, size)
        except lzma.LZMAError as error:
            if "Memory usage limit" not in str(error):
                refusal = f"cannot be inflated: {error}"
                raise TarError(refusal) from error
            msg = f"asks for more memory to be inflated than {self._memory_bytes} bytes, the limit"
            raise OverLimitError(msg, "decoder_bytes") from error

    def _new_decoder(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=self._memory_bytes)
