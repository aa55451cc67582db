"""How much work a layer is, from a sample of its bytes: which is begun first, and what is worth help, depend on it."""

from __future__ import annotations

from dataclasses import replace

from pykka_imagestore.core.archive import Extent
from pykka_imagestore.core.tar import BLOCK, TarError
from pykka_imagestore.jobs.opening import read_at
from pykka_imagestore.jobs.streams import MAGIC_BYTES, ExtentFile, inflate, is_compressed, read_some

_MAGIC_OFFSET = 257  # of "ustar" in a header
_SAMPLES, _SAMPLE_BYTES = 64, 16 << 10
_COMPRESSED_BYTES = 64 << 10  # of a compressed layer, from its beginning
_MOST_INFLATED_BYTES = 2 << 20  # of those


def estimated(layer: Extent, file: int) -> Extent:
    """Return a layer with its estimates; ``file`` holds it."""
    magic = read_at(layer.path, file, min(MAGIC_BYTES, layer.size), layer.offset)
    if is_compressed(magic):
        taken, sample = _inflate_some(layer, file, magic)
        size = layer.size * len(sample) // max(1, taken)
        return replace(layer, entries_estimate=_entries(size, [sample]), inflated_estimate=size)
    step = max(_SAMPLE_BYTES, layer.size // _SAMPLES // BLOCK * BLOCK)
    samples = [
        read_at(layer.path, file, min(_SAMPLE_BYTES, layer.size - offset), layer.offset + offset)
        for offset in range(0, layer.size, step)
    ]
    return replace(layer, entries_estimate=_entries(layer.size, samples))


def _entries(size: int, samples: list[bytes]) -> int:
    """Estimate a tar's entries by what share of some of its blocks are headers."""
    magics = [sample[block : block + 5] for sample in samples for block in range(_MAGIC_OFFSET, len(sample), BLOCK)]
    return size // BLOCK * magics.count(b"ustar") // max(1, len(magics))


def _inflate_some(layer: Extent, file: int, magic: bytes) -> tuple[int, bytes]:
    """Inflate a layer's beginning; return how many bytes that took, and what they became."""
    beginning = ExtentFile(file, replace(layer, size=min(layer.size, _COMPRESSED_BYTES)))
    inflated = inflate(beginning, magic)
    sample = bytearray()
    try:
        while len(sample) < _MOST_INFLATED_BYTES and (more := read_some(inflated, _SAMPLE_BYTES)):
            sample += more
    except TarError:
        pass  # it is cut off here; and if it is damaged, the unpacking will tell
    return beginning.position, bytes(sample)
