"""The store's directory on disk: making it, finding what is in it, writing configs, removing staging."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from pykka_imagestore.core.digest import DiffID, Digest, directory_name, is_sha256, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk, write_whole
from pykka_imagestore.durable.files import has_file, make_directory, open_file, read_file, touch
from pykka_imagestore.durable.locked_directory import find_orphans
from pykka_imagestore.durable.locks import require_locks
from pykka_imagestore.durable.marker import is_marked, mark
from pykka_imagestore.durable.owner import told_if_foreign
from pykka_imagestore.durable.permissions import find_permissions, has_directory
from pykka_imagestore.durable.reserve import make_reserve
from pykka_imagestore.errors import MisplacedFileError

_MAX_LOOKUPS = 64  # more layers are found faster by listing the directory
_DIGEST_NAME = re.compile(r"(?<![^/])sha256-([a-f0-9]{64})(?![^/])")  # one of several names with slashes between them


def make_store(paths: StorePaths, disk: Disk) -> None:
    """Make what is missing of a store's directory, and above it; durable on return.

    Only its owner may enter: layers hold set-user-ID programs from untrusted images.

    Raises:
        LocksUnsupportedError: Processes cannot exclude each other there.
        NotAStoreError: The directory has other files in it.
        ForeignStoreError: It is another user's, who does not share it, or has files of another user.
        UnsafeStoreError, MisplacedFileError, StoreFormatError: It cannot be used safely.
    """
    with told_if_foreign(paths.root):
        _make_store(paths, disk)


def require_readable(paths: StorePaths) -> None:
    """Require that a directory is a store that may be read.

    Raises:
        As ``make_store``.
    """
    with told_if_foreign(paths.root):
        find_permissions(paths)
        is_marked(paths)


def _make_store(paths: StorePaths, disk: Disk) -> None:
    new = _make_root(paths.root)
    permissions, has_marker = find_permissions(paths), is_marked(paths)
    if not permissions.is_writable and paths.layers not in permissions.missing:
        return  # to be read only
    for directory in permissions.missing:
        require_directory(directory)
    if not paths.journal.exists():  # until then the names may be unsynced: the process that made them may have died
        for above in {directory.parent for directory in (paths.layers, paths.root, *new)}:
            with contextlib.suppress(PermissionError):  # a directory that may be written to but not read
                disk.sync_directory(above)
    require_locks(paths.references_lock)
    for lock in (paths.layers_lock, paths.leases_lock, paths.guard(paths.staging), paths.guard(paths.gc)):
        if not has_file(lock):
            with contextlib.suppress(OSError):  # an older store on a full disk: it is made when it is needed
                os.close(open_file(lock, os.O_RDWR | os.O_CREAT))
    if not has_marker:
        mark(paths, disk)
    make_reserve(paths)


def require_directory(directory: Path) -> None:
    """Make one of the store's directories, for its owner alone, if it is not there; not synced.

    Raises:
        ForeignStoreError, UnsafeStoreError, MisplacedFileError: It is there, and cannot be used safely.
        OSError: It cannot be made.
    """
    while not has_directory(directory):  # another process may make it at this moment, perhaps another user's
        with contextlib.suppress(FileExistsError):
            make_directory(directory, 0o700)


def _make_root(root: Path) -> list[Path]:
    """Make a store's directory and what is missing above; return those above."""
    if root.is_dir():
        return []
    if root.exists() and not root.is_dir():  # asked again: another process may make it at this moment
        raise NotADirectoryError(errno.ENOTDIR, "This is no directory; a store needs one", str(root))
    new = [directory for directory in root.parents if not directory.exists()]
    for directory in reversed(new):
        with contextlib.suppress(FileExistsError):
            # Even if the umask is 0: a user who may write there could replace the store.
            make_directory(directory, 0o755)
    with contextlib.suppress(FileExistsError):
        make_directory(root, 0o700)
    return new


def find_missing(paths: StorePaths, layer_ids: Iterable[DiffID]) -> frozenset[DiffID]:
    """Return those layers that are not in the store; text that is no DiffID is never there.

    Raises:
        ForeignStoreError: It is another user's, who does not share it.
    """
    wanted = frozenset(layer_ids)
    with told_if_foreign(paths.root):
        if len(wanted) > _MAX_LOOKUPS:
            return wanted - _layers_in(paths.layers)
        # By text, not by paths.layer(): each get and each container looks for some.
        layers = os.fspath(paths.layers)
        return frozenset(
            layer for layer in wanted if not (is_sha256(layer) and _is_there(f"{layers}/{directory_name(layer)}"))
        )


def find_layers(paths: StorePaths) -> list[DiffID]:
    """Return the layers that are in the store."""
    with told_if_foreign(paths.root):
        return [DiffID(digest) for digest in _digests_in(paths.layers)]


def find_configs(paths: StorePaths) -> list[Digest]:
    """Return the image configs that are in the store."""
    with told_if_foreign(paths.root):
        return [Digest(digest) for digest in _digests_in(paths.configs)]


def find_orphaned_work(paths: StorePaths) -> list[Path]:
    """Return the directories in staging/ and gc/ whose owners have ended."""
    return [path for directory in (paths.staging, paths.gc) for path in find_orphans(directory, paths.guard(directory))]


def count_removed_layers(paths: StorePaths) -> int:
    """Return how many layers that were removed wait in gc/ to be deleted."""
    try:
        waiting = list(paths.gc.iterdir())
    except OSError:
        return 0
    return sum(len(_layers_in(directory)) for directory in waiting)


def write_config(paths: StorePaths, config: bytes, disk: Disk, *, aside: Path) -> None:
    """Store an image config under its digest; durable on return. ``aside`` is as for ``write_whole``."""
    target = paths.config(sha256(config))
    if _has(target, config) and touch(target):  # its image is used now, as ``note_use`` says
        disk.sync_directory(target.parent)  # the process that wrote it may have died before its sync
    else:
        write_whole(target, config, disk, aside=aside)


def note_use(paths: StorePaths, image: DockerImage) -> None:
    """Record that an image was used now, as its config's time; does nothing where the store cannot be written to."""
    if image.config_digest is not None:
        with contextlib.suppress(OSError):
            touch(paths.config(image.config_digest))


def _has(path: Path, data: bytes) -> bool:
    try:
        return read_file(path) == data
    except (FileNotFoundError, MisplacedFileError):
        return False


def remove_staging(path: Path) -> bool:
    """Delete a staging directory that holds only files; return False if it holds a directory, which takes a worker."""
    try:
        for entry in list(path.iterdir()):
            entry.unlink()
        path.rmdir()
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


# Path.exists and its like call what may not be looked at absent, in some versions of Python without an exception.


def _is_there(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)  # not a symlink: it would lead out of the store
    except (FileNotFoundError, NotADirectoryError):
        return False


def _layers_in(directory: Path) -> frozenset[DiffID]:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return frozenset()
    return frozenset(cast("list[DiffID]", _digests_of(names)))


def _digests_in(directory: Path) -> list[str]:
    try:
        names = os.listdir(directory)  # noqa: PTH208 - tens of thousands of names
    except FileNotFoundError:
        return []
    return _digests_of(names)


def _digests_of(names: list[str]) -> list[str]:
    # At once: there may be tens of thousands, at each list of images.
    return [f"sha256:{digits}" for digits in _DIGEST_NAME.findall("/".join(names))]
