"""Where a root file system is attached: what is mounted there, and how that comes off again.

A container's own directory is nobody else's: whatever is mounted at ``rootfs`` in there belongs to the container. A
target is a directory that somebody named. There a mount is known by what the kernel says of it, also to a later
process, and whatever else is mounted there is left alone, unless it is mounted on top of the root file system.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

from pykka_imagestore.core.paths import ROOTFS
from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.errors import InvalidInputError, ProcUnavailableError
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.named_directory import NamedDirectory, is_empty
from pykka_imagestore.fs.open_directories import pinned_directory
from pykka_imagestore.fs.pins import PIN_FLAGS
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.mounts import mount_number, move_mount, unmount, unmount_open

MODE = 0o700  # of the directories that a backend makes in a container's

_DESCRIPTORS = "/proc/self/fd"
_WANTED = "Name an empty directory of this user's"
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A mount, as the kernel lists it.

    Attributes:
        number: Its own, which another one may have later.
        parent: The number of the mount that it is attached to.
        device: Of its file system, ``major:minor``.
        root: The directory in its file system that is its root.
        point: Where it is attached.
        kind: The type of its file system.
        source: What its maker said that it is mounted from.
    """

    number: int
    parent: int
    device: str
    root: str
    point: str
    kind: str
    source: str


IsOurs = Callable[[MountEntry], bool]


def attached(descriptor: int, request: RootfsRequest) -> Mounted:
    """Attach a new mount if its request wants that; else it is closed, and gone, if this fails.

    Raises:
        InvalidInputError: The target is no empty directory of this user's.
        OSError: The kernel refused.
    """
    try:
        return Mounted(descriptor, _attach(descriptor, request) if request.attach else None)
    except BaseException:
        os.close(descriptor)
        raise


def detach(request: RootfsRequest, is_ours: IsOurs, *, is_unlike_others: bool = True) -> None:
    """Unmount a root file system wherever it is attached; does nothing where it is not.

    Args:
        is_ours: Tells it from what else may be mounted at the target.
        is_unlike_others: Whether that is true of no other container's. If so, it is found, too, if somebody moved its
            target, or a directory above, whatever is there now.
    """
    _unmount_own(request.directory)
    if request.target is None:
        return
    was_there = False
    with suppress(InvalidInputError), _found(request.target) as named:  # it is raised of another user's symlink by now
        was_there = named is not None and _unmount_all(named.above, named.name, is_ours)
    if was_there or not is_unlike_others:
        return
    for entry in filter(is_ours, reversed(mount_entries().values())):
        with suppress(FileNotFoundError):  # it came off with another one
            unmount_listed(entry)


def unmount_below(directory: str) -> None:
    """Unmount whatever somebody mounted in a directory.

    Raises:
        OSError: The kernel refused.
    """
    for entry in mounts_below(directory):
        with suppress(FileNotFoundError):  # it came off with another one
            unmount_listed(entry)


def mounts_below(directory: str) -> list[MountEntry]:
    """Return what is mounted in a directory, what lies on top of something first."""
    below = f"{os.path.realpath(directory)}/"
    return [entry for entry in reversed(mount_entries().values()) if entry.point.startswith(below)]


def is_attached(request: RootfsRequest, is_ours: IsOurs) -> bool:
    """Tell whether a root file system is mounted where the request wants it, by this process or another."""
    whose = None if request.target is None else is_ours
    with _found(request.target or default_place(request)) as named:
        return named is not None and _is_mounted(named.above, named.name, whose)


def open_attached(request: RootfsRequest) -> Mounted:
    """Open what is attached where a request wants it, by whichever process.

    Raises:
        OSError: Nothing is there any more.
    """
    path = request.target or default_place(request)
    with NamedDirectory(path) as named:
        return Mounted(os.open(named.name, PIN_FLAGS | os.O_DIRECTORY, dir_fd=named.above), path)


def open_target(path: str) -> int:
    """Open the directory that somebody named to attach a root file system to.

    Raises:
        InvalidInputError: It is not there, is another user's, or is not empty.
    """
    try:
        with NamedDirectory(path) as named:
            target = named.open()
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}; nothing was mounted. {_WANTED}") from error
    try:
        _require_fit(target, path)
    except BaseException:
        os.close(target)
        raise
    return target


def unmount_listed(entry: MountEntry) -> None:
    """Unmount what was listed, unless it was moved since: what lies on the way may be anybody's, and is not followed.

    Raises:
        OSError: It is not there any more, or the kernel refused.
    """
    root = os.open("/", PIN_FLAGS)
    try:
        for name in filter(None, entry.point.split("/")):
            below = os.open(name, PIN_FLAGS, dir_fd=root)
            os.close(root)
            root = below
        if _mount_number(root) != entry.number:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), entry.point)
        unmount_open(root)
    finally:
        os.close(root)


def default_place(request: RootfsRequest) -> str:
    """Return where a root file system is attached that has no target."""
    return f"{request.directory}/{ROOTFS}"


def shows(directory: str) -> IsOurs:
    """Return what tells the mounts that show a directory as their root, or one that is below it.

    None does while the directory is not there.
    """
    found = cache(lambda: _place_of(directory))  # only where it is asked for

    def is_ours(entry: MountEntry) -> bool:
        place = found()
        return place is not None and entry.device == place[0] and f"{entry.root}/".startswith(place[1])

    return is_ours


def mount_entries() -> dict[int, MountEntry]:
    """Return what is mounted in this process' namespace, by number."""
    with _opened_in_proc("mountinfo") as table:
        return {entry.number: entry for entry in map(_parse_entry, table)}


def mount_of(descriptor: int) -> MountEntry | None:
    """Return the mount that something open is in; None if it is not listed, as above the root of a chroot."""
    return mount_entries().get(_mount_number(descriptor))


def _mount_number(directory: int, name: str = "") -> int:
    """Return the number of the mount that something open is in, or what has a name in it, on any kernel."""
    number = mount_number(directory, name)
    if number is not None:
        return number
    if not name:
        return _mount_number_in_proc(directory)
    place = os.open(name, PIN_FLAGS, dir_fd=directory)
    try:
        return _mount_number_in_proc(place)
    finally:
        os.close(place)


def _mount_number_in_proc(descriptor: int) -> int:
    with _opened_in_proc(f"fdinfo/{descriptor}") as info:
        return next(int(line.split()[1]) for line in info if line.startswith(b"mnt_id:"))


def _opened_in_proc(name: str) -> BinaryIO:
    # Never as a FileNotFoundError, which would say of a root file system that it is gone.
    try:
        return open(f"/proc/self/{name}", "rb")
    except FileNotFoundError as error:
        raise ProcUnavailableError(error.filename, error.errno or 0) from error


def _attach(mount: int, request: RootfsRequest) -> str:
    path = request.target or default_place(request)
    place = open_target(path) if request.target is not None else os.open(path, DIRECTORY_FLAGS)
    try:
        move_mount(mount, place)
    finally:
        os.close(place)
    return path


def _require_fit(place: int, path: str) -> None:
    owner = os.fstat(place).st_uid
    if owner != os.geteuid():
        raise InvalidInputError(f"{path} belongs to user {owner}; nothing was mounted. {_WANTED}")
    if not is_empty(place):
        raise InvalidInputError(f"{path} is not empty; nothing was mounted. {_WANTED}")


def _unmount_own(directory: str) -> None:
    """Unmount whatever is mounted in a container's directory; that is quick, since nobody else may change the way."""
    try:
        above = os.open(directory, PIN_FLAGS | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _unmount_all(above, ROOTFS, None)
    finally:
        os.close(above)


@contextmanager
def _found(path: str) -> Iterator[NamedDirectory | None]:
    """Lend where a directory lies: what is looked at is what is unmounted then. None if the way there is gone."""
    try:
        named = NamedDirectory(path)
    except (FileNotFoundError, NotADirectoryError):
        yield None
    else:
        with named:
            yield named


def _unmount_all(above: int, name: str, is_ours: IsOurs | None) -> bool:
    """Unmount what is ours and whatever is on top of it; tell whether there was something."""
    was_there = False
    while _is_mounted(above, name, is_ours):
        was_there = True
        try:
            unmount(f"{_DESCRIPTORS}/{above}/{name}")
        except FileNotFoundError as error:
            if not os.path.exists(_DESCRIPTORS):  # else somebody was quicker
                raise ProcUnavailableError(_DESCRIPTORS, errno.ENOENT) from error
    return was_there


def _is_mounted(above: int, name: str, is_ours: IsOurs | None) -> bool:
    try:
        number = _mount_number(above, name)
    except FileNotFoundError:
        return False
    if number == _mount_number(above):
        return False
    # Beside a thousand other mounts the kernel takes 16 ms to list them: only where nothing else tells.
    return is_ours is None or any(map(is_ours, _stack(number)))


def _stack(number: int) -> Iterator[MountEntry]:
    """Yield a mount and those below it that are attached to the same directory, the topmost first."""
    entries = mount_entries()
    entry = entries.get(number)
    while entry is not None:
        yield entry
        below = entries.get(entry.parent)
        entry = below if below is not None and below.point == entry.point else None


def _parse_entry(line: bytes) -> MountEntry:
    fields = [_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field) for field in line.rstrip(b"\n").split(b" ")]
    kind = fields.index(b"-") + 1
    number, parent, device, root, point, *_ = map(os.fsdecode, fields)
    return MountEntry(int(number), int(parent), device, root, point, *map(os.fsdecode, fields[kind : kind + 2]))


def _place_of(directory: str) -> tuple[str, str] | None:
    """Return the file system that a directory is in, and its path there, with a slash at the end; None if unknown."""
    try:
        with pinned_directory(directory) as pin:
            around, path = mount_of(pin), os.readlink(f"/proc/self/fd/{pin}")
    except FileNotFoundError:
        return None
    if around is None:
        return None
    place = os.path.normpath(os.path.join(around.root, os.path.relpath(path, around.point)))
    return around.device, f"{place.rstrip('/')}/"
