"""The marker of a store, the file ``imagestore``: it says that a directory is one, and the version of its format.

    imagestore 1
    <a sentence for people>

Stores of earlier releases have none; they are known by what is in them, and get it when they are opened for writing.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.store_names import DIRECTORIES, find_foreign
from pykka_imagestore.durable.disk import Disk, write_whole
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.locks import locked
from pykka_imagestore.errors import MisplacedFileError, NotAStoreError, StoreFormatError

FORMAT = 1
_FIRST_LINE = re.compile(rb"imagestore ([0-9]{1,9})\n")
_TEXT = f"imagestore {FORMAT}\nThis directory is an image store: pykka-imagestore changes and deletes what is in it.\n"


def is_marked(paths: StorePaths) -> bool:
    """Tell whether a directory has the marker; if not, it is an earlier release's store, or empty.

    Raises:
        NotAStoreError: It is none of these.
        StoreFormatError: A later release made it.
    """
    if _has_marker(paths):
        return True
    if os.path.lexists(paths.stored_images) or os.path.lexists(paths.journal):
        return False
    foreign = find_strangers(paths)
    if foreign:
        raise NotAStoreError(str(paths.root), foreign)
    return False


def find_strangers(paths: StorePaths) -> list[str]:
    """Return what no store made in a directory, as sorted paths relative to it; from unreadable directories nothing."""
    names = os.listdir(paths.root)  # noqa: PTH208 - names are all that is needed
    directories = {name: _names_in(paths.root / name) for name in names if name in DIRECTORIES}
    return find_foreign(names, directories)


def mark(paths: StorePaths, disk: Disk) -> None:
    """Give a store its marker, durable on return; if the disk is full, the next opening does it."""
    with locked(paths.references_lock):  # two processes would share the file aside
        if not _has_marker(paths):
            with suppress(OSError):
                write_whole(paths.marker, _TEXT.encode(), disk, aside=paths.root / f"{paths.marker.name}.new")


def _names_in(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - names are all that is needed
    except PermissionError:
        return []


def _has_marker(paths: StorePaths) -> bool:
    try:
        data = read_file(paths.marker)
    except FileNotFoundError:
        return False
    except MisplacedFileError as error:
        raise NotAStoreError(str(paths.root), [paths.marker.name]) from error
    if not any(data):
        return False  # the power failed before it lasted: not every store is synced
    first_line = _FIRST_LINE.match(data)
    if first_line is None:
        raise NotAStoreError(str(paths.root), [paths.marker.name])
    if int(first_line[1]) > FORMAT:
        raise StoreFormatError(str(paths.root), int(first_line[1]), FORMAT)
    return True
