"""Find the archive of a put, and look at it: which file it is. Nothing is opened, so nothing is waited for."""

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
    """An archive as it was when it was asked for; two that are equal are the same, unchanged.

    Attributes:
        path: Where it lies.
        is_pipe: Whether it comes through a pipe, and so only once.
        identity: The file, directory or pipe; None if it cannot be looked at, which whoever opens it will tell.
        documents: Of a directory, the files that say what it holds: what else is in it has a digest in them.
    """

    path: str
    is_pipe: bool = False
    identity: FileIdentity | None = None
    documents: tuple[FileIdentity | None, ...] = ()


def find_archive(directory: str | None, archive: str | None, name: ImageName | None) -> FoundArchive:
    """Return the archive that was asked for, or that of the name in the archive directory.

    A name cannot lead out of the directory: no part of a parsed name is ``..`` or empty. Symbolic links in the
    directory are its owner's, and are followed; what they lead to must be a file.

    Raises:
        InvalidInputError: There is neither an archive nor a directory.
        NoArchiveError: The directory has no file for the name.
    """
    if archive is not None:
        return _look_at(archive)
    stored = None if name is None else name.stored
    if directory is None or stored is None:
        raise InvalidInputError(f"no archive was given for {stored}, and the store has no archive directory to look in")
    candidates = [os.path.join(directory, f"{each}.tar") for each in (stored, stored.removesuffix(":latest"))]
    for candidate in candidates:
        status = _status(candidate)
        if status is not None and stat.S_ISREG(status.st_mode):
            return FoundArchive(candidate, identity=FileIdentity.of(status))
    raise NoArchiveError(stored, candidates[0])


def _look_at(path: str) -> FoundArchive:
    status = _status(path)
    if status is None:
        return FoundArchive(path)
    identity = FileIdentity.of(status)
    if not stat.S_ISDIR(status.st_mode):
        return FoundArchive(path, stat.S_ISFIFO(status.st_mode), identity)
    documents = (_status(os.path.join(path, each), is_followed=False) for each in (LAYOUT, INDEX, MANIFEST))
    return FoundArchive(
        path, False, identity, tuple(None if each is None else FileIdentity.of(each) for each in documents)
    )


def _status(path: str, *, is_followed: bool = True) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=is_followed)
    except (OSError, ValueError):
        return None
