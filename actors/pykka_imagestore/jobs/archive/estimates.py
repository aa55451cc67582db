"""How much work a layer is, from a sample of its bytes: which is begun first, and what is worth help, depend on it."""

from __future__ import annotations

import io
from dataclasses import replace

from pykka_imagestore.core.byte_source import ByteSource
from pykka_imagestore.core.layer_blob import Estimate, LayerBlob, Place
from pykka_imagestore.core.tar.format import BLOCK, TarError
from pykka_imagestore.jobs.unpack.layer_stream import MAGIC_BYTES, inflate, is_compressed, read_some

_MAGIC_OFFSET = 257  # of "ustar" in a header
_SAMPLES, _SAMPLE_BYTES = 64, 16 << 10
_COMPRESSED_BYTES = 64 << 10  # of a compressed layer, from its beginning
_MAX_INFLATED_BYTES = 2 << 20  # of those
_ALL_BYTES = 512 << 20  # of all samples
_SHARE = 64  # of what is left of these, one sample takes a part as small: the first hundreds of layers have whole ones


class Estimator:
    """Estimates the layers of one archive; one that has many names is looked at once."""

    def __init__(self) -> None:
        self._known: dict[Place, Estimate] = {}
        self._left = _ALL_BYTES

    def estimate(self, layer: LayerBlob, source: ByteSource) -> LayerBlob:
        """Return a layer with its estimate; ``source`` is seekable, and gives its bytes."""
        if layer.place not in self._known:
            self._known[layer.place] = self._look(layer.size, source)
        return replace(layer, estimate=self._known[layer.place])

    def _look(self, size: int, source: ByteSource) -> Estimate:
        most = self._left // _SHARE
        magic = source.peek(MAGIC_BYTES)
        if is_compressed(magic):
            taken, sample = _inflate_some(source, magic, min(_MAX_INFLATED_BYTES, most))
            self._left -= len(sample)
            inflated_bytes = size * len(sample) // max(1, taken)
            return Estimate(_entries(inflated_bytes, [sample]), inflated_bytes)
        count = max(1, min(_SAMPLES, most // _SAMPLE_BYTES))
        step = max(_SAMPLE_BYTES, size // count // BLOCK * BLOCK)
        samples = [_sample(source, offset) for offset in range(0, size, step)]
        self._left -= sum(map(len, samples))
        return Estimate(_entries(size, samples))


def _sample(source: ByteSource, offset: int) -> bytes:
    source.seek(offset)
    return source.read(_SAMPLE_BYTES)


def _entries(size: int, samples: list[bytes]) -> int:
    """Estimate a tar's entries by what share of some of its blocks are headers."""
    magics = [sample[block : block + 5] for sample in samples for block in range(_MAGIC_OFFSET, len(sample), BLOCK)]
    return size // BLOCK * magics.count(b"ustar") // max(1, len(magics))


def _inflate_some(source: ByteSource, magic: bytes, most: int) -> tuple[int, bytes]:
    """Inflate a layer's beginning; return how many bytes that took, and what they became."""
    beginning = io.BytesIO(source.read(_COMPRESSED_BYTES))
    inflated = inflate(beginning, magic)
    sample = bytearray()
    try:
        while len(sample) < most and (more := read_some(inflated, _SAMPLE_BYTES)):
            sample += more
    except TarError:
        pass  # it is cut off here; and if it is damaged, the unpacking will tell
    return beginning.tell(), bytes(sample)
