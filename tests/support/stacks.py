"""A stack of unpacked layers, flattened: what an overlay of them shows. Written from overlayfs' documentation alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from support.trees import KINDS

from pykka_imagestore._proto.layer_pb2 import FILES, LayerRecord

Tree = dict[str, str]
"""What there is at each path: type, mode, owner, and content."""


def flatten(layers: Sequence[Path]) -> Tree:
    """Return the tree of some layers' directories, root layer first."""
    tree: Tree = {}
    for layer in layers:
        _Layer(layer).lay_over(tree, "")
    return tree


def tree_of(root: Path) -> Tree:
    """Return the tree in a directory."""
    tree: Tree = {}
    digests: dict[int, str] = {}
    left = [""]
    while left:
        below = left.pop()
        for name in os.listdir(root / below):
            path = _join(below, name)
            found = os.lstat(root / path)
            tree[path] = _described(root / path, found, digests)
            if stat.S_ISDIR(found.st_mode):
                left.append(path)
    return tree


def listing(tree: Tree) -> list[str]:
    """Return a line for each path, sorted."""
    return sorted(f"{path} {what}" for path, what in tree.items())


def listing_digest(tree: Tree) -> str:
    """Return the sha256 of the listing."""
    return hashlib.sha256(("\n".join(listing(tree)) + "\n").encode("utf-8", "surrogateescape")).hexdigest()


class _Layer:
    def __init__(self, layer: Path) -> None:
        self._rootfs = layer / "rootfs"
        record = LayerRecord.FromString((layer / "layer.pb").read_bytes())
        self._implicit = frozenset(map(os.fsdecode, record.implicit_directories))
        self._has_files = record.whiteouts == FILES
        self._digests: dict[int, str] = {}  # by inode: a program of many names is read once

    def lay_over(self, tree: Tree, below: str) -> None:
        """Lay what is in the directory ``below`` over what ``tree`` has there."""
        directory = self._rootfs / below
        names = sorted(os.listdir(directory))
        if _is_opaque(directory) or (self._has_files and ".wh..wh..opq" in names):
            _drop_below(tree, below)
        if self._has_files:
            for name in names:
                if name.startswith(".wh.") and not name.startswith(".wh..wh."):
                    _drop(tree, _join(below, name.removeprefix(".wh.")))
            names = [name for name in names if not name.startswith(".wh.")]
        for name in names:
            self._lay_one_over(tree, _join(below, name))

    def _lay_one_over(self, tree: Tree, path: str) -> None:
        found = os.lstat(self._rootfs / path)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            _drop(tree, path)
        elif stat.S_ISDIR(found.st_mode):
            if not tree.get(path, "").startswith("d "):
                _drop(tree, path)
                tree[path] = self._described(path, found)
            elif path not in self._implicit:
                tree[path] = self._described(path, found)
            self.lay_over(tree, path)
        else:
            _drop(tree, path)
            tree[path] = self._described(path, found)

    def _described(self, path: str, found: os.stat_result) -> str:
        return _described(self._rootfs / path, found, self._digests)


def _described(path: Path, found: os.stat_result, digests: dict[int, str]) -> str:
    kind, extra = KINDS[stat.S_IFMT(found.st_mode)], ""
    if kind == "f":
        if found.st_ino not in digests:
            digests[found.st_ino] = hashlib.sha256(path.read_bytes()).hexdigest()
        extra = f"{found.st_size} {digests[found.st_ino]}"
    elif kind == "l":
        extra = os.readlink(path)
    return f"{kind} {stat.S_IMODE(found.st_mode):04o} {found.st_uid}:{found.st_gid} {extra}"


def _is_opaque(directory: Path) -> bool:
    for key in ("trusted.overlay.opaque", "user.overlay.opaque"):
        with contextlib.suppress(OSError):
            if os.getxattr(directory, key) == b"y":
                return True
    return False


def _drop(tree: Tree, path: str) -> None:
    tree.pop(path, None)
    _drop_below(tree, path)


def _drop_below(tree: Tree, path: str) -> None:
    for below in [key for key in tree if key.startswith(f"{path}/") or not path]:
        del tree[below]


def _join(below: str, name: str) -> str:
    return f"{below}/{name}" if below else name
