"""Reads compressed frames or streams in a row as one, with bounds on their memory and on their number.

The readers of the standard library bound neither an xz decoder's memory nor the number of frames: an empty frame of
zstd takes 8 bytes, an empty stream of xz 32, and each takes a decoder of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.tar.format import OverLimitError

_BLOCK_BYTES = 256 * 1024
_FIRST_BYTES = 1024
_NO_ZERO = re.compile(rb"[^\0]")
_WORTH_A_FRAME = 256  # bytes that come out; the shortest entry has twice as many


class Readable(Protocol):
    """A file to read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


class Decoder(Protocol):
    """Inflates one frame, as the decoders of the standard library do."""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether more comes out only after more goes in."""

    @property
    def unused_data(self) -> bytes:
        """Bytes that went in and lie behind the frame's end."""

    def decompress(self, data: memoryview | bytes, max_length: int, /) -> bytes:
        """Return at most ``max_length`` bytes of what comes out."""


class FrameReader:
    """Reads frames in a row.

    Args:
        source: The compressed bytes.
        new_decoder: Returns a decoder for the next frame.
        limits: How many frames there may be.
        is_padded: Whether zero bytes may lie between two frames.
    """

    def __init__(
        self, source: Readable, new_decoder: Callable[[], Decoder], limits: Limits, *, is_padded: bool = False
    ) -> None:
        self._source = source
        self._new_decoder = new_decoder
        self._limits = limits
        self._is_padded = is_padded
        self._block = b""
        self._position = 0  # in it; what comes before was given to a decoder
        self._decoder, self._step = new_decoder(), _FIRST_BYTES
        self._at_end = False
        self._frames = 1
        self._size_bytes = 0

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end.

        Raises:
            OverLimitError: There are too many frames for what they become.
            EOFError: The bytes end inside a frame.
        """
        parts: list[bytes] = []
        missing = size
        while missing > size // 2 and (not self._decoder.eof or self._begin_frame()):
            part = self._decoder.decompress(self._take_input(), missing)
            if part:
                parts.append(part)
                missing -= len(part)
                self._size_bytes += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_input(self) -> memoryview | bytes:
        """Return the decoder's next input: little of a new frame, since it gives back what lies behind its end."""
        if not self._decoder.needs_input:
            return b""
        if not self._fill():
            msg = "the compressed bytes end too early"
            raise EOFError(msg)
        data = memoryview(self._block)[self._position : self._position + self._step]
        self._position += len(data)
        self._step = min(2 * self._step, _BLOCK_BYTES)
        return data

    def _begin_frame(self) -> bool:
        """Go on behind the end of a frame; tell whether another one follows."""
        if self._at_end:
            return False
        self._position -= len(self._decoder.unused_data)
        while self._fill() and self._is_padded:
            found = _NO_ZERO.search(self._block, self._position)
            self._position = found.start() if found else len(self._block)
            if found:
                break
        self._at_end = self._position == len(self._block)
        if self._at_end:
            return False
        self._frames += 1
        if self._frames > self._limits.frames + self._size_bytes // _WORTH_A_FRAME:
            found_frames = f"is one of {self._frames} frames that become {self._size_bytes} bytes"
            limit = f"{self._limits.frames} and one for each {_WORTH_A_FRAME} bytes is the limit"
            msg = f"{found_frames}; {limit}"
            raise OverLimitError(msg, "frames")
        self._decoder, self._step = self._new_decoder(), _FIRST_BYTES
        return True

    def _fill(self) -> bool:
        """Read a block if the last one is used up; tell whether there are more bytes."""
        if self._position == len(self._block):
            self._block, self._position = self._source.read(_BLOCK_BYTES), 0
        return bool(self._block)
