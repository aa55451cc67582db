"""How much work a layer is, from a sample of its bytes: which is begun first, and what is worth help, depend on it."""

from __future__ import annotations

from dataclasses import replace

from pykka_imagestore.core.archive import Extent, Place
from pykka_imagestore.core.tar.format import BLOCK, TarError
from pykka_imagestore.jobs.archive.opening import read_at
from pykka_imagestore.jobs.unpack.layer_stream import MAGIC_BYTES, ExtentFile, inflate, is_compressed, read_some

_MAGIC_OFFSET = 257  # of "ustar" in a header
_SAMPLES, _SAMPLE_BYTES = 64, 16 << 10
_COMPRESSED_BYTES = 64 << 10  # of a compressed layer, from its beginning
_MAX_INFLATED_BYTES = 2 << 20  # of those
_ALL_BYTES = 512 << 20  # of all samples
_SHARE = 64  # of what is left of these, one sample takes a part as small: the first hundreds of layers have whole ones


class Estimator:
    """Estimates the layers of one archive; one that has many names is looked at once."""

    def __init__(self) -> None:
        self._known: dict[Place, tuple[int, int]] = {}
        self._left = _ALL_BYTES

    def estimate(self, layer: Extent, file: int) -> Extent:
        """Return a layer with its estimates; ``file`` holds it."""
        if layer.place not in self._known:
            self._known[layer.place] = self._look(layer, file)
        entries, inflated = self._known[layer.place]
        return replace(layer, entries_estimate=entries, inflated_estimate=inflated)

    def _look(self, layer: Extent, file: int) -> tuple[int, int]:
        """Return how many entries there may be, and how many bytes what is compressed may become."""
        most = self._left // _SHARE
        magic = read_at(layer.path, file, min(MAGIC_BYTES, layer.size), layer.offset)
        if is_compressed(magic):
            taken, sample = _inflate_some(layer, file, magic, min(_MAX_INFLATED_BYTES, most))
            self._left -= len(sample)
            size = layer.size * len(sample) // max(1, taken)
            return _entries(size, [sample]), size
        count = max(1, min(_SAMPLES, most // _SAMPLE_BYTES))
        step = max(_SAMPLE_BYTES, layer.size // count // BLOCK * BLOCK)
        samples = [
            read_at(layer.path, file, min(_SAMPLE_BYTES, layer.size - offset), layer.offset + offset)
            for offset in range(0, layer.size, step)
        ]
        self._left -= sum(map(len, samples))
        return _entries(layer.size, samples), 0


def _entries(size: int, samples: list[bytes]) -> int:
    """Estimate a tar's entries by what share of some of its blocks are headers."""
    magics = [sample[block : block + 5] for sample in samples for block in range(_MAGIC_OFFSET, len(sample), BLOCK)]
    return size // BLOCK * magics.count(b"ustar") // max(1, len(magics))


def _inflate_some(layer: Extent, file: int, magic: bytes, most: int) -> tuple[int, bytes]:
    """Inflate a layer's beginning; return how many bytes that took, and what they became."""
    beginning = ExtentFile(file, replace(layer, size=min(layer.size, _COMPRESSED_BYTES)))
    inflated = inflate(beginning, magic)
    sample = bytearray()
    try:
        while len(sample) < most and (more := read_some(inflated, _SAMPLE_BYTES)):
            sample += more
    except TarError:
        pass  # it is cut off here; and if it is damaged, the unpacking will tell
    return beginning.position, bytes(sample)
