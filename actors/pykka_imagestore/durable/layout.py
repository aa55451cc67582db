"""The store's directory as it is on disk now: made, looked at, taken apart."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pykka_imagestore.core.digest import DiffID, Digest, is_sha256, sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk, write_whole
from pykka_imagestore.durable.locks import require_locks
from pykka_imagestore.durable.owned import find_orphans
from pykka_imagestore.durable.owner import told_if_foreign
from pykka_imagestore.durable.reserve import make_reserve

_FEW_LAYERS = 64  # so many are looked for one by one


def make_store(paths: StorePaths, disk: Disk) -> None:
    """Make what is missing of a store's directory, and above it; durable on return.

    Only its owner may enter: layers hold set-user-ID programs of whoever made the image.

    Raises:
        LocksUnsupportedError: Processes cannot exclude each other there.
        ForeignStoreError: It is another user's, who does not share it.
    """
    with told_if_foreign(paths.root):
        _make_store(paths, disk)


def _make_store(paths: StorePaths, disk: Disk) -> None:
    if _is_folder(paths.layers) and not os.access(paths.root, os.W_OK):
        return  # to be read only
    new = [folder for folder in paths.root.parents if not folder.exists()]
    paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in paths.folders:
        folder.mkdir(mode=0o700, exist_ok=True)
    if not paths.journal.exists():  # until then they may be new, whoever made them: they may have died before the sync
        for above in {folder.parent for folder in (paths.layers, paths.root, *new)}:
            with contextlib.suppress(PermissionError):  # a folder that one may write to and not read
                disk.sync_folder(above)
    require_locks(paths.references_lock)
    for lock in (paths.layers_lock, paths.leases_lock, paths.guard(paths.staging), paths.guard(paths.gc)):
        with contextlib.suppress(OSError):  # an older store on a full disk: who needs one makes it, if there is room
            os.close(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    make_reserve(paths)


def find_missing(paths: StorePaths, layer_ids: Iterable[DiffID]) -> frozenset[DiffID]:
    """Return those layers that are not in the store; what is no DiffID is never there.

    Raises:
        ForeignStoreError: It is another user's, who does not share it.
    """
    wanted = frozenset(layer_ids)
    if len(wanted) > _FEW_LAYERS:
        return wanted - set(find_layers(paths))
    with told_if_foreign(paths.root):
        return frozenset(layer for layer in wanted if not (is_sha256(layer) and _is_there(paths.layer(layer))))


def find_layers(paths: StorePaths) -> list[DiffID]:
    """Return the layers that are in the store."""
    with told_if_foreign(paths.root):
        return [DiffID(digest) for digest in _digests_in(paths.layers)]


def find_configs(paths: StorePaths) -> list[Digest]:
    """Return the image configs that are in the store."""
    with told_if_foreign(paths.root):
        return [Digest(digest) for digest in _digests_in(paths.configs)]


def find_orphaned_work(paths: StorePaths) -> list[Path]:
    """Return what lies in staging/ and gc/ and belongs to nobody who lives."""
    return [path for folder in (paths.staging, paths.gc) for path in find_orphans(folder, paths.guard(folder))]


def write_config(paths: StorePaths, config: bytes, disk: Disk, *, aside: Path) -> None:
    """Store an image config under its digest; durable on return. ``aside`` is as for ``write_whole``."""
    target = paths.config(sha256(config))
    if _has(target, config):
        os.utime(target)  # its image is used now, see durable/stock.py
        disk.sync_folder(target.parent)  # whoever wrote it may have died before
    else:
        write_whole(target, config, disk, aside=aside)


def _has(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except FileNotFoundError:
        return False


def remove_staging(path: Path) -> bool:
    """Delete a staging folder that holds files only; False if it holds a folder, for a worker to delete."""
    try:
        for entry in list(path.iterdir()):
            entry.unlink()
        path.rmdir()
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


# Those of Python tell of what may not be looked at that it is not there, of some versions even without an exception.


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _digests_in(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - tens of thousands of names
    except FileNotFoundError:
        return []
    digests = (name.replace("-", ":", 1) for name in names if ":" not in name)
    return [digest for digest in digests if is_sha256(digest)]
