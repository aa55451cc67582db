"""Making files and directories whose mode no umask changes: 0 would open them to others, and 0777 close them to us."""

from __future__ import annotations

import os

from pykka_imagestore.fs.pins import PIN_FLAGS, pin_path

FILE_MODE = 0o644


def make_directory(name: str | bytes, mode: int, above: int | None = None) -> None:
    """Make a directory.

    Args:
        above: The directory that it is made in; by default ``name`` is a path.

    Raises:
        FileExistsError: There is something of that name.
    """
    os.mkdir(name, mode, dir_fd=above)
    if mode & ~os.stat(name, dir_fd=above, follow_symlinks=False).st_mode:
        # By a descriptor, since chmod would follow a symlink that is there by now.
        directory = os.open(name, PIN_FLAGS | os.O_DIRECTORY, dir_fd=above)
        try:
            os.chmod(pin_path(directory), mode)
        finally:
            os.close(directory)


def open_own(path: str, flags: int) -> int:
    """Open a file as an ``opener`` for ``open``; no symlink is followed, and what is made may be read by all."""
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    os.fchmod(file, FILE_MODE)
    return file


def umask() -> int:
    """Return this process' umask without setting it, which other threads would notice."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            key, _, value = line.partition(b":")
            if key == b"Umask":
                return int(value, 8)
    return 0o777  # unknown: set every mode by hand
