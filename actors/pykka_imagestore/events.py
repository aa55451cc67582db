"""What happens in a store, see core/events.py; each event is imported with the first one that happens."""

from __future__ import annotations

from pykka_imagestore.runtime.lazy import lazy_names

TYPE_CHECKING = False  # typing's takes longer to import than a worker process to start
if TYPE_CHECKING:
    from pykka_imagestore.core.events import (
        ArchiveIndexed,
        Event,
        ImagePut,
        ImagesRemoved,
        LayerUnpacked,
        PutFailed,
        PutJoined,
        StoreStats,
        Swept,
    )

__all__ = [
    "ArchiveIndexed",
    "Event",
    "ImagePut",
    "ImagesRemoved",
    "LayerUnpacked",
    "PutFailed",
    "PutJoined",
    "StoreStats",
    "Swept",
]

__getattr__ = lazy_names(__name__, "pykka_imagestore", dict.fromkeys(__all__, "core.events"))
