"""The functions that ``durability.py`` runs in worker processes."""

from __future__ import annotations

import os
from pathlib import Path

from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer


def unpack(request: UntarLayer) -> LayerCounts:
    return untar_layer(request)


def unpack_and_sync(request: UntarLayer) -> LayerCounts:
    counts = untar_layer(request)
    Disk().sync_file_system(Path(request.target))
    return counts


def unpack_and_sync_files(request: UntarLayer) -> LayerCounts:
    counts = untar_layer(request)
    for directory, _, names in os.walk(request.target):
        for path in (Path(directory, name) for name in names):
            if path.is_file() and not path.is_symlink():
                Disk().sync_file(path)
        Disk().sync_directory(Path(directory))
    return counts
