"""The directory that a caller names for what the workers say about a put: files ``stdout`` and ``stderr``.

It may be another user's, who does there what he likes: a task's sandbox, and the store root's. So what lies there is
looked at before it is written to. And nothing there, nor the lack of it, ever fails or holds up a put: whoever asked
for the put is told all that matters anyway.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Self

from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.fs.made import FILE_MODE
from pykka_imagestore.fs.place import Place
from pykka_imagestore.text import escaped

MAX_LINE = 4000  # characters; an archive's names are not to fill a task's disk

_DIRECTORY_MODE = 0o755
# Not blocking: a fifo without a reader, or a file of which another process has a lease, would be waited on.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Sandbox:
    """Appends whole lines, also beside other workers; an error that leaves the ``with`` block goes to ``stderr``.

    A line is what is said, escaped: no name in it can begin another line, or do anything to a terminal. It is left out
    if there is no such directory and it cannot be made; or if the file is a link, no regular file, has another name
    somewhere, or another owner than the directory. A new file becomes the directory's owner's, if this process may give
    it.

    Args:
        directory: Made if it is missing; None says nothing anywhere.
    """

    def __init__(self, directory: str | None) -> None:
        self._path = directory
        self._directory = -1

    def __enter__(self) -> Self:
        if self._path is not None:
            with suppress(OSError, InvalidInputError), Place(self._path, make_above=_DIRECTORY_MODE) as place:
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
        with suppress(FileExistsError):  # of another worker, by now
            return _make_log(name, directory)
        return os.open(name, _APPEND, dir_fd=directory)


def _make_log(name: str, directory: int) -> int:
    owner = os.fstat(directory)
    try:
        # Without a name until it has its owner: another worker would leave it alone.
        file = os.open(".", _APPEND & ~os.O_NOFOLLOW | os.O_TMPFILE, FILE_MODE, dir_fd=directory)
    except OSError:  # a file system that has no such thing
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
    """Tell whether it is a file that nobody but the directory's owner could have put there, and nothing else's name."""
    status = os.fstat(file)
    owners = {os.fstat(directory).st_uid}
    if os.geteuid() != 0:
        owners.add(os.geteuid())  # what this process made there, and may not give away
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid in owners
