"""The store's directory as it is on disk now: made, looked at, taken apart."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from pykka_imagestore.core.digest import DiffID, is_sha256, sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk, write_whole
from pykka_imagestore.durable.staging import find_orphans


def make_store(paths: StorePaths) -> None:
    """Make what is missing of a store's directory.

    Only its owner may enter: layers hold set-user-ID programs of whoever made the image.
    """
    paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (paths.layers, paths.configs, paths.staging, paths.gc):
        folder.mkdir(mode=0o700, exist_ok=True)


def find_missing(paths: StorePaths, layer_ids: Iterable[DiffID]) -> frozenset[DiffID]:
    """Return those layers that are not in the store; what is no DiffID is never there."""
    return frozenset(
        layer for layer in set(layer_ids) if not (is_sha256(layer) and os.path.lexists(paths.layer(layer)))
    )


def find_orphaned_work(paths: StorePaths) -> list[str]:
    """Return what lies in staging/ and gc/ and belongs to nobody who lives."""
    return [str(path) for folder in (paths.staging, paths.gc) for path in find_orphans(folder)]


def take_out_layer(paths: StorePaths, diff_id: DiffID) -> str:
    """Rename a layer into gc/, so that it is gone at once; return where it awaits deletion."""
    paths.gc.mkdir(mode=0o700, exist_ok=True)
    target = paths.gc / secrets.token_hex(8)
    with contextlib.suppress(FileNotFoundError):
        paths.layer(diff_id).rename(target)
    return str(target)


def write_config(paths: StorePaths, config: bytes, disk: Disk) -> None:
    """Store an image config under its digest; durable on return."""
    target = paths.config(sha256(config))
    if target.exists():
        disk.sync_folder(target.parent)  # whoever wrote it may have died before
    else:
        write_whole(target, config, disk)


def remove_config(paths: StorePaths, config_digest: str) -> None:
    """Delete an image config."""
    paths.config(config_digest).unlink(missing_ok=True)


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
