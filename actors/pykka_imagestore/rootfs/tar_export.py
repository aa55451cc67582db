"""Writes the merged tree of some layers as one tar.

A container may go on writing to its upper directory meanwhile, and whoever is in there may be hostile: a file is looked
at before it is opened, so that no device is used, and nothing is waited for; what is gone when it is its turn is left
out; and of a file that shrinks the rest is zeros, as GNU tar has it. What would take more memory or room than it takes
itself is left out, too, and so is what has the name of a whiteout. A layer is nobody's to write to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pykka_imagestore.core.rootfs import StackLayer
from pykka_imagestore.core.tar.format import BLOCK, HARD_LINK, Entry, SparseMap
from pykka_imagestore.core.tar.sparse import MAX_SEGMENTS
from pykka_imagestore.core.tar.writer import END, has_key, pack_entry
from pykka_imagestore.fs.attributes import join, unset_xattr
from pykka_imagestore.fs.contents import data_of, has_holes
from pykka_imagestore.fs.flags import FILE_FLAGS
from pykka_imagestore.fs.likeness import entry_like, node_like, open_like, xattrs_of
from pykka_imagestore.fs.merged_tree import DIRECTORY, FILE, MergedDirectory, MergedEntry, MergedTree
from pykka_imagestore.fs.pins import pinned
from pykka_imagestore.fs.unset_attributes import UnsetLog
from pykka_imagestore.fs.whiteout_format import WHITEOUT_PREFIX
from pykka_imagestore.fs.write import write_all

_BLOCK_BYTES = 1 << 20
# Also what readlink(2) says of a file, and lseek(2) beyond its end.
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODATA, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ESTALE})
_CHANGED = "changed meanwhile"
_IN_USE = "in use"  # somebody holds a lease of it, fcntl(2)
_HIDES = "a whiteout's name"
_TOO_DEEP = "too long a path"
_HOLES = "too many holes"
_HARD_LINK = "hard link"
_MAX_PATH = 4096  # bytes; PATH_MAX in linux/limits.h
_MAX_NAMES_BYTES = 64 << 20  # of the first names of files that have several
_NAME_BYTES = 250  # what each takes in memory besides
_SMALL_HOLE = 256 << 10  # written as zeros, in a file that has too many holes


class TarExport:
    """Writes a tar to an open file or pipe.

    Args:
        layers: The lowest first.
        may_change: Whether somebody may write to the topmost meanwhile.
        tick: Called now and then with the number of bytes that were written.

    Attributes:
        entries: How many were written so far.
        written: How many bytes.
        left_out: What could not be, and what is not as it was.
    """

    def __init__(
        self, layers: Sequence[StackLayer], target: int, tick: Callable[[int], object], *, may_change: bool = False
    ) -> None:
        self.entries = self.written = 0
        self.left_out = UnsetLog()
        self._layers = layers
        self._target = target
        self._tick = tick
        self._may_change = may_change
        self._buffer = bytearray()
        self._first_names: dict[tuple[int, int], bytes] = {}
        self._names_bytes = 0

    def write(self) -> None:
        """Write all of it.

        Raises:
            OSError: A layer cannot be read, or what is written to failed, or is full, or was closed.
        """
        with MergedTree(self._layers, may_change=self._may_change) as tree:
            for directory in tree.walk(self._fits):
                self._add_directory(tree, directory)
        self._put(END)
        self._flush()

    def _add_directory(self, tree: MergedTree, directory: MergedDirectory) -> None:
        path = directory.path
        with self._left_out_if_gone(path):
            source = tree.open(directory.layers[0], path)
            self._begin(open_like(source), path)
            for entry in directory.entries:
                if entry.kind != DIRECTORY and self._fits(path, entry.name):
                    with self._left_out_if_gone(join(path, entry.name)):
                        self._add(tree.open(entry.layers[0], path), path, entry)

    def _add(self, source: int, parent: bytes, entry: MergedEntry) -> None:
        path = join(parent, entry.name)
        if entry.kind == FILE:
            with self._opened(entry.name, source) as file:
                self._add_file(file, path, entry)
            return
        status = os.stat(entry.name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            self.left_out.add(path, "socket")
        elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            raise _changed()
        elif not self._is_link(path, entry, status):
            self._begin(node_like(status, entry.name, source), path)

    def _add_file(self, file: int, path: bytes, entry: MergedEntry) -> None:
        status = os.stat(file)
        if self._is_link(path, entry, status):
            return
        about = entry_like(status, xattrs_of(file))
        segments = _segments(file, status)
        if segments is not None:
            about.sparse = SparseMap(status.st_size, segments)
            about.size = sum(size for _, size in segments)
        self._begin(about, path)
        for offset, size in segments or ((0, status.st_size),):
            self._add_body(file, path, offset, size)
        self._put(bytes(-about.size % BLOCK))

    def _add_body(self, file: int, path: bytes, offset: int, size: int) -> None:
        while size:
            data = os.pread(file, min(size, _BLOCK_BYTES), offset)
            if not data:
                self.left_out.add(path, _CHANGED)
                data = bytes(min(size, _BLOCK_BYTES))
            self._put(data)
            offset += len(data)
            size -= len(data)

    def _is_link(self, path: bytes, entry: MergedEntry, status: os.stat_result) -> bool:
        """Write a hard link if the same file was written by another name; tell whether that was so."""
        if status.st_nlink == 1:
            return False
        key = entry.layers[0], status.st_ino
        first = self._first_names.get(key)
        if first is None:
            self._note_name(key, path)
            return False
        mode, mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns
        self._begin(Entry(0, HARD_LINK, b"", first, mode, status.st_uid, status.st_gid, 0, mtime, 0, 0, {}), path)
        return True

    def _note_name(self, key: tuple[int, int], path: bytes) -> None:
        if self._names_bytes > _MAX_NAMES_BYTES:
            self.left_out.add(path, _HARD_LINK)
            return
        self._names_bytes += len(path) + _NAME_BYTES
        self._first_names[key] = path

    def _begin(self, about: Entry, path: bytes) -> None:
        about.name = path
        for key in about.xattrs:
            if not has_key(key):
                self.left_out.add(path, unset_xattr(key))
        self._put(pack_entry(about))
        self.entries += 1

    # -- what may change

    def _fits(self, parent: bytes, name: bytes) -> bool:
        """Tell whether what has a name in a directory can be in the tar; it is noted as left out if not."""
        if not self._may_change:
            return True
        if name.startswith(WHITEOUT_PREFIX):
            self.left_out.add(join(parent, name), _HIDES)
        elif len(parent) + len(name) >= _MAX_PATH:
            self.left_out.add(join(parent, name), _TOO_DEEP)
        else:
            return True
        return False

    @contextmanager
    def _opened(self, name: bytes, source: int) -> Iterator[int]:
        if self._may_change:
            with pinned(name, source) as (place, status):
                if not stat.S_ISREG(status.st_mode):
                    raise _changed()
                file = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        else:
            file = os.open(name, FILE_FLAGS, dir_fd=source)
        try:
            yield file
        finally:
            os.close(file)

    @contextmanager
    def _left_out_if_gone(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except _TooManyHolesError:
            self.left_out.add(path, _HOLES)
        except OSError as error:
            if not self._may_change or error.errno not in (*_GONE, errno.EAGAIN):
                raise
            self.left_out.add(path, _IN_USE if error.errno == errno.EAGAIN else _CHANGED)

    # -- out

    def _put(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        write_all(self._target, memoryview(self._buffer))
        self.written += len(self._buffer)
        self._buffer = bytearray()
        self._tick(self.written)


class _TooManyHolesError(Exception):
    """Without them the file is larger by far than what it takes, and a tar that has them cannot be read back."""


def _segments(file: int, status: os.stat_result) -> tuple[tuple[int, int], ...] | None:
    """Return where a file has data, if it has holes; the end of the file ends them, as GNU tar wants it."""
    if not has_holes(status):
        return None
    segments = _data_between_holes(file, status.st_size, 0) or _data_between_holes(file, status.st_size, _SMALL_HOLE)
    if segments is None:
        raise _TooManyHolesError
    if segments == [(0, status.st_size)]:
        return None
    if not segments or sum(segments[-1]) < status.st_size:
        segments.append((status.st_size, 0))
    return tuple(segments)


def _data_between_holes(file: int, size: int, smallest: int) -> list[tuple[int, int]] | None:
    """Return where a file has data between holes of more than so many bytes; None if those are too many."""
    segments: list[tuple[int, int]] = []
    for start, end in data_of(file, size):
        is_near = segments and start - sum(segments[-1]) <= smallest
        begin = segments.pop()[0] if is_near else start
        segments.append((begin, end - begin))
        if len(segments) >= MAX_SEGMENTS - 1:
            return None
    return segments


def _changed() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
