"""How much an archive may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a layer may ask for before it is refused; an image that somebody built on purpose stays far below.

    Attributes:
        layer_bytes: Bytes of a layer's uncompressed tar, and of the holes of its sparse files.
        entries: Entries of a layer.
        depth: Folders above an entry.
        lookups: Folders opened to reach an entry's parent, on average, once it was a million: an entry whose parent
            is far from the last one's, or behind symlinks, takes many.
        inflate_ratio: Bytes that one compressed byte may become, once it was 1 GiB.
        segments: Segments of all the sparse files of a layer.
        extension_bytes: Bytes of all the extension headers of one entry.
        xattrs: Extended attributes of one entry.
        decoder_bytes: Memory that an xz stream may ask for; ``xz -9`` asks for 65 MiB.
        memory_bytes: Memory for the folders of a layer, which get their times last; 40 MiB are some 140,000 folders.
        references: Layers of all images that are put at once, for each of their names: of each, a store keeps 75 bytes.
    """

    layer_bytes: int = 1 << 40
    entries: int = 10_000_000
    depth: int = 256
    lookups: int = 32
    inflate_ratio: int = 200
    segments: int = 1_000_000
    extension_bytes: int = 1 << 20
    xattrs: int = 64
    decoder_bytes: int = 80 << 20
    memory_bytes: int = 40 << 20
    references: int = 100_000


DEFAULT_LIMITS: Final = Limits()
