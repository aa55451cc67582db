"""Directories that are held open for a while; no symlink at the end of their paths is followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.pins import PIN_FLAGS


@contextmanager
def opened_directory(path: str) -> Iterator[int]:
    """Lend a descriptor of a directory.

    Raises:
        OSError: It is not there, is no directory, or may not be read.
    """
    directory = os.open(path, DIRECTORY_FLAGS)
    try:
        yield directory
    finally:
        os.close(directory)


@contextmanager
def pinned_directory(path: str) -> Iterator[int]:
    """Lend a descriptor of a directory by which what is in it is found, and no more: nobody need be let read it.

    Raises:
        OSError: It is not there, or is no directory.
    """
    pin = os.open(path, PIN_FLAGS | os.O_DIRECTORY)
    try:
        yield pin
    finally:
        os.close(pin)
