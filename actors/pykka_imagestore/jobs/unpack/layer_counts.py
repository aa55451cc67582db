"""How far a layer has come."""

from __future__ import annotations

from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID

_NOT_YET = DiffID("")


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """How far a layer has come, or what it was in the end.

    Attributes:
        bytes_read: Bytes read of the layer as it is stored.
        entries: Entries unpacked.
        size_bytes: Bytes of its uncompressed tar.
        diff_id: What the layer is; empty while it is being unpacked.
    """

    bytes_read: int
    entries: int
    size_bytes: int
    diff_id: DiffID = _NOT_YET
