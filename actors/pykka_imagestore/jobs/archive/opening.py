"""Open files that another user may replace at any time: no open blocks, and a device is never opened.

A path that was checked may lead to a pipe, a device or another file a moment later. So the path is first opened with
``O_PATH``, which has no effect on the file; the open file is checked; and then that same file is opened for reading.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pykka_imagestore.core.identity import FileIdentity, kind_of
from pykka_imagestore.errors import ArchiveChangedError, ArchiveError

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_for_reading(path: str, refusal: Callable[[str], Exception], *kinds: int) -> int:
    """Open a path for reading, following symbolic links.

    Args:
        refusal: Makes the error for a file of another kind, from the name of that kind.
        kinds: Which kinds of file are opened: ``stat.S_IFREG`` and so on.

    Raises:
        Exception: The refusal, if the file is of another kind; it was not opened.
        OSError: It cannot be opened.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = os.fstat(place).st_mode
        if stat.S_IFMT(mode) not in kinds:
            raise refusal(kind_of(mode))
        return _open_place(path, place)
    finally:
        os.close(place)


def read_at(path: str, file: int, size: int, offset: int) -> bytes:
    """Return ``size`` bytes of an open file from ``offset`` on, fewer at its end.

    Raises:
        OSError: It cannot be read, on a network file system also because it was removed. The error names ``path``.
    """
    try:
        return os.pread(file, size, offset)
    except OSError as error:
        error.filename = path
        raise


def require_same(
    archive: str, file: int, expected: FileIdentity | None, *, what: str = "it", with_ctime: bool = False
) -> None:
    """Require that an open file is the expected one and was not written to since; None expects nothing.

    Args:
        what: What errors call the file.
        with_ctime: Whether its ctime must be the same too. It must where no digest verifies the bytes, since a writer
            can set the mtime back.

    Raises:
        ArchiveChangedError: It is another file, or was written to.
    """
    if expected is None:
        return
    status = os.fstat(file)
    found = FileIdentity.of(status)
    if found.has_same_bytes(expected) and (found == expected or not with_ctime):
        return
    shown = str(found) if stat.S_ISREG(status.st_mode) else kind_of(status.st_mode)
    raise ArchiveChangedError(archive, what, str(expected), shown)


@contextmanager
def unchanged(
    archive: str, file: int, expected: FileIdentity | None, *, what: str = "it", is_verified: bool = False
) -> Iterator[None]:
    """Require that an open file is the expected one, before the block reads it and after.

    Args:
        is_verified: Whether the block succeeds only if a digest verifies the bytes. Then the file may change after they
            were read. Otherwise even its ctime must stay the same.

    Raises:
        ArchiveChangedError: As ``require_same``; also in place of an ArchiveError, since the change explains it.
    """
    require_same(archive, file, expected, what=what, with_ctime=not is_verified)
    try:
        yield
    except ArchiveError:
        require_same(archive, file, expected, what=what, with_ctime=True)
        raise
    if not is_verified:
        require_same(archive, file, expected, what=what, with_ctime=True)


def _open_place(path: str, place: int) -> int:
    """Open the file that ``place`` refers to for reading, without blocking; ``path`` led there."""
    try:
        return os.open(f"/proc/self/fd/{place}", _READ)
    except OSError as error:
        error.filename = path
        if error.errno not in (errno.ENOENT, errno.EACCES):
            raise
    # /proc is missing or hidden; or this user may not read the file, and then the next open fails for that reason.
    file = os.open(path, _READ)
    if os.path.samestat(os.fstat(file), os.fstat(place)):
        return file
    os.close(file)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
