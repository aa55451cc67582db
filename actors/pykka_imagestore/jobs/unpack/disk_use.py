"""Estimates what a layer takes on disk, from its entries alone: the result is the same on every file system."""

from __future__ import annotations

from collections.abc import Mapping

from pykka_imagestore.core.tar.format import Entry, SparseMap

_BLOCK_BYTES = 4096
_INODE_BYTES = 256  # of ext4, by default; it has no more of them for the disk's size than it was made with
_NAME_BYTES = 12  # of a name in a directory of ext4, beside it: its head, and what it is rounded up by
_XATTR_BYTES = 22  # of an attribute, beside name and value
_INODE_XATTR_BYTES = 92  # of attributes, which ext4 has room for in an inode
_EXTENTS_IN_INODE, _EXTENTS_IN_BLOCK = 4, 170  # of a file; a block is half full where a tree of them was split
_MAX_INLINE_TARGET_BYTES = 59  # of a symlink; ext4 has them in the inode


class DiskUse:
    """Counts blocks, inodes and names as entries are unpacked; begins with the root directory's.

    Attributes:
        inodes: How many there are.
    """

    def __init__(self) -> None:
        self.inodes = 1
        self._blocks = 1
        self._names_bytes = 0

    @property
    def stored_bytes(self) -> int:
        """Bytes that the layer takes on disk. Names count twice: ext4 leaves up to a half of a directory empty."""
        return self._blocks * _BLOCK_BYTES + self.inodes * _INODE_BYTES + 2 * self._names_bytes

    def add_file(self, entry: Entry, name: bytes) -> None:
        """Count a regular file, its name and attributes."""
        self.inodes += 1
        self._names_bytes += len(name) + _NAME_BYTES
        self._blocks += -(-entry.size // _BLOCK_BYTES) if entry.sparse is None else _sparse_blocks(entry.sparse)
        if entry.xattrs:
            self._blocks += _xattr_blocks(entry.xattrs)

    def add_name(self, name: bytes, xattrs: Mapping[bytes, bytes]) -> None:
        """Count the name and attributes of an entry that is no file."""
        self._names_bytes += len(name) + _NAME_BYTES
        if xattrs:
            self._blocks += _xattr_blocks(xattrs)

    def add_inode(self) -> None:
        """Count something that takes no block: a device, a fifo, a whiteout."""
        self.inodes += 1

    def add_directory(self) -> None:
        """Count a directory."""
        self.inodes += 1
        self._blocks += 1

    def add_symlink(self, target: bytes) -> None:
        """Count a symlink."""
        self.inodes += 1
        if len(target) > _MAX_INLINE_TARGET_BYTES:
            self._blocks += 1


def _sparse_blocks(sparse: SparseMap) -> int:
    """Return the blocks that a sparse file takes, one for a segment of a byte, and for the list of its extents."""
    blocks = sum(
        (offset + size - 1) // _BLOCK_BYTES - offset // _BLOCK_BYTES + 1 for offset, size in sparse.segments if size
    )
    extents = len(sparse.segments)
    return blocks + (-(-extents // _EXTENTS_IN_BLOCK) if extents > _EXTENTS_IN_INODE else 0)


def _xattr_blocks(xattrs: Mapping[bytes, bytes]) -> int:
    size = sum(_XATTR_BYTES + len(key) + len(value) for key, value in xattrs.items())
    return -(-size // _BLOCK_BYTES) if size > _INODE_XATTR_BYTES else 0
