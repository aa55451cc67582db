"""Container images as directories, without a daemon: a plugin for the Pykka actor framework."""

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage, ImageInfo, Layer
from pykka_imagestore.core.image_name import ImageName
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
    NoArchiveError,
    NotFoundError,
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
    "LocalStore",
    "LocalStoreActor",
    "NoArchiveError",
    "NotFoundError",
    "Progress",
    "ReferenceStore",
    "ReferenceStoreActor",
    "StateError",
    "StoreClosedError",
    "StoreError",
    "UnsupportedArchiveError",
]
