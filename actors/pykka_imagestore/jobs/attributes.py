"""What an entry has besides its content: mode, owner, extended attributes, time. And what became of those.

What a process may not set is left out and recorded, so that the layer is as usable as it can be.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.tar import Entry, TarError

SET_ID = stat.S_ISUID | stat.S_ISGID
MAX_ID = (1 << 32) - 2  # the one above means "leave it"

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_UNSET_LISTED = 1000
_OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
_UNSETTABLE = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOENT, errno.ERANGE, errno.E2BIG}
)
# What the kernel says of a name or a link that no file system takes: the entry's fault, not the disk's.
_ENTRY_FAULTS = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.EMLINK,
        errno.EFBIG,
    }
)


@dataclass(slots=True)
class Outcome:
    """What became of the layer besides its files; see layer.proto.

    Attributes:
        unset: Path and what of it could not be set; the first 1000.
    """

    entries: int = 0
    stored_bytes: int = 0
    replaced_lost: bool = False
    whiteouts: WhiteoutFormat = WhiteoutFormat.NONE
    implicit_directories: list[bytes] = field(default_factory=list)
    unset: list[tuple[bytes, str]] = field(default_factory=list)
    unset_count: int = 0

    def leave_unset(self, path: bytes, what: str) -> None:
        """Record what of an entry could not be set."""
        self.unset_count += 1
        if len(self.unset) < _MAX_UNSET_LISTED:
            self.unset.append((path, what))


class Attributes:
    """Sets attributes as far as this process may, with no call that a default already gives.

    Attributes:
        owner: User and group of what this process makes.
        umask: Of this process.
        late: Mode bits that nothing is made with: the umask's, and set-ID bits, which come after the owner.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._privileged = os.geteuid() == 0
        self.owner = (os.geteuid(), os.getegid())
        self.umask = _umask()
        self.late = self.umask | SET_ID

    def create_file(self, entry: Entry, folder: int, name: bytes) -> int:
        """Create a file, never through a symlink; return its descriptor.

        Raises:
            FileExistsError: There is something of that name.
        """
        mode = entry.mode | stat.S_IWUSR if entry.xattrs else entry.mode  # who sets those must be able to write
        return os.open(name, _CREATE, mode & ~SET_ID, dir_fd=folder)

    def finish_file(self, entry: Entry, parent: bytes, name: bytes, file: int) -> None:
        """Give a file that was created and written all that it does not have yet."""
        mode = entry.mode
        if (entry.uid, entry.gid) != self.owner:
            mode = self.chown(entry, join(parent, name), file)
        if entry.xattrs:
            self.set_xattrs(entry, join(parent, name), file)
        if mode & self.late or (entry.xattrs and not mode & stat.S_IWUSR):
            os.fchmod(file, mode)
        os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))

    def chown(self, entry: Entry, path: bytes, where: int | bytes, folder: int | None = None) -> int:
        """Set the owner of an open file, or of the entry of that name in ``folder``.

        Returns:
            The mode that the entry may have: without its set-ID bits if it does not get the owner they speak of.
        """
        if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID):
            msg = f"has an owner out of range, {entry.uid}:{entry.gid}"
            raise TarError(msg)
        if self._privileged or (entry.uid, entry.gid) == self.owner:
            try:
                if folder is None:
                    os.chown(where, entry.uid, entry.gid)
                else:
                    os.chown(where, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                # EINVAL: a user namespace that has no such owner.
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise
            else:
                return entry.mode
        self._outcome.leave_unset(path, "owner")
        if entry.mode & SET_ID:
            self._outcome.leave_unset(path, "mode")
        return entry.mode & ~SET_ID

    def set_xattrs(self, entry: Entry, path: bytes, where: int | bytes) -> None:
        """Set the extended attributes of an open file, or of a path whose last part is not followed."""
        for key, value in entry.xattrs.items():
            if not key.startswith(_OVERLAY_XATTRS):
                try:
                    os.setxattr(where, key, value, follow_symlinks=isinstance(where, int))
                    continue
                except OSError as error:
                    if error.errno not in _UNSETTABLE:
                        raise
            self._outcome.leave_unset(path, f"xattr {key.decode('utf-8', 'backslashreplace')}")


def entry_fault(error: Exception) -> TarError | None:
    """Return the refusal of an entry that the kernel, or Python before it, does not take; None if it is the disk."""
    if not isinstance(error, OSError):
        return TarError(f"cannot be made: {error}")
    if error.errno in _ENTRY_FAULTS:
        return TarError(f"cannot be made: {error.strerror}")
    return None


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of a name in a folder of the layer."""
    return parent + b"/" + name if parent else name


def _umask() -> int:
    """Return this process' umask without setting it, which other threads would notice."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            key, _, value = line.partition(b":")
            if key == b"Umask":
                return int(value, 8)
    return 0o777  # unknown: set every mode by hand
