"""Who owns a store: a file of it that may not be used is reported as another user's, not as damage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pykka_imagestore.core.paths import CONTAINER_RECORD, LOCK
from pykka_imagestore.core.store_names import is_own_name
from pykka_imagestore.errors import ForeignStoreError

ROOT_USER = 0


@contextmanager
def told_if_foreign(store: Path) -> Iterator[None]:
    """Turn a refusal of a store's file into one that names its owner; this user's own files are refused as they were.

    Raises:
        ForeignStoreError: The file is another user's.
    """
    try:
        yield
    except PermissionError as error:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else store
        owner = _owner(path, store)
        if owner is None or owner == os.geteuid():
            raise
        raise _foreign(store, path, owner) from error


def require_owner(path: Path, status: os.stat_result) -> None:
    """Require that something in a store is owned by root, by this user or by the store's owner.

    Raises:
        ForeignStoreError: It is another user's.
    """
    if status.st_uid in (ROOT_USER, os.geteuid()):
        return
    store = store_of(path)
    if status.st_uid != store.stat().st_uid:
        raise _foreign(store, path, status.st_uid)


def store_of(path: Path) -> Path:
    """Return the store that something in it belongs to, whatever the directories above the store are called."""
    place = path.parent if path.name in (LOCK, CONTAINER_RECORD) else path  # gc/<random>/lock
    return place.parent.parent if is_own_name(place.parent.name, place.name) else path.parent


def _foreign(store: Path, path: Path, owner: int) -> ForeignStoreError:
    return ForeignStoreError(str(store), str(path), owner, os.geteuid(), _owner(store, store) == owner)


def _owner(path: Path, store: Path) -> int | None:
    """Return the owner of a file in a store, or of the nearest directory around it that can be seen."""
    for place in (path, *path.parents):
        if place != store and store not in place.parents:
            return None
        try:
            return place.lstat().st_uid
        except (PermissionError, FileNotFoundError):
            continue
    return None
