"""Estimate how much work a layer is from a sample of its bytes.

The estimate decides which layer is unpacked first, and which ones several workers unpack together.
"""

from __future__ import annotations

import io
from dataclasses import replace

from pykka_imagestore.core.byte_source import ByteSource
from pykka_imagestore.core.layer_blob import Estimate, LayerBlob, Place
from pykka_imagestore.core.tar.format import BLOCK, TarError
from pykka_imagestore.jobs.unpack.inflate import MAGIC_BYTES, inflate, is_compressed, read_some

_MAGIC_OFFSET = 257  # of "ustar" in a header
_SAMPLES, _SAMPLE_BYTES = 64, 16 << 10
_COMPRESSED_BYTES = 64 << 10  # of a compressed layer, from its beginning
_MAX_INFLATED_BYTES = 2 << 20  # of those
_ALL_BYTES = 512 << 20  # of all samples
_SHARE = 64  # of what is left of them, one sample takes this part at most: hundreds of layers have whole samples


class Estimator:
    """Estimates the layers of one archive, each once, however many names it has."""

    def __init__(self) -> None:
        self._known: dict[Place, Estimate] = {}
        self._left = _ALL_BYTES

    def estimate(self, layer: LayerBlob, source: ByteSource) -> LayerBlob:
        """Return a layer with its estimate.

        Args:
            source: The layer as it is stored; seekable.
        """
        place = layer.place
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = self._sample(layer.size, source)
        return replace(layer, estimate=known)

    def _sample(self, size: int, source: ByteSource) -> Estimate:
        most = self._left // _SHARE
        magic = source.peek(MAGIC_BYTES)
        if is_compressed(magic):
            taken, sample = _inflate_some(source, magic, min(_MAX_INFLATED_BYTES, most))
            self._left -= len(sample)
            inflated_bytes = size * len(sample) // max(1, taken)
            return Estimate(_entries(inflated_bytes, [sample]), inflated_bytes)
        count = max(1, min(_SAMPLES, most // _SAMPLE_BYTES))
        step = max(_SAMPLE_BYTES, size // count // BLOCK * BLOCK)
        samples = [_read_sample(source, offset) for offset in range(0, size, step)]
        self._left -= sum(map(len, samples))
        return Estimate(_entries(size, samples))


def _read_sample(source: ByteSource, offset: int) -> bytes:
    source.seek(offset)
    return source.read(_SAMPLE_BYTES)


def _entries(size: int, samples: list[bytes]) -> int:
    """Estimate how many entries a tar has, by what share of the sampled blocks are headers."""
    magics = [sample[block : block + 5] for sample in samples for block in range(_MAGIC_OFFSET, len(sample), BLOCK)]
    return size // BLOCK * magics.count(b"ustar") // max(1, len(magics))


def _inflate_some(source: ByteSource, magic: bytes, most: int) -> tuple[int, bytes]:
    """Inflate the beginning of a layer; return how many bytes that took, and what they became."""
    beginning = io.BytesIO(source.read(_COMPRESSED_BYTES))
    inflated = inflate(beginning, magic)
    sample = bytearray()
    try:
        while len(sample) < most and (more := read_some(inflated, _SAMPLE_BYTES)):
            sample += more
    except TarError:
        pass  # the beginning is cut off; and if the layer is damaged, the unpacking says so
    return beginning.tell(), bytes(sample)
