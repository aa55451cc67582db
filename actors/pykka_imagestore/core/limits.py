"""How much an archive may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive and its layers may ask for; an honest image stays far below.

    Attributes:
        layer_bytes: Bytes of a layer's uncompressed tar, and of the holes of its sparse files.
        entries: Entries of a layer.
        depth: Directories above an entry.
        lookups: Directories opened to reach an entry's parent, on average, once it was a million: an entry whose parent
            is far from the last one's, or behind symlinks, takes many.
        inflate_ratio: Bytes that one compressed byte may become, once it was 1 GiB.
        segments: Segments of all the sparse files of a layer.
        extension_bytes: Bytes of all the extension headers of one entry.
        global_bytes: Bytes of what global extension headers say of each entry that follows.
        pax_records: Pax records of an entry that has some, on average, once they were two millions.
        xattrs: Extended attributes of one entry.
        xattr_bytes: Bytes of the extended attributes of all entries; a global header gives each entry its own.
        decoder_bytes: Memory that an xz stream or the window of a zstd frame may ask for, the latter as a power of two;
            ``zstd --ultra -22`` and ``--long=27`` ask for 128 MiB, ``xz -9`` for 65 MiB.
        memory_bytes: Memory for what is remembered of a layer until it is complete: its directories, which get their
            times last, which of them have whiteouts, and hard links to lower layers; 40 MiB are some 140,000
            directories.
        frames: Frames and streams in a row of a compressed layer, beyond one for each 256 bytes that they become.
        members: Members of an archive.
        member_name_bytes: Bytes of their names, and of the targets of links among them.
        json_bytes: Bytes of the JSON of an archive that is read, what is read again counted again.
        json_values: Values in one document of JSON.
        images: Images of an archive, or manifests that its indexes name, those for other platforms too.
        names: Names and tags of all images of an archive.
        layers: Layers of one image.
        index_bytes: Bytes of an archive's index: configs and names of its images, and where their layers lie.
        references: Layers of all images that are put at once, for each of their names: of each, a store keeps 75 bytes.
    """

    layer_bytes: int = 1 << 40
    entries: int = 10_000_000
    depth: int = 256
    lookups: int = 32
    inflate_ratio: int = 200
    segments: int = 1_000_000
    extension_bytes: int = 1 << 20
    global_bytes: int = 16 << 10
    pax_records: int = 32
    xattrs: int = 64
    xattr_bytes: int = 4 << 30
    decoder_bytes: int = 136 << 20
    memory_bytes: int = 40 << 20
    frames: int = 100_000
    members: int = 100_000
    member_name_bytes: int = 16 << 20
    json_bytes: int = 64 << 20
    json_values: int = 300_000
    images: int = 10_000
    names: int = 10_000
    layers: int = 1000
    index_bytes: int = 24 << 20
    references: int = 100_000


DEFAULT_LIMITS: Final = Limits()
