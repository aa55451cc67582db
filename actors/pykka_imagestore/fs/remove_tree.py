"""Removing a folder and all below it, by directory descriptors only, alone or together with others.

What cannot be removed, for lack of a privilege, an immutable file or a mount point, keeps nothing else from being
removed, and is told in the end.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pykka_imagestore.errors import NotRemovedError

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_CHOICE = 32
_MOST_LEFT = 1000  # in one folder, before the rest of it is not tried any more
# What the kernel says of what is to stay. EBUSY: something is mounted there.
_IN_THE_WAY = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY, errno.EROFS})
_OPEN_TO_ALL = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO


def remove_tree(path: str) -> None:
    """Delete a folder, or whatever is at ``path``; nothing there is fine.

    Follows no symlink, enters no other mount, and takes any depth. Several at once share the work, since each goes its
    own way through the tree; each returns when nothing is left.

    Raises:
        NotRemovedError: Something could not be removed; all else is.
    """
    above, name = os.path.split(path.rstrip("/"))
    try:
        parent = os.open(above or ".", FOLDER_FLAGS & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        remove_entry(os.fsencode(name), parent)
    except NotRemovedError as error:
        raise error.below(above or ".") from error
    finally:
        os.close(parent)


def empty_folder(folder: int, path: str) -> None:
    """Delete all that is in an open folder, and leave the folder.

    Args:
        path: Where it is, for the error.

    Raises:
        NotRemovedError: Something could not be removed; all else is.
    """
    removal = _Removal(folder, may_take_over=True)
    try:
        removal.empty()
        removal.tell()
    except NotRemovedError as error:
        raise error.below(path) from error
    finally:
        removal.close()


def remove_entry(name: bytes, parent: int) -> None:
    """Delete one entry of the folder ``parent``, with all below it; nothing there is fine.

    Raises:
        NotRemovedError: Something could not be removed; all else is. Its path is relative to ``parent``.
    """
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            remove_folder(name, parent)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            raise _not_removed(name, error, 1) from error


def remove_folder(
    top: bytes,
    parent: int,
    on_folder: Callable[[bytes], object] | None = None,
    unlink: Callable[[bytes, bytes, int], object] | None = None,
) -> None:
    """Delete one folder in the folder ``parent``, with all below it.

    Args:
        on_folder: Called with each removed folder's path, relative to ``parent``.
        unlink: Takes out what is no folder, given its path, its name and the descriptor of the folder it is in.

    Raises:
        NotRemovedError: As ``remove_entry``.
    """
    removal = _Removal(parent, on_folder, unlink)
    try:
        removal.remove(top)
        removal.tell()
    finally:
        removal.close()


@dataclass(slots=True)
class _Level:
    """A folder on the way down.

    Attributes:
        left: What in it could not be removed.
        is_taken_over: Whether that was tried.
    """

    name: bytes
    left: set[bytes] = field(default_factory=set)
    is_taken_over: bool = False


class _Removal:
    # One descriptor at a time, and back up through "..": a path of 2,000 folders needs neither as many descriptors
    # nor as many calls on the stack. Nobody moves folders here, so ".." is where we came from; but somebody may remove
    # the same tree, and whatever is gone is as good as removed.

    def __init__(
        self,
        parent: int,
        on_folder: Callable[[bytes], object] | None = None,
        unlink: Callable[[bytes, bytes, int], object] | None = None,
        *,
        may_take_over: bool = False,
    ) -> None:
        self._first: tuple[bytes, OSError] | None = None
        self._left_count = 0
        self._parent = parent
        self._folder = os.dup(parent)
        self._on_folder = on_folder
        self._unlink = unlink
        self._trail = [_Level(b"", is_taken_over=not may_take_over)]

    def close(self) -> None:
        os.close(self._folder)

    def remove(self, top: bytes) -> None:
        """Remove one folder in the parent."""
        self._go_down(top)
        while len(self._trail) > 1:
            self._go_on()

    def empty(self) -> None:
        """Remove all that is in the parent."""
        while self._go_on():
            pass

    def tell(self) -> None:
        """Raise what could not be removed, if anything."""
        if self._first is not None:
            path, error = self._first
            raise _not_removed(path, error, self._left_count) from error

    def _go_on(self) -> bool:
        child = self._remove_files()
        if child is not None:
            self._go_down(child)
        elif len(self._trail) > 1:
            self._go_up()
        else:
            return False
        return True

    def _go_down(self, name: bytes) -> None:
        """Remove a folder if it is empty, else enter it; leave one that cannot be removed."""
        try:
            # At once, not only when it is empty: this tells a mount point, and what lies in that is not ours to delete.
            self._attempt(self._rmdir, name)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._enter(name)

    def _enter(self, name: bytes) -> None:
        try:
            self._folder = _step(self._folder, name)
        except FileNotFoundError:
            return
        except PermissionError as error:
            self._leave(name, error)
        else:
            self._trail.append(_Level(name))

    def _go_up(self) -> None:
        level = self._trail.pop()
        try:
            self._folder = _step(self._folder, b"..")
        except PermissionError:  # a folder that may be read, and not passed through
            self._go_anew()
        if level.left:
            self._trail[-1].left.add(level.name)
            return
        with suppress(FileNotFoundError):
            self._attempt(self._rmdir, level.name)

    def _go_anew(self) -> None:
        self._folder, left = os.dup(self._parent), self._folder
        os.close(left)
        for level in self._trail[1:]:
            self._folder = _step(self._folder, level.name)

    def _remove_files(self) -> bytes | None:
        """Delete files from the folder; return one of the folders in it, by chance, or None if no more can be done."""
        left = self._trail[-1].left
        done = False
        while not done and len(left) < _MOST_LEFT:  # a folder that changes meanwhile may leave something out
            done = True
            folders: list[bytes] = []
            with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if name in left:
                        continue
                    done = False
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                    else:
                        with suppress(FileNotFoundError):
                            self._attempt(self._remove_file, name)
                    if len(folders) == _CHOICE or len(left) == _MOST_LEFT:
                        break
            if folders:
                return random.choice(folders)  # noqa: S311 - so that those at work here part ways
        return None

    def _attempt(self, remove: Callable[[bytes], None], name: bytes) -> None:
        """Remove something from the folder, which is made ours if it must be; or leave it."""
        level = self._trail[-1]
        try:
            remove(name)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            if level.is_taken_over or not isinstance(error, PermissionError):
                self._leave(name, error)
                return
            level.is_taken_over = True
            _take_over(self._folder)
            self._attempt(remove, name)

    def _leave(self, name: bytes, error: OSError) -> None:
        self._trail[-1].left.add(name)
        self._left_count += 1
        if self._first is None:
            self._first = self._path(name), error

    def _remove_file(self, name: bytes) -> None:
        if self._unlink is None:
            os.unlink(name, dir_fd=self._folder)
        else:
            self._unlink(self._path(name), name, self._folder)

    def _rmdir(self, name: bytes) -> None:
        os.rmdir(name, dir_fd=self._folder)
        if self._on_folder is not None:
            self._on_folder(self._path(name))

    def _path(self, name: bytes) -> bytes:
        return b"/".join([*(level.name for level in self._trail[1:]), name])


def _step(folder: int, name: bytes) -> int:
    step = _open_folder(name, folder) if name != b".." else os.open(name, FOLDER_FLAGS, dir_fd=folder)
    os.close(folder)
    return step


def _open_folder(name: bytes | str, parent: int | None = None) -> int:
    """Open a folder to remove what is in it, which takes it over if that must be."""
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except PermissionError:
        place = os.open(name, FOLDER_FLAGS | os.O_PATH, dir_fd=parent)
        try:
            _take_over(f"/proc/self/fd/{place}")
        finally:
            os.close(place)
        return os.open(name, FOLDER_FLAGS, dir_fd=parent)


def _take_over(folder: int | str) -> None:
    """Have a folder's owner, or whoever may do as one, be allowed to empty it; as far as this process may."""
    with suppress(OSError):
        os.chown(folder, os.geteuid(), -1)
    is_ours = os.stat(folder).st_uid == os.geteuid()
    with suppress(OSError):
        os.chmod(folder, stat.S_IRWXU if is_ours else _OPEN_TO_ALL)


def _not_removed(path: bytes, error: OSError, count: int) -> NotRemovedError:
    reason = "something is mounted there" if error.errno == errno.EBUSY else os.strerror(error.errno or 0)
    return NotRemovedError(os.fsdecode(path), reason, count)
