"""Open files that somebody else may replace meanwhile: nothing is waited for, and what is no file is not even opened.

A path that was looked at may lead to a pipe, a device or another file a moment later. So a place is opened first,
which does nothing to what lies there, then looked at, and then that very file is opened for reading.
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
    """Open what lies at a path, links followed, if it is of one of the kinds, ``stat.S_IFREG`` and so on.

    Raises:
        Exception: The refusal of what is there, if it is of none; nothing was done to it.
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
        OSError: It cannot be read; the error names it. On a network file system that is so if it is gone.
    """
    try:
        return os.pread(file, size, offset)
    except OSError as error:
        error.filename = path
        raise


def require_same(
    archive: str, file: int, expected: FileIdentity | None, *, what: str = "it", with_ctime: bool = False
) -> None:
    """See that an open file is the one that is expected, if one is, and was not written to.

    Args:
        what: What errors call the file.
        with_ctime: Whether its ctime counts, too: where no digest tells that the bytes are the right ones, a writer
            may have set the mtime back.

    Raises:
        ArchiveChangedError: It is another, or was written to.
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
    """See that an open file is the one that is expected, and was not written to when the block has read it.

    Args:
        is_verified: Whether the block ends well only if a digest tells that the bytes are the right ones. The file
            may then change behind them; and else even its ctime counts.

    Raises:
        ArchiveChangedError: As ``require_same``; also instead of an ArchiveError, which the change explains.
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
    """Open for reading, without blocking, what ``place`` refers to; ``path`` led there."""
    try:
        return os.open(f"/proc/self/fd/{place}", _READ)
    except OSError as error:
        error.filename = path
        if error.errno not in (errno.ENOENT, errno.EACCES):
            raise
    # There is no /proc, or it is hidden; or there is no leave to read the file, and then this tells.
    file = os.open(path, _READ)
    if os.path.samestat(os.fstat(file), os.fstat(place)):
        return file
    os.close(file)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
