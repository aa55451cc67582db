"""The identity and state of a file, by which code that opens a path again notices a change. Pure."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import Protocol, Self

_NANO = 10**9


class FileStatus(Protocol):
    """What ``os.fstat`` returns."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_dev(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file it is, and what changes when its bytes do.

    Attributes:
        device: Number of its file system.
        inode: Its number there.
        size_bytes: How large it is. 0 if it is no regular file, and so are the times: they change with the files in a
            directory, and with the bytes that pass through a pipe.
        mtime_ns: When it was last written to. Its owner can set that to any time.
        ctime_ns: When its bytes, mode, owner or number of links last changed; nobody can set that back.
    """

    device: int
    inode: int
    size_bytes: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0

    @classmethod
    def of(cls, status: FileStatus) -> Self:
        """Return the identity of a file by its status."""
        if not stat.S_ISREG(status.st_mode):
            return cls(status.st_dev, status.st_ino)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def has_same_bytes(self, other: FileIdentity) -> bool:
        """Tell whether this is the same file and was not written to; its mode, owner and links may have changed.

        A writer who sets the mtime back goes unnoticed, so this suffices only for bytes that a digest verifies.
        """
        mine = self.device, self.inode, self.size_bytes, self.mtime_ns
        return mine == (other.device, other.inode, other.size_bytes, other.mtime_ns)

    def __str__(self) -> str:
        return (
            f"inode {self.inode} of device {self.device}, {self.size_bytes} bytes, "
            f"written at {_seconds(self.mtime_ns)}, changed at {_seconds(self.ctime_ns)}"
        )


def kind_of(mode: int) -> str:
    """Return the kind of a file by its ``st_mode``, with its article."""
    return _KINDS.get(stat.S_IFMT(mode), "no file")


_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _seconds(nanoseconds: int) -> str:
    """Return a time as seconds since 1970: a date of a far year could not be formatted."""
    return f"{nanoseconds // _NANO}.{nanoseconds % _NANO:09}"
