"""What an image archive holds, as found by reading its headers: where each layer lies, and what it claims to be."""

from __future__ import annotations

from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID

_BYTES_PER_ENTRY = 12_000  # measured: 35 µs an entry, 3 ns a byte


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes in a file: where a layer lies, perhaps compressed.

    Attributes:
        path: The file.
        offset: Where in it the bytes begin.
        size: How many there are.
        name: What the archive calls it, for messages.
        entries_estimate: How many entries there may be, from a sample.
    """

    path: str
    offset: int
    size: int
    name: str
    entries_estimate: int = 0

    @property
    def cost(self) -> int:
        """How long it takes to unpack, in bytes: making a file takes as long as writing that many."""
        return self.size + _BYTES_PER_ENTRY * self.entries_estimate


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image in an archive. All that it says of itself is a claim.

    Attributes:
        unsafe_names: The names the archive gives it.
        config: The image config as the archive has it; for a legacy archive, the JSON of the leaf layer.
        layers: Root layer first.
        diff_ids: The config's claim, one for each layer; None in a legacy archive, which makes none.
    """

    unsafe_names: tuple[str, ...]
    config: bytes
    layers: tuple[Extent, ...]
    diff_ids: tuple[DiffID, ...] | None


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    """The images of one archive, in its order."""

    path: str
    images: tuple[ArchivedImage, ...]
