"""The kernel's calls on mounts, which Python does not have.

A mount is a descriptor first: a file system is made in a context of its own, becomes a mount that is attached nowhere,
and is attached to a directory only where somebody wants a path. No path is resolved twice, no list of options has to
fit on a page, and nothing of it is left once its descriptors are closed.

Each function raises OSError, of the class that its errno has, with the name of the call and what the kernel says.

Spec:
    Linux, include/uapi/linux/mount.h; fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2),
    mount_setattr(2), mount(2), umount2(2), statx(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from typing import Self

from pykka_imagestore.rootfs.system_calls import Argument, buffer_of, call, check, libc, quick_call

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
AT_SYMLINK_NOFOLLOW = 0x100  # linux/fcntl.h, as the next
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000
STATX_MNT_ID = 0x1000  # linux/stat.h
MNT_DETACH = 0x2  # sys/mount.h, as the next
UMOUNT_NOFOLLOW = 0x8

MAX_OPTIONS = 4095  # of mount(2), in bytes: a page, with the byte that ends them

_STATX = struct.Struct("=I140xQ104x")  # of struct statx: stx_mask and stx_mnt_id
_MAX_MESSAGE = 4096
_MAX_MESSAGES = 16  # the kernel keeps eight


class FileSystemContext:
    """A file system of some type that is being put together.

    Args:
        kind: The type, such as ``overlay``.
    """

    def __init__(self, kind: str) -> None:
        self._context = call("fsopen", kind.encode(), FSOPEN_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the context; what was mounted stays."""
        os.close(self._context)

    def set_flag(self, key: str) -> None:
        """Set a parameter that has no value."""
        self._set(FSCONFIG_SET_FLAG, key, None)

    def set_string(self, key: str, value: str) -> None:
        """Set a parameter to a text of 255 bytes at most."""
        self._set(FSCONFIG_SET_STRING, key, os.fsencode(value))

    def set_descriptor(self, key: str, descriptor: int) -> None:
        """Set a parameter to what is open, which may be closed afterwards."""
        self._set(FSCONFIG_SET_FD, key, None, descriptor)

    def create(self) -> None:
        """Make the file system of what was set."""
        self._call(call, "fsconfig", " at the end", FSCONFIG_CMD_CREATE, None, None, 0)

    def mount(self, attributes: int = 0) -> int:
        """Return a descriptor of a mount of the file system, which is attached nowhere, and gone once it is closed.

        Args:
            attributes: Of ``MOUNT_ATTR_``.
        """
        return self._call(call, "fsmount", "", FSMOUNT_CLOEXEC, attributes)

    def _set(self, command: int, key: str, value: bytes | None, number: int = 0) -> None:
        self._call(quick_call, "fsconfig", f" at {key}", command, key.encode(), value, number)

    def _call(self, make: Callable[..., int], name: str, where: str, *arguments: Argument) -> int:
        try:
            return make(name, self._context, *arguments)
        except OSError as error:
            told = "".join(f"; the kernel says: {message}" for message in self._messages())
            raise OSError(error.errno, f"{error.strerror}{where}{told}") from error

    def _messages(self) -> list[str]:
        """Return what the file system has to say, which may be nothing."""
        messages = []
        for _ in range(_MAX_MESSAGES):
            try:
                message = os.read(self._context, _MAX_MESSAGE)
            except OSError:  # ENODATA: that was the last
                break
            messages.append(message.decode(errors="replace")[len("e ") :].strip())  # errors, warnings, informations
        return messages


def may_mount() -> bool:
    """Tell whether this process may mount in its own namespaces."""
    try:
        FileSystemContext("overlay").close()
    except PermissionError:
        return False
    except OSError:  # an old kernel, or one without overlays: what is asked for will tell
        pass
    return True


def clone_tree(directory: int) -> int:
    """Return a descriptor of another mount of an open directory, without what is mounted below it.

    It is attached nowhere, and gone once it is closed.
    """
    return call("open_tree", directory, b"", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)


def set_attributes(mount: int, attributes: int) -> None:
    """Set attributes of a mount, of ``MOUNT_ATTR_``, and keep those that it has."""
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    call("mount_setattr", mount, b"", AT_EMPTY_PATH, wanted, len(wanted))


def move_mount(mount: int, directory: int) -> None:
    """Attach a mount to an open directory; it stays when its descriptor is closed."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    call("move_mount", mount, b"", directory, b"", flags)


def mount(source: str, place: str, kind: str, flags: int, options: str) -> None:
    """Mount a file system at a path, with a page of options.

    Args:
        flags: Of ``MS_``.
    """
    data = os.fsencode(options)
    if len(data) > MAX_OPTIONS:  # the kernel would cut them off, at whatever is there
        msg = f"mount: the options take {len(data)} bytes, and the kernel reads {MAX_OPTIONS}"
        raise OSError(errno.E2BIG, msg)
    arguments = (os.fsencode(source), os.fsencode(place), kind.encode(), ctypes.c_ulong(flags), data)
    check("mount", libc.mount(*arguments))


def unmount(place: str) -> None:
    """Detach what is mounted at a path, with all that is mounted below it, at once; its open files stay usable.

    A symlink that somebody put at the end of the path is not followed: what it leads to would come off.
    """
    check("umount2", libc.umount2(os.fsencode(place), MNT_DETACH | UMOUNT_NOFOLLOW))


def unmount_open(root: int) -> None:
    """Detach the mount whose root is open, as ``unmount`` does."""
    check("umount2", libc.umount2(b"/proc/self/fd/%d" % root, MNT_DETACH))


def mount_number(directory: int, name: str = "") -> int | None:
    """Return the number of the mount that something is in; None where the kernel does not tell.

    Args:
        directory: What is open.
        name: What is meant in that directory, or what is mounted there; by default the directory itself.

    Raises:
        FileNotFoundError: It is not there.
    """
    if not hasattr(libc, "statx"):
        return None
    answer = bytearray(_STATX.size)
    flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC | (0 if name else AT_EMPTY_PATH)
    try:
        check("statx", libc.statx(directory, os.fsencode(name), flags, STATX_MNT_ID, buffer_of(answer)))
    except PermissionError:  # a filter of system calls that is older than this one
        return None
    mask, number = _STATX.unpack(answer)
    return int(number) if mask & STATX_MNT_ID else None  # since Linux 5.8
