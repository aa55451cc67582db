"""What is raised when a layer is refused: the fault that was found, and where."""

from __future__ import annotations

from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.tar.format import EscapeError, OverLimitError, TarError
from pykka_imagestore.errors import EscapingEntryError, LayerError, LimitError


def layer_refusal(layer: LayerBlob, index: int | None, name: bytes, error: TarError) -> LayerError:
    """Return the error for a layer, given the fault of one of its entries.

    Args:
        index: The entry's position in the layer, from 0; None if the fault is the layer's as a whole.
        name: Its name; empty if the fault lies in its header.
    """
    where = layer.origin, layer.name, index, name, str(error)
    if isinstance(error, OverLimitError):
        return LimitError(*where, error.limit)
    return EscapingEntryError(*where) if isinstance(error, EscapeError) else LayerError(*where)
