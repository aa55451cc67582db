"""Mounting an overlay in the ways that kernels have of being told its layers, and remembering which one works here.

    descriptors   ``lowerdir+`` with an open directory, a layer a call: Linux 6.13
    paths         ``lowerdir+`` with a path, a layer a call: Linux 6.7
    options       all layers in one page of options, mount(2): any Linux

Each is tried, since a version tells nothing of a kernel that a distribution has patched, nor of a sandbox that has none
of these calls. Where a path is needed it is the link in /proc to the directory that is open: it is short, needs no
escape, and leads nowhere else. No thread changes its working directory, which is the whole process'.

Options are pinned, whatever the kernel was built with or a module's parameters say:

    metacopy=off, redirect_dir=nofollow   what a layer claims in its attributes is not followed into other layers
    index=off                             what is written depends on no other file system's inodes
    uuid=null                             nothing is noted in a new upper directory
    volatile                              nobody waits for the disk: what is written dies with its container
    userxattr                             in a user namespace, whose overlay reads and writes ``user.overlay.*``

Spec:
    Linux, filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pykka_imagestore.core.paths import ROOTFS
from pykka_imagestore.fs.open_directories import pinned_directory
from pykka_imagestore.rootfs.mounts import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    FileSystemContext,
    clone_tree,
    mount,
    unmount,
)

MAX_LAYERS = 500  # OVL_MAX_STACK in the kernel's fs/overlayfs/params.c
PINNED = ("metacopy=off", "index=off", "redirect_dir=nofollow")
NO_UUID, VOLATILE, USER = "uuid=null", "volatile", "userxattr"

_MAX_SOURCE = 255  # bytes that fsconfig(2) takes
_MS_OF = {MOUNT_ATTR_RDONLY: MS_RDONLY, MOUNT_ATTR_NOSUID: MS_NOSUID, MOUNT_ATTR_NODEV: MS_NODEV}
# What a kernel says that does not know a call, a parameter or its type, and what a filter of system calls says.
_UNKNOWN_HERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Stack:
    """An overlay that is wanted.

    Attributes:
        lower: Its read-only directories, the topmost first.
        upper: The directories that it writes to, its ``upperdir`` and ``workdir``; None if it is read-only.
        directory: Its container's, which the mount names as its source, and where it may be mounted for a moment.
        options: Without those that name directories.
        attributes: Of the mount, of ``MOUNT_ATTR_``.
    """

    lower: tuple[str, ...]
    upper: tuple[str, str] | None
    directory: str
    options: tuple[str, ...]
    attributes: int


Way = Callable[[Stack, Sequence[str]], int]
_Put = Callable[[FileSystemContext, str, int], None]


class OverlayWays:
    """Mounts overlays, and remembers which way works; threads may share it.

    Args:
        ways: Which to try, the best first.
    """

    def __init__(self, ways: Sequence[Way]) -> None:
        self._tries = [(way, without) for way in ways for without in ((), (NO_UUID,), (NO_UUID, VOLATILE))]
        self._first = 0

    def mount(self, stack: Stack) -> int:
        """Return a descriptor of the mount, which is attached nowhere, and gone once it is closed.

        Raises:
            OSError: The kernel refuses; the sentence has what it said to each way that was tried.
        """
        told: dict[str, OSError] = {}
        for number in range(self._first, len(self._tries)):
            way, without = self._tries[number]
            try:
                descriptor = way(stack, [option for option in stack.options if option not in without])
            except OSError as error:
                if error.errno not in _UNKNOWN_HERE:
                    raise
                told.setdefault(str(error.strerror), error)
            else:
                self._first = number
                return descriptor
        raise OSError(next(iter(told.values())).errno, "; ".join(told))


def source_of(directory: str) -> str:
    """Return what the overlay of a container's directory is called in the list of mounts: that, or the end of it."""
    return os.fsdecode(os.fsencode(directory)[-_MAX_SOURCE:])


def by_descriptors(stack: Stack, options: Sequence[str]) -> int:
    """Mount an overlay of open directories."""
    return _by_context(stack, options, FileSystemContext.set_descriptor)


def by_paths(stack: Stack, options: Sequence[str]) -> int:
    """Mount an overlay of paths that are told one by one."""
    return _by_context(stack, options, lambda context, key, pin: context.set_string(key, _link_to(pin)))


def by_options(stack: Stack, options: Sequence[str]) -> int:
    """Mount an overlay of paths that are told at once."""
    flags = sum(flag for attribute, flag in _MS_OF.items() if attribute & stack.attributes)
    with (
        ExitStack() as pins,
        pinned_directory(stack.directory) as directory,
        pinned_directory(f"{stack.directory}/{ROOTFS}") as place,
    ):
        lower = ":".join(_link_to(pins.enter_context(pinned_directory(path))) for path in stack.lower)
        written = [f"{key}={_link_to(pins.enter_context(pinned_directory(path)))}" for key, path in _written(stack)]
        told = ",".join((f"lowerdir={lower}", *written, *options))
        mount(source_of(stack.directory), _link_to(place), "overlay", flags, told)
        # Attached for a moment: what comes off is the mount, and what stays is another one of the same overlay.
        attached = f"{_link_to(directory)}/{ROOTFS}"
        try:
            with pinned_directory(attached) as root:
                return clone_tree(root)
        finally:
            unmount(attached)


WAYS = (by_descriptors, by_paths, by_options)


def _by_context(stack: Stack, options: Sequence[str], put: _Put) -> int:
    with FileSystemContext("overlay") as context:
        context.set_string("source", source_of(stack.directory))
        for key, path in (*(("lowerdir+", path) for path in stack.lower), *_written(stack)):
            with pinned_directory(path) as pin:
                put(context, key, pin)
        for option in options:
            key, has_value, value = option.partition("=")
            if has_value:
                context.set_string(key, value)
            else:
                context.set_flag(key)
        context.create()
        return context.mount(stack.attributes)


def _written(stack: Stack) -> Iterator[tuple[str, str]]:
    return zip(("upperdir", "workdir"), stack.upper or (), strict=False)


def _link_to(pin: int) -> str:
    return f"/proc/self/fd/{pin}"
