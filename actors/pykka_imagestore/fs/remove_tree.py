"""Removing a directory and all below it, by directory descriptors only, alone or together with others.

What cannot be removed (a privilege is missing, a file is immutable, something is mounted there) keeps nothing else from
being removed, and is reported in the end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import closing, suppress

from pykka_imagestore.errors import NotRemovedError
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.pins import pin_path
from pykka_imagestore.fs.removal_trail import Level, Trail

_CHOICE = 64  # directories to choose from at a time
_MAX_LEFT = 1000  # in one directory, before the rest of it is not tried any more
_MAX_TRIES = 100  # of what somebody else changes under our hands
_IN_THE_WAY = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY, errno.EROFS})  # what the kernel will not have removed
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


class _Removal:
    """One removal. Others may remove the same tree at the same time: what is gone is as good as removed."""

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
        self._trail = Trail(Level(b"", os.dup(parent), is_read=True, is_taken_over=not may_take_over))

    def close(self) -> None:
        self._trail.close()

    def remove(self, top: bytes) -> None:
        """Remove one directory in the parent."""
        self._trail.first.directories.append(top)
        while self._go_on():
            pass

    def empty(self) -> None:
        """Remove all that is in the parent."""
        parent = self._trail.first
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
        level = self._trail.here
        if not level.directories and not level.is_read:
            self._read_on(level)
        if level.directories:
            self._go_down(level.directories.pop())
        elif level.is_read:
            return self._go_up()
        return True

    def _read_on(self, level: Level) -> None:
        """Delete the files that are met in the directory, until some directories were met too."""
        if level.entries is None:
            try:
                level.entries = level.scan()
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
        # In an order of this process' own, so that those at work here part ways; ``random`` would take 0.3 MB.
        level.directories.sort(key=lambda name: hash((os.getpid(), name)))

    def _delete(self, name: bytes) -> None:
        try:
            self._attempt(self._remove_file, name)
        except FileNotFoundError:
            pass
        except IsADirectoryError as error:  # by now
            self._try_again(name, error)

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
            directory = _open_directory(name, self._trail.here.directory)
        except FileNotFoundError:
            return
        except PermissionError as error:
            self._leave(name, error)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            self._try_again(name, error)
        else:
            self._trail.go_down(Level(name, directory))

    def _go_up(self) -> bool:
        if self._trail.is_at_first:
            return False
        level = self._trail.go_up()
        try:
            moved = self._trail.come_back(level.directory)
            if moved is None:
                self._finish(level)
            else:
                self._try_again(moved, OSError(errno.ESTALE, os.strerror(errno.ESTALE)))
        finally:
            level.close()
        return True

    def _finish(self, level: Level) -> None:
        """Remove a directory that we have been in."""
        if level.left:
            self._trail.here.left.add(level.name)
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

    def _try_again(self, name: bytes, error: OSError) -> None:
        """Try a name again that somebody changed meanwhile; one that goes on changing is left in the end."""
        if self._tries == _MAX_TRIES:
            self._leave(name, error)
        else:
            self._tries += 1
            self._trail.here.directories.append(name)

    def _attempt(self, remove: Callable[[bytes], None], name: bytes) -> None:
        """Remove something from the directory, which is made ours if it must be; or leave it."""
        level = self._trail.here
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
        left = self._trail.here.left
        if name in left:
            return
        left.add(name)
        self._left_count += 1
        if self._first is None:
            self._first = self._trail.path(name), error

    def _remove_file(self, name: bytes) -> None:
        if self._unlink is None:
            os.unlink(name, dir_fd=self._trail.here.directory)
        else:
            self._unlink(self._trail.path(name), name, self._trail.here.directory)

    def _rmdir(self, name: bytes) -> None:
        os.rmdir(name, dir_fd=self._trail.here.directory)
        if self._on_directory is not None:
            self._on_directory(self._trail.path(name))


def _holds_more(level: Level) -> bool:
    """Tell whether something is in a directory that was not left there."""
    with closing(level.scan()) as entries:
        return len(level.left) < _MAX_LEFT and any(os.fsencode(entry.name) not in level.left for entry in entries)


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
    """Take ownership of a directory, and the permission to empty it, as far as this process may."""
    place = pin_path(directory)
    with suppress(OSError):
        os.chown(place, os.geteuid(), -1)
    is_ours = os.fstat(directory).st_uid == os.geteuid()
    with suppress(OSError):
        os.chmod(place, stat.S_IRWXU if is_ours else _OPEN_TO_ALL)


def _not_removed(path: bytes, error: OSError, count: int) -> NotRemovedError:
    number = error.errno or 0
    return NotRemovedError(os.fsdecode(path), _REASONS.get(number) or os.strerror(number), count)
