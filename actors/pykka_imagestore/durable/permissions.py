"""Who may write into a store: its user and root, and nobody else.

A store's directory and those in it belong to this user or to root. Another user's store, if shared, may be read by a
user who may not write into it. One who may write there, as root may anywhere, must not take it for his own.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore.core.identity import kind_of
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.owner import ROOT_USER, require_owner
from pykka_imagestore.errors import ForeignStoreError, MisplacedFileError, UnsafeStoreError

logger = logger_of(__name__)


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a store's directory is to this user.

    Attributes:
        is_writable: Whether he may write into it.
        missing: Directories that every store has and it does not.
    """

    is_writable: bool
    missing: tuple[Path, ...]


def find_permissions(paths: StorePaths) -> Permissions:
    """Tell whether this user may write into a store whose directory exists; refuse one that others may write into.

    Others may make files of their own in it if it has the sticky bit, as the root of a tmpfs does: these are not taken.

    Raises:
        ForeignStoreError: It is another user's, and this user may write into it: it may have been made to be taken for
            one of this user's.
        UnsafeStoreError: Anybody may write into it.
        MisplacedFileError: One of its directories is none.
    """
    root, user = paths.root, os.geteuid()
    link, found = root.lstat(), root.stat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (ROOT_USER, user):
        raise ForeignStoreError(str(root), str(root), link.st_uid, user)
    is_writable = os.access(root, os.W_OK)
    if is_writable and found.st_uid not in (ROOT_USER, user):
        raise ForeignStoreError(str(root), str(root), found.st_uid, user)
    _require_closed(root, found)
    _warn_if_open_to_group(root, found)
    missing = []
    for directory in (*paths.directories, *paths.later_directories):
        status = _find_directory(directory)
        if status is not None:
            _warn_if_open_to_group(directory, status)
        elif directory not in paths.later_directories:  # an older store on a full disk does without these
            missing.append(directory)
    return Permissions(is_writable, tuple(missing))


def has_directory(directory: Path) -> bool:
    """Tell whether a store's directory is there; see that it is one, and the store's.

    Raises:
        As ``find_permissions``.
    """
    return _find_directory(directory) is not None


def _find_directory(directory: Path) -> os.stat_result | None:
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        raise MisplacedFileError(str(directory), kind_of(status.st_mode), "a directory")
    require_owner(directory, status)
    _require_closed(directory, status)
    return status


def _require_closed(directory: Path, status: os.stat_result) -> None:
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise UnsafeStoreError(str(directory), stat.S_IMODE(status.st_mode))


def _warn_if_open_to_group(directory: Path, status: os.stat_result) -> None:
    if status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_ISVTX:
        logger.warning(
            "%s can be written to by group %d, whose users can replace what is stored; remove that permission "
            "(chmod g-w), unless you trust each of them",
            directory,
            status.st_gid,
        )
