"""Makes files and directories whatever the umask is: 0 opens them to nobody else, 0777 does not close them to us."""

from __future__ import annotations

import os
import stat

from pykka_imagestore.errors import ProcUnavailableError
from pykka_imagestore.fs.pins import PIN_FLAGS, pin_path

FILE_MODE = 0o644


def make_directory(name: str | bytes, mode: int, above: int | None = None) -> None:
    """Make a directory, of that mode without what the umask takes from others.

    Args:
        above: The directory that it is made in; by default ``name`` is a path.

    Raises:
        FileExistsError: There is something of that name.
    """
    os.mkdir(name, mode, dir_fd=above)
    if mode & stat.S_IRWXU & ~os.stat(name, dir_fd=above, follow_symlinks=False).st_mode:
        # By a descriptor, since chmod would follow a symlink that is there by now. And no more than the owner's bits:
        # a user who may rename here can put another directory of ours there, one that is closed to that user.
        directory = os.open(name, PIN_FLAGS | os.O_DIRECTORY, dir_fd=above)
        try:
            os.chmod(pin_path(directory), stat.S_IMODE(os.fstat(directory).st_mode) | mode & stat.S_IRWXU)
        finally:
            os.close(directory)


def open_own(path: str, flags: int) -> int:
    """Open a file as an ``opener`` for ``open``; no symlink is followed, and what is made may be read by all."""
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    os.fchmod(file, FILE_MODE)
    return file


def umask() -> int:
    """Return this process' umask without setting it, which other threads would notice.

    Raises:
        ProcUnavailableError: There is no /proc.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                key, _, value = line.partition(b":")
                if key == b"Umask":
                    return int(value, 8)
    except OSError as error:
        raise ProcUnavailableError("/proc/self/status", error.errno or 0) from error
    return 0o777  # unknown: set every mode by hand
