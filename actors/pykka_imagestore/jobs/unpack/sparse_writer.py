"""Writes sparse files; the holes in them count as bytes of the layer."""

from __future__ import annotations

import os

from pykka_imagestore.core.tar.format import OverLimitError, SparseMap
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream


class SparseWriter:
    """Writes a layer's sparse files.

    Args:
        layer_bytes: How many bytes the layer may have, holes included: a few header bytes may ask for a terabyte.
    """

    def __init__(self, layer_bytes: int) -> None:
        self._limit = layer_bytes
        self._hole_bytes = 0

    def write(self, sparse: SparseMap, body_bytes: int, file: int, stream: LayerStream) -> None:
        """Write a body where it belongs; what is never written are holes, the last of them too.

        Raises:
            TarError: The body is cut off.
            OverLimitError: The layer has too many bytes.
        """
        self._hole_bytes += sparse.size_bytes - body_bytes
        total = self._hole_bytes + stream.size_bytes
        if total > self._limit:
            msg = f"brings the layer to {total} bytes, holes included; {self._limit} is the limit"
            raise OverLimitError(msg, "layer_bytes")
        for offset, size in sparse.segments:
            os.lseek(file, offset, os.SEEK_SET)
            stream.write_to(file, size)
        os.ftruncate(file, sparse.size_bytes)
