"""Sets an entry's mode, owner, extended attributes and time, and reports what could not be set.

What a process may not set is left out and reported, so that the layer is as usable as it can be. The kernel's answers
decide what it may set, not the user id: root may lack any privilege, and an ordinary user may have some.

A process that may give a file away need not be able to do anything with it afterwards. So the owner is set last, and
after it only what a change of owner clears.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from pykka_imagestore.core.tar.format import BLOCK_DEVICE, CHARACTER_DEVICE, FIFO, SYMLINK, Entry, TarError
from pykka_imagestore.fs.create import umask
from pykka_imagestore.fs.flags import CREATE_FLAGS
from pykka_imagestore.fs.pins import pinned
from pykka_imagestore.fs.unset_attributes import Unset, UnsetLog
from pykka_imagestore.text import shown

SET_ID = stat.S_ISUID | stat.S_ISGID
MAX_ID = (1 << 32) - 2  # the one above means "leave it"
NODE_TYPES = {CHARACTER_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO, SYMLINK: stat.S_IFLNK}

_MAX_REFUSED_OWNERS = 1000
OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
_UNSETTABLE = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOENT, errno.ERANGE, errno.E2BIG}
)
# EINVAL: a user namespace that has no such owner. EOVERFLOW: a mount that has none.
_OWNER_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOVERFLOW, errno.EOPNOTSUPP, errno.ENOSYS})
ACL = b"system.posix_acl_access"  # setting it changes the mode, and a mode changes it
DEFAULT_ACL = b"system.posix_acl_default"  # whatever is made in a directory that has one inherits it
ACLS = (DEFAULT_ACL, ACL)
CAPABILITY = b"security.capability"  # a change of owner clears it, as it does set-ID bits
# The kernel's answers to a name or a link that no file system takes: the entry's fault, not the disk's.
_ENTRY_FAULTS = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.EMLINK,
    }
)


class Attributes:
    """Sets attributes as far as this process may, with no call that a default already gives.

    Attributes:
        owner: User and group of what this process makes.
        umask: Of this process.
        late: Mode bits that nothing is made with: the umask's, and set-ID bits, which come after the owner.
    """

    def __init__(self) -> None:
        self._unset = UnsetLog()
        self._refused_owners: set[tuple[int, int]] = set()
        self.owner = (os.geteuid(), os.getegid())
        self.umask = umask()
        self.late = self.umask | SET_ID

    def leave_unset(self, path: bytes, what: str) -> None:
        """Report that an attribute of an entry, or the entry itself, could not be made."""
        self._unset.add(path, what)

    def take_unset(self) -> Unset:
        """Return what could not be set since the last call."""
        return self._unset.take()

    def are_as_made(self, mode: int, owner: tuple[int, int]) -> bool:
        """Tell whether a file that is created with a mode needs no other call to have that mode and owner."""
        return not mode & self.late and owner == self.owner

    def create_file(self, entry: Entry, directory: int, name: bytes) -> int:
        """Create a file, never through a symlink; return its descriptor.

        Raises:
            FileExistsError: There is something of that name.
        """
        mode = entry.mode | stat.S_IWUSR if entry.xattrs else entry.mode  # setting those takes the right to write
        return os.open(name, CREATE_FLAGS, mode & ~SET_ID, dir_fd=directory)

    def finish_file(self, entry: Entry, parent: bytes, name: bytes, file: int) -> None:
        """Set what a file that was created and written does not have yet: attributes, mode, time, owner."""
        is_ours = (entry.uid, entry.gid) == self.owner
        mode = entry.mode if is_ours else entry.mode & ~SET_ID
        if entry.xattrs:
            self.set_xattrs(entry, join(parent, name), file, is_ours=is_ours)
        if mode & self.late or (entry.xattrs and (ACL in entry.xattrs or not mode & stat.S_IWUSR)):
            os.fchmod(file, mode)
        os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
        if not is_ours:
            self.give_away(entry, join(parent, name), file)

    def finish_node(self, entry: Entry, path: bytes, name: bytes, directory: int) -> None:
        """Set what a symlink, device or fifo that was made in ``directory`` does not have yet.

        Raises:
            OSError: Something else has its name by now.
        """
        is_ours = (entry.uid, entry.gid) == self.owner
        date = (entry.mtime_ns, entry.mtime_ns)
        if entry.kind == SYMLINK and not entry.xattrs and (is_ours or not self._may_give_to(entry)):
            os.utime(name, ns=date, dir_fd=directory, follow_symlinks=False)
            if not is_ours:
                self.give_away(entry, path, name)
            return
        mode = entry.mode if is_ours else entry.mode & ~SET_ID
        with pinned(name, directory) as (place, status):
            _require_node(entry, path, status)
            if entry.xattrs:
                self.set_xattrs(entry, path, place, is_ours=is_ours)
            if entry.kind != SYMLINK and (mode & self.late or ACL in entry.xattrs):
                os.chmod(place, mode)
            os.utime(place, ns=date)
            if not is_ours:
                self.give_away(entry, path, place)

    def give_away(self, entry: Entry, path: bytes, where: int | bytes) -> None:
        """Set the owner, last of all, of an open or pinned file.

        Set-ID bits run programs as the owner: a file that does not get its owner does not get them either.
        """
        check_owner(entry)
        if not self.chown((entry.uid, entry.gid), path, where):
            if entry.mode & SET_ID:
                self._unset.add(path, "mode")
        elif entry.mode & SET_ID and entry.kind != SYMLINK:
            self._set_id_bits(entry, path, where)
        capability = entry.xattrs.get(CAPABILITY)
        if capability is not None:
            self.set_xattr(path, where, CAPABILITY, capability)

    def chown(self, owner: tuple[int, int], path: bytes, where: int | bytes, directory: int | None = None) -> bool:
        """Set the owner of an open or pinned file, or of a name in ``directory``; tell whether this process may."""
        if owner not in self._refused_owners:
            try:
                if directory is None:
                    os.chown(where, *owner)
                else:
                    os.chown(where, *owner, dir_fd=directory, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _OWNER_REFUSED:
                    raise
                # It would give the same answer for the next file, which is ours too.
                if len(self._refused_owners) < _MAX_REFUSED_OWNERS:
                    self._refused_owners.add(owner)
            else:
                return True
        self._unset.add(path, "owner")
        return False

    def link(self, target: bytes, target_directory: int, name: bytes, directory: int) -> None:
        """Make a hard link, also to a file that was given away already: the kernel may let only its owner do so.

        Spec:
            proc_sys_fs(5), "protected_hardlinks".
        """
        try:
            os.link(target, name, src_dir_fd=target_directory, dst_dir_fd=directory, follow_symlinks=False)
        except PermissionError:
            with pinned(target, target_directory) as (place, status):
                capability = _capability_of(place)
                os.chown(place, *self.owner)
                os.link(place, name, dst_dir_fd=directory, follow_symlinks=True)
                os.chown(place, status.st_uid, status.st_gid)
                if capability is not None:  # for lack of the same privilege the file never got set-ID bits
                    os.setxattr(place, CAPABILITY, capability)

    def set_xattrs(
        self, entry: Entry, path: bytes, where: int | bytes, *, is_ours: bool = True, is_directory: bool = False
    ) -> None:
        """Set the extended attributes of an open or pinned file.

        A directory's default ACL is left out: whatever is made in it later would inherit that. It is set at the end.

        Args:
            is_ours: Whether the file stays ours; else ``give_away`` sets what the change of owner would clear.
            is_directory: Whether it is a directory; nothing else can have a default ACL.
        """
        for key, value in entry.xattrs.items():
            if key == DEFAULT_ACL:
                if not is_directory:
                    self._unset.add(path, unset_xattr(key))
            elif is_ours or key != CAPABILITY:
                self.set_xattr(path, where, key, value)

    def set_xattr(self, path: bytes, where: int | bytes, key: bytes, value: bytes) -> None:
        """Set one extended attribute of an open or pinned file."""
        # The kernel would store an empty capability, and then neither let it be read nor the file be run.
        if not key.startswith(OVERLAY_XATTRS) and (value or key != CAPABILITY):
            try:
                os.setxattr(where, key, value)
            except OSError as error:
                if error.errno not in _UNSETTABLE:
                    raise
            else:
                return
        self._unset.add(path, unset_xattr(key))

    def _set_id_bits(self, entry: Entry, path: bytes, where: int | bytes) -> None:
        try:
            os.chmod(where, entry.mode)
            # A process that is neither in the group nor privileged is not told that the kernel left the bit out.
            if not entry.mode & stat.S_ISGID or os.stat(where).st_mode & stat.S_ISGID:
                return
            os.chmod(where, entry.mode & ~SET_ID)
        except PermissionError:
            pass  # the file is another user's now, and has no such bits
        self._unset.add(path, "mode")

    def _may_give_to(self, entry: Entry) -> bool:
        return (entry.uid, entry.gid) not in self._refused_owners


def unset_xattr(key: bytes) -> str:
    """Return what a record calls an extended attribute that could not be set."""
    return f"xattr {key.decode('utf-8', 'backslashreplace')}"


def remove_acls(directory: int) -> None:
    """Remove the access control lists of an open directory."""
    for acl in ACLS:
        with suppress(OSError):  # the directory has none, or this file system has no such thing
            os.removexattr(directory, acl)


def disown(directory: int) -> None:
    """Clear what a new directory inherits: a set-group-ID bit or an ACL of it would reach every file in it."""
    os.fchown(directory, os.geteuid(), os.getegid())
    remove_acls(directory)


def check_owner(entry: Entry) -> None:
    """Refuse an owner that is out of range.

    Raises:
        TarError: The entry has one.
    """
    if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID):
        msg = f"has an owner out of range, {entry.uid}:{entry.gid}"
        raise TarError(msg)


def sees_trusted_xattrs() -> bool:
    """Tell whether the kernel shows this process ``trusted.*`` attributes; if not, it acts as if there were none."""
    file = os.memfd_create("imagestore-probe", os.MFD_CLOEXEC)
    try:
        os.setxattr(file, b"trusted.imagestore", b"")
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def entry_fault(error: Exception) -> TarError | None:
    """Return the refusal of an entry that the kernel, or Python before it, refused; None if the disk failed."""
    if not isinstance(error, OSError):
        return TarError(f"cannot be made: {error}")
    if error.errno in _ENTRY_FAULTS:
        return TarError(f"cannot be made: {error.strerror}")
    return None


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory of the layer."""
    return parent + b"/" + name if parent else name


def _require_node(entry: Entry, path: bytes, status: os.stat_result) -> None:
    """Check that what has an entry's name is what was made for it.

    Else its attributes would go to whatever another user put there: a link to a file of root's, which would become
    readable to all, or a program of that user's own, which would get a capability.
    """
    is_same = stat.S_IFMT(status.st_mode) == NODE_TYPES[entry.kind] and status.st_nlink == 1
    if entry.kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
        is_same = is_same and status.st_rdev == os.makedev(entry.major, entry.minor)
    if not is_same:
        msg = (
            f"{shown(path)} was replaced; somebody else changes what is in the directory that a layer is unpacked into"
        )
        raise OSError(errno.ESTALE, msg)


def _capability_of(path: bytes) -> bytes | None:
    try:
        return os.getxattr(path, CAPABILITY)
    except OSError:
        return None  # the file has none, or this file system has no such thing
