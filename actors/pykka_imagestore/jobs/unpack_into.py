"""Unpack one layer file into a directory of the user's choice. Runs in a worker process."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.errors import InvalidInputError, StateError
from pykka_imagestore.fs.named_directory import NamedDirectory
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.unpack.limiter import space_for
from pykka_imagestore.jobs.unpack.one_pass import unpack
from pykka_imagestore.jobs.unpack.whole_archive import find_archive_file


@dataclass(frozen=True, slots=True)
class UnpackInto:
    """What to unpack, and where.

    Attributes:
        layer: The file.
        directory: The path of a ``Target``.
        identity: Which directory that is.
        is_new: Whether it was made for this, and so gets the owner, mode and attributes of the layer's root.
    """

    layer: LayerBlob
    directory: str
    identity: FileIdentity
    is_new: bool


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked.

    Attributes:
        counts: How much.
        root_mode: The mode that the layer says its root has; None if it says nothing.
    """

    counts: LayerCounts
    root_mode: int | None


def unpack_into(request: UnpackInto) -> Unpacked:
    """Unpack a layer, its whiteouts and all. Nothing is synced.

    Reports LayerCounts ten times a second at most.

    Raises:
        InvalidInputError: The file is a whole image archive.
        LayerError: An entry is malformed, hostile or not supported.
        ArchiveChangedError: The layer is another file than it was, or was written to.
        StateError: Another directory is in the place of the one that was meant; nothing was written to it.
        OSError: The disk failed, or is full.
        What was unpacked so far stays, until ``Target.undo``.
    """
    layer = request.layer
    with NamedDirectory(request.directory) as place:
        directory = place.open()
    try:
        if FileIdentity.of(os.fstat(directory)) != request.identity:
            raise StateError(
                f"{request.directory} was moved meanwhile, and something else is there now, to which nothing was "
                "written. Unpack into a directory that no other user may move"
            )
        with (
            open_blob(layer, is_verified=layer.digest is not None) as source,
            space_for(layer.least_bytes, directory, request.directory),
        ):
            unpacked = unpack(source, layer, directory, request.directory, None, keep_root=not request.is_new)
        if (found := find_archive_file(directory)) is not None:
            raise InvalidInputError(
                f"{layer.name} is no layer, but a whole image archive: it has {found}. Nothing of it is left; put it "
                "into a store, with imagestore put, or name one of the layers in it"
            )
        return Unpacked(unpacked.counts, unpacked.extracted.root_mode)
    finally:
        os.close(directory)
