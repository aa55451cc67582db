"""Removing a directory and all below it, by directory descriptors only, alone or together with others.

What cannot be removed, for lack of a privilege, an immutable file or a mount point, keeps nothing else from being
removed, and is told in the end.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from pykka_imagestore.errors import NotRemovedError
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.pins import pin_path

_CHOICE = 64
_MAX_OPEN = 16
_MAX_REMEMBERED = 1000  # directories on the way down of which it is known what else is in them
_MAX_LEFT = 1000  # in one directory, before the rest of it is not tried any more
_MAX_TRIES = 100  # of what somebody else changes under our hands
_IN_THE_WAY = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY, errno.EROFS})  # the kernel's word for what is to stay
_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_NO_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP})
_REASONS = {
    errno.EBUSY: "something is mounted there",
    errno.ENOTEMPTY: "somebody goes on filling it",
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ESTALE), "somebody goes on moving it"),
}
_OPEN_TO_ALL = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO


def remove_tree(path: str) -> None:
    """Delete a directory, or whatever is at ``path``; nothing there is fine.

    Follows no symlink, enters no other mount, and takes any depth. Several at once share the work, since each goes its
    own way through the tree; each returns when nothing is left.

    Raises:
        NotRemovedError: Something could not be removed; all else is.
    """
    above, name = os.path.split(path.rstrip("/"))
    try:
        parent = os.open(above or ".", DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        remove_entry(os.fsencode(name), parent)
    except NotRemovedError as error:
        raise error.below(above or ".") from error
    finally:
        os.close(parent)


def empty_directory(directory: int, path: str) -> None:
    """Delete all that is in an open directory, and leave the directory.

    Args:
        path: Where it is, for the error.

    Raises:
        NotRemovedError: Something could not be removed; all else is.
    """
    removal = _Removal(directory, may_take_over=True)
    try:
        removal.empty()
        removal.tell()
    except NotRemovedError as error:
        raise error.below(path) from error
    finally:
        removal.close()


def remove_entry(name: bytes, parent: int) -> None:
    """Delete one entry of the directory ``parent``, with all below it; nothing there is fine.

    Raises:
        NotRemovedError: Something could not be removed; all else is. Its path is relative to ``parent``.
    """
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            remove_directory(name, parent)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            raise _not_removed(name, error, 1) from error


def remove_directory(
    top: bytes,
    parent: int,
    on_directory: Callable[[bytes], object] | None = None,
    unlink: Callable[[bytes, bytes, int], object] | None = None,
) -> None:
    """Delete one directory in the directory ``parent``, with all below it.

    Args:
        on_directory: Called with each removed directory's path, relative to ``parent``.
        unlink: Takes out what is no directory, given its path, its name and the descriptor of the directory it is in.

    Raises:
        NotRemovedError: As ``remove_entry``.
    """
    removal = _Removal(parent, on_directory, unlink)
    try:
        removal.remove(top)
        removal.tell()
    finally:
        removal.close()


class _Entries(Protocol):
    """What ``os.scandir`` returns."""

    def __iter__(self) -> Iterator[os.DirEntry[str]]: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Level:
    """A directory on the way down.

    Attributes:
        directory: Its descriptor; -1 while it is not kept.
        identity: Its device and inode; known while the descriptor is not kept.
        entries: What is still to be read of it.
        is_read: Whether nothing is.
        directories: Those in it that were met and not tried yet.
        left: What in it could not be removed.
        is_taken_over: Whether that was tried.
    """

    name: bytes
    directory: int
    identity: tuple[int, int] | None = None
    entries: _Entries | None = None
    is_read: bool = False
    directories: list[bytes] = field(default_factory=list)
    left: set[bytes] = field(default_factory=set)
    is_taken_over: bool = False

    def close(self) -> None:
        """Let go of the directory; what is still to be read of it will be read from the beginning."""
        if self.entries is not None:
            self.entries.close()
            self.entries = None
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1


class _Removal:
    # The directories where we are and nearest above stay open, so that going up to them asks nobody for the way, and
    # each
    # is read once: to read a directory from the beginning for each that was removed from it takes quadratic time on
    # ext4,
    # which keeps the blocks of what is gone. For directories farther up, which any depth may bring, there are not
    # enough
    # descriptors. Those are reached through "..", which leads wherever somebody moved the directory meanwhile, out of
    # the
    # tree too (GNU rm, CVE-2002-0435): so it counts only if device and inode are those of the directory that we came
    # from.
    # Somebody may remove the same tree: whatever is gone is as good as removed.

    def __init__(
        self,
        parent: int,
        on_directory: Callable[[bytes], object] | None = None,
        unlink: Callable[[bytes, bytes, int], object] | None = None,
        *,
        may_take_over: bool = False,
    ) -> None:
        self._first: tuple[bytes, OSError] | None = None
        self._left_count = self._tries = 0
        self._on_directory = on_directory
        self._unlink = unlink
        self._trail = [_Level(b"", os.dup(parent), is_read=True, is_taken_over=not may_take_over)]

    def close(self) -> None:
        for level in self._trail:
            level.close()

    def remove(self, top: bytes) -> None:
        """Remove one directory in the parent."""
        self._trail[0].directories.append(top)
        while self._go_on():
            pass

    def empty(self) -> None:
        """Remove all that is in the parent."""
        parent = self._trail[0]
        for _ in range(_MAX_TRIES):
            parent.is_read = False
            while self._go_on():
                pass
            if not _holds_more(parent):
                return
        self._leave(b".", OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY)))

    def tell(self) -> None:
        """Raise what could not be removed, if anything."""
        if self._first is not None:
            path, error = self._first
            raise _not_removed(path, error, self._left_count) from error

    def _go_on(self) -> bool:
        level = self._trail[-1]
        if not level.directories and not level.is_read:
            self._read_on(level)
        if level.directories:
            self._go_down(level.directories.pop())
        elif level.is_read:
            return self._go_up()
        return True

    def _read_on(self, level: _Level) -> None:
        """Delete the files that are met in the directory, until some directories were met too."""
        if level.entries is None:
            try:
                level.entries = os.scandir(level.directory)
            except FileNotFoundError:  # it was removed, by somebody else
                level.is_read = True
                return
        for entry in level.entries:
            name = os.fsencode(entry.name)
            if name in level.left:
                continue
            if entry.is_dir(follow_symlinks=False):
                level.directories.append(name)
            else:
                self._delete(name)
            if len(level.directories) == _CHOICE or len(level.left) == _MAX_LEFT:
                break
        else:
            level.entries.close()
            level.entries, level.is_read = None, True
        if len(level.left) == _MAX_LEFT:
            level.is_read = True
        random.shuffle(level.directories)  # so that those at work here part ways

    def _delete(self, name: bytes) -> None:
        try:
            self._attempt(self._remove_file, name)
        except FileNotFoundError:
            pass
        except IsADirectoryError as error:  # by now
            self._try_again(name, error)

    # -- down and up

    def _go_down(self, name: bytes) -> None:
        """Remove a directory if it is empty, else enter it; leave one that cannot be removed."""
        try:
            # At once, not only when it is empty: this tells a mount point, and what lies in that is not ours to delete.
            self._attempt(self._rmdir, name)
        except FileNotFoundError:
            pass
        except NotADirectoryError:  # by now
            self._delete(name)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            self._enter(name)

    def _enter(self, name: bytes) -> None:
        try:
            directory = _open_directory(name, self._trail[-1].directory)
        except FileNotFoundError:
            return
        except PermissionError as error:
            self._leave(name, error)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            self._try_again(name, error)
        else:
            self._trail.append(_Level(name, directory))
            self._let_go()

    def _let_go(self) -> None:
        """Keep few directories open: those nearest to where we are, and the first, where all ways begin."""
        if len(self._trail) <= _MAX_OPEN + 1:
            return
        level = self._trail[-_MAX_OPEN - 1]
        if level.directory < 0:
            return
        level.identity = _identity(level.directory)
        if len(self._trail) > _MAX_REMEMBERED:
            level.directories.clear()
            level.is_read = False
        level.close()

    def _go_up(self) -> bool:
        if len(self._trail) == 1:
            return False
        level = self._trail.pop()
        try:
            if self._come_back(level.directory):
                self._finish(level)
        finally:
            level.close()
        return True

    def _finish(self, level: _Level) -> None:
        """Remove a directory that we have been in."""
        if level.left:
            self._trail[-1].left.add(level.name)
            return
        try:
            self._attempt(self._rmdir, level.name)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (*_NOT_EMPTY, errno.ENOTDIR):
                raise
            _take_over(level.directory)  # so that nobody else can go on filling it
            self._try_again(level.name, error)

    def _come_back(self, below: int) -> bool:
        """Have the trail's last directory open, given the one that we come from; False if it is gone.

        The trail ends then with the last of it that is.
        """
        level = self._trail[-1]
        if level.directory < 0:
            level.directory = _open_same(b"..", below, level.identity)
        if level.directory < 0:
            return self._go_anew()
        return True

    def _go_anew(self) -> bool:
        """Go the whole way down once more: from a directory that was moved, or may not be passed through."""
        directory = os.dup(self._trail[0].directory)
        for depth, level in enumerate(self._trail[1:], 1):
            below = _open_same(level.name, directory, level.identity)
            if below < 0:
                self._turn_back(depth, directory)
                return False
            os.close(directory)
            directory = below
        self._trail[-1].directory = directory
        return True

    def _turn_back(self, depth: int, directory: int) -> None:
        """Go on from ``directory``, since what was below it on the trail is not there any more."""
        moved = self._trail[depth]
        del self._trail[depth:]
        if depth == 1:
            os.close(directory)
        else:
            self._trail[-1].directory = directory
        self._try_again(moved.name, OSError(errno.ESTALE, os.strerror(errno.ESTALE)))

    def _try_again(self, name: bytes, error: OSError) -> None:
        """Look anew at what changed under our hands; whoever goes on changing it does not keep us for ever."""
        if self._tries == _MAX_TRIES:
            self._leave(name, error)
        else:
            self._tries += 1
            self._trail[-1].directories.append(name)

    # -- one name

    def _attempt(self, remove: Callable[[bytes], None], name: bytes) -> None:
        """Remove something from the directory, which is made ours if it must be; or leave it."""
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
            _take_over(level.directory)
            self._attempt(remove, name)

    def _leave(self, name: bytes, error: OSError) -> None:
        if name in self._trail[-1].left:
            return
        self._trail[-1].left.add(name)
        self._left_count += 1
        if self._first is None:
            self._first = self._path(name), error

    def _remove_file(self, name: bytes) -> None:
        if self._unlink is None:
            os.unlink(name, dir_fd=self._trail[-1].directory)
        else:
            self._unlink(self._path(name), name, self._trail[-1].directory)

    def _rmdir(self, name: bytes) -> None:
        os.rmdir(name, dir_fd=self._trail[-1].directory)
        if self._on_directory is not None:
            self._on_directory(self._path(name))

    def _path(self, name: bytes) -> bytes:
        return b"/".join([*(level.name for level in self._trail[1:]), name])


def _holds_more(level: _Level) -> bool:
    """Tell whether something is in a directory that was not left there."""
    with os.scandir(level.directory) as entries:
        return len(level.left) < _MAX_LEFT and any(os.fsencode(entry.name) not in level.left for entry in entries)


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def _open_same(name: bytes, parent: int, identity: tuple[int, int] | None) -> int:
    """Open a directory that we were in before; return -1 if it is another one by now, or cannot be opened."""
    try:
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except OSError:
        return -1
    if _identity(directory) == identity:
        return directory
    os.close(directory)
    return -1


def _open_directory(name: bytes, parent: int) -> int:
    """Open a directory to remove what is in it, which takes it over if that must be."""
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except PermissionError:
        place = os.open(name, DIRECTORY_FLAGS | os.O_PATH, dir_fd=parent)
        try:
            _take_over(place)
            return os.open(".", DIRECTORY_FLAGS, dir_fd=place)  # by its name it could be another one by now
        finally:
            os.close(place)


def _take_over(directory: int) -> None:
    """Have a directory's owner, or whoever may do as one, be allowed to empty it; as far as this process may."""
    place = pin_path(directory)
    with suppress(OSError):
        os.chown(place, os.geteuid(), -1)
    is_ours = os.fstat(directory).st_uid == os.geteuid()
    with suppress(OSError):
        os.chmod(place, stat.S_IRWXU if is_ours else _OPEN_TO_ALL)


def _not_removed(path: bytes, error: OSError, count: int) -> NotRemovedError:
    number = error.errno or 0
    return NotRemovedError(os.fsdecode(path), _REASONS.get(number) or os.strerror(number), count)
