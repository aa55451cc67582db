"""What a directory holds, as values that can be compared."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Node:
    """One file, directory, link or device.

    Attributes:
        content: A file's digest, a symlink's target, a device's number.
        xattrs: None where the file system has none.
        same_as: The first path, in order, of the same file.
    """

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    same_as: bytes


KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}


def describe(root: str | Path) -> dict[bytes, Node]:
    """Return what is below ``root``, by path; the root itself is ``b""``. Follows no symlink."""
    top = os.fsencode(root)
    paths = [b"", *sorted(_walk(top, b""))]
    first: dict[tuple[int, int], bytes] = {}
    return {path: _node(os.path.join(top, path) if path else top, path, first) for path in paths}


def names(root: str | Path) -> list[bytes]:
    """Return the paths of what is below ``root``, sorted."""
    return sorted(_walk(os.fsencode(root), b""))


def make_locked_tree(directory: str) -> None:
    """Make ``directory/tree``, whose directories their owner may not enter, or not read."""
    Path(directory, "tree", "a", "b").mkdir(parents=True)
    Path(directory, "tree", "a", "b", "file").touch()
    for path, mode in (("tree/a/b", 0), ("tree/a", stat.S_IWUSR), ("tree", stat.S_IRUSR)):
        Path(directory, path).chmod(mode)


def _walk(top: bytes, below: bytes) -> list[bytes]:
    found: list[bytes] = []
    with contextlib.suppress(PermissionError), os.scandir(os.path.join(top, below) if below else top) as entries:
        for entry in list(entries):
            path = below + b"/" + entry.name if below else entry.name
            found.append(path)
            if entry.is_dir(follow_symlinks=False):
                found += _walk(top, path)
    return found


def _node(path: bytes, name: bytes, first: dict[tuple[int, int], bytes]) -> Node:
    found = os.lstat(path)
    xattrs: list[tuple[str, bytes]] = []
    with contextlib.suppress(OSError):
        xattrs = [
            (key, os.getxattr(path, key, follow_symlinks=False))
            for key in sorted(os.listxattr(path, follow_symlinks=False))
        ]
    return Node(
        kind=KINDS[stat.S_IFMT(found.st_mode)],
        mode=stat.S_IMODE(found.st_mode),
        owner=(found.st_uid, found.st_gid),
        mtime_ns=found.st_mtime_ns,
        content=_content(path, found),
        xattrs=tuple(xattrs),
        same_as=first.setdefault((found.st_dev, found.st_ino), name),
    )


def _content(path: bytes, found: os.stat_result) -> bytes:
    if stat.S_ISREG(found.st_mode):
        with contextlib.suppress(PermissionError), open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
        return b"unreadable"
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(path)
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        return b"%d:%d" % (os.major(found.st_rdev), os.minor(found.st_rdev))
    return b""
