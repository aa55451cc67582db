"""How far a put has come, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """How far one layer has come.

    Attributes:
        diff_id: Which layer.
        bytes_done: Bytes read of the layer, as it is stored in the archive.
        bytes_expected: Bytes to read in all.
        entries_done: Entries unpacked.
        entries_expected: Entries in all; None until the layer is done, since a tar does not say.
        done: Whether the layer is in the store; one that was there before is done at once.
    """

    diff_id: DiffID
    bytes_done: int
    bytes_expected: int
    entries_done: int = 0
    entries_expected: int | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a put has come: its layers, and their sums.

    Attributes:
        names: What is being put.
        layers: Each distinct layer, root layers first.
    """

    names: tuple[str, ...]
    layers: tuple[LayerProgress, ...]

    @property
    def bytes_done(self) -> int:
        """Bytes read."""
        return sum(layer.bytes_done for layer in self.layers)

    @property
    def bytes_expected(self) -> int:
        """Bytes to read in all."""
        return sum(layer.bytes_expected for layer in self.layers)

    @property
    def entries_done(self) -> int:
        """Entries unpacked."""
        return sum(layer.entries_done for layer in self.layers)

    @property
    def entries_expected(self) -> int | None:
        """Entries in all; None while any layer's are unknown."""
        return _sum_of_known([layer.entries_expected for layer in self.layers])

    @property
    def done(self) -> bool:
        """Whether every layer is in the store."""
        return all(layer.done for layer in self.layers)


def _sum_of_known(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
