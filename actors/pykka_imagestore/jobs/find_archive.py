"""Find the archive of a put, and which file that is. Nothing is opened, so nothing blocks."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from pykka_imagestore.core.formats.docker_archive import MANIFEST
from pykka_imagestore.core.formats.oci_layout import INDEX, LAYOUT
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.errors import InvalidInputError, NoArchiveError


@dataclass(frozen=True, slots=True)
class FoundArchive:
    """An archive as it was when the put was asked for; equal ones are the same file, unchanged.

    Attributes:
        path: Where it lies.
        is_pipe: Whether it comes through a pipe, and so only once.
        identity: The file, directory or pipe; None if it cannot be examined, in which case opening it fails.
        documents: Of a directory, the files that say what it holds. They name every other file by its digest.
    """

    path: str
    is_pipe: bool = False
    identity: FileIdentity | None = None
    documents: tuple[FileIdentity | None, ...] = ()


def find_archive(directory: str | None, archive: str | None, name: ImageName | None) -> FoundArchive:
    """Return the given archive, or the one that the archive directory has for the name.

    A name cannot lead out of the directory: no part of a parsed name is ``..`` or empty. Symbolic links in the
    directory are its owner's, and are followed; they must lead to a regular file.

    Raises:
        InvalidInputError: Neither an archive nor a directory is given.
        NoArchiveError: The directory has no file for the name.
    """
    if archive is not None:
        return _examine(archive)
    stored = None if name is None else name.stored
    if directory is None or stored is None:
        reason = f"no archive was given for {stored}, and the store has no archive directory to look in"
        raise InvalidInputError(f"{reason}; give one, as in put(name, archive), or load(archive) for the names it has")
    candidates = [os.path.join(directory, f"{each}.tar") for each in (stored, stored.removesuffix(":latest"))]
    for candidate in candidates:
        status = _status(candidate)
        if status is not None and stat.S_ISREG(status.st_mode):
            return FoundArchive(candidate, identity=FileIdentity.of(status))
    raise NoArchiveError(stored, candidates[0])


def _examine(path: str) -> FoundArchive:
    status = _status(path)
    if status is None:
        return FoundArchive(path)
    identity = FileIdentity.of(status)
    if not stat.S_ISDIR(status.st_mode):
        return FoundArchive(path, stat.S_ISFIFO(status.st_mode), identity)
    documents = (_status(os.path.join(path, each)) for each in (LAYOUT, INDEX, MANIFEST))
    return FoundArchive(
        path, False, identity, tuple(None if each is None else FileIdentity.of(each) for each in documents)
    )


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None
