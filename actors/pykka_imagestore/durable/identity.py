"""Which directory a layer is, so that a verdict on it is not carried out on another that was put in its place."""

from __future__ import annotations

from pathlib import Path

from pykka_imagestore.core.paths import RECORD

Identity = tuple[int, ...]


def identify(layer: Path) -> Identity | None:
    """Return what tells a layer's directory and record from all that were ever there; None if nothing is there.

    A number alone would not do: file systems give that of a directory that was removed to the next one. The time of the
    last change is set when a layer gets its place.
    """
    try:
        directory = layer.lstat()
    except FileNotFoundError:
        return None
    try:
        record = (layer / RECORD).lstat()
    except OSError:  # that is for the check to tell
        return directory.st_dev, directory.st_ino, directory.st_ctime_ns
    return directory.st_dev, directory.st_ino, directory.st_ctime_ns, record.st_ino, record.st_ctime_ns, record.st_size
