"""Whom to run an image's program as: looked up in its own tree, never in this machine's.

An image chooses what lies at /etc/passwd: a symlink that leads out of it, a fifo that nobody writes to, a device, or a
file without an end (containers/storage, CVE-2024-9676).
"""

from __future__ import annotations

import os
import stat

from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.user import GROUP, PASSWD, User, find_user
from pykka_imagestore.errors import ImageUserError
from pykka_imagestore.fs.in_root import open_in_root

MAX_FILE_BYTES = 1 << 20


def resolve_user(root: int, unsafe_user: str) -> User:
    """Return whom an image means by its user.

    Args:
        root: A descriptor of its tree's root.
        unsafe_user: As the image's config says it; see ``RunConfig.user``.

    Raises:
        ImageUserError: Its tree has no such user, or its accounts cannot be read.
    """
    try:
        return find_user(unsafe_user, _read(root, PASSWD), _read(root, GROUP))
    except FormatError as error:
        raise ImageUserError(unsafe_user, str(error)) from error


def _read(root: int, path: str) -> bytes:
    """Return what is in a file; nothing if it is not there.

    Raises:
        FormatError: It is something else, too large, or cannot be read.
    """
    try:
        file = open_in_root(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    try:
        status = os.fstat(file)
        if stat.S_ISDIR(status.st_mode):
            raise _unreadable(path, "it is a directory")
        data = _read_all(file)
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    finally:
        os.close(file)
    if len(data) > MAX_FILE_BYTES:
        raise _unreadable(path, f"it has more than {MAX_FILE_BYTES} bytes")
    return data


def _read_all(file: int) -> bytes:
    """Return all of a file, or one byte more than it may have."""
    data = b""
    while len(data) <= MAX_FILE_BYTES and (more := os.read(file, MAX_FILE_BYTES + 1 - len(data))):
        data += more
    return data


def _unreadable(path: str, reason: str | None) -> FormatError:
    return FormatError(f"cannot be read: {reason}", (path,))
