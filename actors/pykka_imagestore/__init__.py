"""Container images as directories, without a daemon: a plugin for the Pykka actor framework."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pykka_imagestore.core.digest import DiffID, Digest
    from pykka_imagestore.core.image import DockerImage, ImageInfo, Layer
    from pykka_imagestore.core.image_name import ImageName
    from pykka_imagestore.core.limits import Limits
    from pykka_imagestore.core.progress import LayerProgress, Progress
    from pykka_imagestore.errors import (
        AmbiguousImageError,
        ArchiveError,
        CheckpointError,
        DigestMismatchError,
        EscapingEntryError,
        ImageIncompleteError,
        InvalidInputError,
        InvalidNameError,
        LayerError,
        LimitError,
        NoArchiveError,
        NoSpaceError,
        NotFoundError,
        RecordError,
        StateError,
        StoreClosedError,
        StoreError,
        UnsupportedArchiveError,
    )
    from pykka_imagestore.local_store import LocalStore, LocalStoreActor
    from pykka_imagestore.reference_store import ReferenceStore, ReferenceStoreActor

__all__ = [
    "AmbiguousImageError",
    "ArchiveError",
    "CheckpointError",
    "DiffID",
    "Digest",
    "DigestMismatchError",
    "DockerImage",
    "EscapingEntryError",
    "ImageIncompleteError",
    "ImageInfo",
    "ImageName",
    "InvalidInputError",
    "InvalidNameError",
    "Layer",
    "LayerError",
    "LayerProgress",
    "LimitError",
    "Limits",
    "LocalStore",
    "LocalStoreActor",
    "NoArchiveError",
    "NoSpaceError",
    "NotFoundError",
    "Progress",
    "RecordError",
    "ReferenceStore",
    "ReferenceStoreActor",
    "StateError",
    "StoreClosedError",
    "StoreError",
    "UnsupportedArchiveError",
]

_HOMES = {
    "AmbiguousImageError": "errors",
    "ArchiveError": "errors",
    "CheckpointError": "errors",
    "DiffID": "core.digest",
    "Digest": "core.digest",
    "DigestMismatchError": "errors",
    "DockerImage": "core.image",
    "EscapingEntryError": "errors",
    "ImageIncompleteError": "errors",
    "ImageInfo": "core.image",
    "ImageName": "core.image_name",
    "InvalidInputError": "errors",
    "InvalidNameError": "errors",
    "Layer": "core.image",
    "LayerError": "errors",
    "LayerProgress": "core.progress",
    "LimitError": "errors",
    "Limits": "core.limits",
    "LocalStore": "local_store",
    "LocalStoreActor": "local_store",
    "NoArchiveError": "errors",
    "NoSpaceError": "errors",
    "NotFoundError": "errors",
    "Progress": "core.progress",
    "RecordError": "errors",
    "ReferenceStore": "reference_store",
    "ReferenceStoreActor": "reference_store",
    "StateError": "errors",
    "StoreClosedError": "errors",
    "StoreError": "errors",
    "UnsupportedArchiveError": "errors",
}


def __getattr__(name: str) -> object:
    """Import a public name's module when the name is first used: the command line, and each worker, need few."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
