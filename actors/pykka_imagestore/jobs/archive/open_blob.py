"""Open a layer's blob, wherever it lies: the only code that looks at which location a ``LayerBlob`` has.

A blob was found when the archive was indexed, and is read later, by another process. So what is opened is compared
with what was indexed; a file that was replaced or written to since then is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from pykka_imagestore.core.byte_source import ByteSource
from pykka_imagestore.core.layer_blob import Absent, DirectoryMember, FileRange, LayerBlob
from pykka_imagestore.errors import ArchiveChangedError, ArchiveError
from pykka_imagestore.jobs.archive.directory_members import open_below
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.opening import open_for_reading, unchanged
from pykka_imagestore.text import plain, shown


@contextmanager
def open_blob(blob: LayerBlob, *, is_verified: bool) -> Iterator[ByteSource]:
    """Lend what a blob is read from, if it is the one that was indexed; nothing is waited for.

    Args:
        is_verified: Whether the block ends well only if a digest tells that the bytes are the right ones; else the
            file must not have changed in the end either.

    Raises:
        ArchiveChangedError: It is another file, or none, or was written to.
        ArchiveError: The blob lies nowhere.
        OSError: It cannot be opened.
    """
    location = blob.location
    if isinstance(location, Absent):
        raise ArchiveError(location.path, f"its blob {plain(blob.name)} {location.reason}")
    file = _open(blob, location)
    try:
        what = _what(blob)
        with unchanged(blob.origin, file, location.identity, what=what, is_verified=is_verified):
            offset = location.offset if isinstance(location, FileRange) else 0
            with closing(FileSource(file, blob.origin, offset, blob.size)) as source:
                yield source
    finally:
        os.close(file)


def _open(blob: LayerBlob, location: FileRange | DirectoryMember) -> int:
    changed = partial(_changed, blob, location)
    try:
        if isinstance(location, FileRange):
            return open_for_reading(location.path, changed, stat.S_IFREG)
        directory = open_for_reading(location.directory, changed, stat.S_IFDIR)
        try:
            return open_below(directory, location.directory, location.name)
        finally:
            os.close(directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise changed("gone") from error
    except ArchiveChangedError:
        raise
    except ArchiveError as error:
        raise changed("no regular file") from error


def _changed(blob: LayerBlob, location: FileRange | DirectoryMember, found: str) -> ArchiveChangedError:
    return ArchiveChangedError(blob.origin, _what(blob), str(location.identity), found)


def _what(blob: LayerBlob) -> str:
    is_whole = os.path.basename(blob.origin) == blob.name  # no archive, but a layer by itself
    return "it" if is_whole else f"the file with its member {shown(blob.name)}"
