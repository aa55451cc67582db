"""The directory that a caller names for the workers' messages about a put, in files ``stdout`` and ``stderr``.

It may be another user's, who can put anything there: a task's sandbox, while the store is root's. So a file there is
checked before it is written to. Nothing there, nor the lack of it, ever fails or delays a put: the caller of the put is
told all that matters anyway.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Self

from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.fs.create import FILE_MODE
from pykka_imagestore.fs.named_directory import NamedDirectory
from pykka_imagestore.text import escaped

MAX_LINE = 4000  # characters; an archive's names must not fill a task's disk

_DIRECTORY_MODE = 0o755
# Not blocking: opening a fifo without a reader, or a file that another process has a lease of, would wait.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Sandbox:
    """Appends whole lines, also beside other workers; an error that leaves the ``with`` block goes to ``stderr``.

    Each line is escaped: no name in it can begin another line, or do anything to a terminal. It is left out if the
    directory is missing and cannot be made; or if the file is a symlink or no regular file, has a second name
    somewhere, or another owner than the directory. A new file is given to the directory's owner, if this process may.

    Args:
        directory: Made if it is missing; None writes nothing anywhere.
    """

    def __init__(self, directory: str | None) -> None:
        self._path = directory
        self._directory = -1

    def __enter__(self) -> Self:
        if self._path is not None:
            with suppress(OSError, InvalidInputError), NamedDirectory(self._path, make_above=_DIRECTORY_MODE) as place:
                place.make(_DIRECTORY_MODE)
                self._directory = place.open()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is not None:
                self._append("stderr", str(error) or repr(error))
        finally:
            if self._directory >= 0:
                os.close(self._directory)
                self._directory = -1

    def say(self, line: str) -> None:
        """Add a line to ``stdout``."""
        self._append("stdout", line)

    def _append(self, name: str, line: str) -> None:
        if self._directory < 0:
            return
        with suppress(OSError):
            file = _open_log(name, self._directory)
            try:
                if _may_be_written(file, self._directory):
                    os.write(file, f"{escaped(line, MAX_LINE)}\n".encode("utf-8", "backslashreplace"))
            finally:
                os.close(file)


def _open_log(name: str, directory: int) -> int:
    try:
        return os.open(name, _APPEND, dir_fd=directory)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another worker has made it by now
            return _make_log(name, directory)
        return os.open(name, _APPEND, dir_fd=directory)


def _make_log(name: str, directory: int) -> int:
    owner = os.fstat(directory)
    try:
        # Without a name until it has its owner: until then another worker would not write to it.
        file = os.open(".", _APPEND & ~os.O_NOFOLLOW | os.O_TMPFILE, FILE_MODE, dir_fd=directory)
    except OSError:  # this file system has no such thing
        return os.open(name, _APPEND | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=directory)
    try:
        os.fchmod(file, FILE_MODE)
        with suppress(PermissionError):
            os.fchown(file, owner.st_uid, owner.st_gid)
        os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=directory, follow_symlinks=True)
    except BaseException:
        os.close(file)
        raise
    return file


def _may_be_written(file: int, directory: int) -> bool:
    """Tell whether only the directory's owner can have put the file there, and it has no other name."""
    status = os.fstat(file)
    owners = {os.fstat(directory).st_uid}
    if os.geteuid() != 0:
        owners.add(os.geteuid())  # of files that this process made there and may not give away
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid in owners
