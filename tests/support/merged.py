"""Merged trees, looked at: through a real overlay, or put together from the directories alone."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from support import seams
from support.layers import unpack_layer
from support.privileges import as_ordinary_user
from support.processes import TIMEOUT
from support.rootfs import require_mounts
from support.tar_model import WHITEOUT, Directory, Item, Tree, merge

from pykka_imagestore._proto.stack_pb2 import StackRecord
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import Reads, StackLayer, stack_id
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.stacks import find_stack, publish_stack, stack_layers
from pykka_imagestore.fs.whiteout_format import OPAQUE_XATTRS
from pykka_imagestore.jobs.make_stack import MakeStack, make_stack

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_PR_SET_DUMPABLE = 4
_KINDS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}


def put_layer(paths: StorePaths, data: bytes, form: WhiteoutFormat | None = None) -> DiffID:
    """Unpack a layer into a store; return its DiffID.

    Args:
        form: Of its whiteouts; None for what this process writes best.
    """
    with tempfile.TemporaryDirectory(dir=paths.root) as directory:
        if form is None:
            unpacked = unpack_layer(data, directory)
        else:
            with patch(seams.CHOOSE_WHITEOUT_FORMAT, lambda _: form):
                unpacked = unpack_layer(data, directory)
        diff_id = unpacked.counts.diff_id
        if not paths.layer(diff_id).exists():
            paths.layers.mkdir(exist_ok=True)
            unpacked.target.rename(paths.layer(diff_id))
    return diff_id


def put_stack(paths: StorePaths, layer_ids: Sequence[DiffID], reads: Reads) -> StackRecord:
    """Make what a stack needs on top, and publish it."""
    with tempfile.TemporaryDirectory(dir=paths.root) as directory:
        target = Path(directory, "stack")
        make_stack(MakeStack(tuple(str(paths.layer(layer)) for layer in layer_ids), reads, str(target)))
        publish_stack(paths, target, stack_id(layer_ids, reads), disk(durable=False))
    record = find_stack(paths, layer_ids, reads)
    assert record is not None
    return record


def layers_of(
    root: str | Path, tars_and_forms: Sequence[tuple[bytes, WhiteoutFormat | None]], reads: Reads
) -> tuple[StackLayer, ...]:
    """Put layers into a store at ``root``; return of which directories they are merged."""
    paths = StorePaths(Path(root))
    layer_ids = [put_layer(paths, data, form) for data, form in tars_and_forms]
    return stack_layers(paths, put_stack(paths, layer_ids, reads))


def layers_of_tars(root: str, tars: Sequence[bytes], reads: Reads) -> tuple[StackLayer, ...]:
    """Put layers as they come, as ``layers_of`` does."""
    return layers_of(root, [(data, None) for data in tars], reads)


def merged(layers: Sequence[StackLayer], reads: Reads) -> Tree:
    """Return what a merge shows, put together from the directories."""
    return merge([_directory(layer) for layer in layers], reads)


def through_overlay(layers: Sequence[StackLayer], reads: Reads) -> Tree:
    """Return what a real overlay shows that root mounts for a moment."""
    require_mounts()
    return _mount_and_read([layer.path for layer in layers], reads)


def overlay_of_ordinary_user(root: str, tars: Sequence[bytes]) -> Tree:
    """Put layers and mount them as an ordinary user, in a user namespace of his own, where he is root."""
    return as_ordinary_user(_put_and_mount, root, tars, Reads.USER)


def _put_and_mount(root: str, tars: Sequence[bytes], reads: Reads) -> Tree:
    layers = layers_of_tars(root, tars, reads)
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 1)  # or /proc/self would be root's, who started this process
    assert libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) == 0, ctypes.get_errno()
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(text)
    return _mount_and_read([layer.path for layer in layers], reads)


def _mount_and_read(paths: Sequence[str], reads: Reads) -> Tree:
    with tempfile.TemporaryDirectory() as directory:
        place, empty = Path(directory, "merged"), Path(directory, "empty")
        place.mkdir()
        empty.mkdir()  # an overlay without an upper directory takes two layers at least
        lower = ":".join([*reversed(paths), str(empty)])
        options = f"ro,lowerdir={lower}" + (",userxattr" if reads is Reads.USER else "")
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place], check=True, timeout=TIMEOUT)
        try:
            return read_tree(place)
        finally:
            subprocess.run(["umount", place], check=True, timeout=TIMEOUT)


def read_tree(root: str | Path) -> Tree:
    """Return what is below a directory, devices 0/0 as whiteouts; times in whole seconds."""
    top = os.fsencode(root)
    tree: Tree = {}
    left = [b""]
    while left:
        path = left.pop()
        place = os.path.join(top, path) if path else top
        status = os.lstat(place)
        if stat.S_ISCHR(status.st_mode):
            assert status.st_rdev == 0
            tree[path] = WHITEOUT
            continue
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        owner = status.st_uid, status.st_gid
        content = Path(os.fsdecode(place)).read_bytes() if kind == "f" else os.readlink(place) if kind == "l" else b""
        file = None if kind == "d" else (status.st_dev, status.st_ino)
        tree[path] = Item(kind, stat.S_IMODE(status.st_mode), owner, status.st_mtime_ns // 10**9, content, file)
        if kind == "d":
            left += (path + b"/" + name if path else name for name in os.listdir(place))
    return tree


def _directory(layer: StackLayer) -> Directory:
    items = read_tree(layer.path)
    key = OPAQUE_XATTRS.get(layer.whiteouts)
    marks = set()
    for path in [path for path, item in items.items() if item.kind == "d"]:
        place = os.path.join(os.fsencode(layer.path), path)
        if key is not None and os.fsdecode(key) in os.listxattr(place, follow_symlinks=False):
            marks.add(path)
    return Directory(items, marks, layer.whiteouts)
