"""Open a layer blob, wherever it lies: the only code that looks at the kind of a ``LayerBlob``'s location.

A blob is found when the archive is indexed, and read later by another process. So the file that is opened is compared
with the one that was indexed; if it was replaced or written to since, it is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeAlias

from pykka_imagestore.core.byte_source import ByteSource
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.layer_blob import Absent, CopyRange, DirectoryMember, FileRange, LayerBlob
from pykka_imagestore.errors import ArchiveChangedError, ArchiveError
from pykka_imagestore.jobs.archive.directory_members import open_below
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.opening import open_for_reading, unchanged
from pykka_imagestore.text import plain, shown

_File: TypeAlias = FileRange | CopyRange | DirectoryMember


@contextmanager
def open_blob(blob: LayerBlob, *, is_verified: bool) -> Iterator[ByteSource]:
    """Lend the source that a blob is read from, if its file is the one that was indexed. The open never blocks.

    Args:
        is_verified: Whether the block succeeds only if a digest verifies the bytes. Otherwise the file must not have
            changed when the block ends either.

    Raises:
        ArchiveChangedError: The file was replaced, removed or written to.
        ArchiveError: The blob is absent.
        OSError: It cannot be opened.
    """
    location = blob.location
    if isinstance(location, Absent):
        raise ArchiveError(location.path, f"its blob {plain(blob.name)} {location.reason}")
    file = _open(blob, location)
    try:
        with (
            unchanged(blob.origin, file, location.identity, what=_what(blob), is_verified=is_verified),
            closing(_source_of(blob, location, file)) as source,
        ):
            yield source
    finally:
        os.close(file)


def _source_of(blob: LayerBlob, location: _File, file: int) -> FileSource:
    if isinstance(location, DirectoryMember):
        return FileSource(file, location.directory, 0, blob.size)
    return FileSource(file, location.path, location.offset, blob.size)


def _open(blob: LayerBlob, location: _File) -> int:
    changed = partial(_changed, blob, location)
    try:
        if not isinstance(location, DirectoryMember):
            return open_for_reading(location.path, changed, stat.S_IFREG)
        directory = open_for_reading(location.directory, changed, stat.S_IFDIR)
        try:
            return open_below(directory, location.name)
        finally:
            os.close(directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise changed("gone") from error
    except FormatError as error:
        raise changed("no regular file") from error


def _changed(blob: LayerBlob, location: _File, found: str) -> ArchiveChangedError:
    return ArchiveChangedError(blob.origin, _what(blob), str(location.identity), found)


def _what(blob: LayerBlob) -> str:
    is_whole = os.path.basename(blob.origin) == blob.name  # a layer by itself, not an archive
    return "it" if is_whole else f"the file with its member {shown(blob.name)}"
