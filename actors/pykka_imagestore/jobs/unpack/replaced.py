"""What became of entries whose work a later entry of the same layer undid: kept, so that the tar can be checked again.

    replaced/paths      a path below rootfs/ and a NUL byte for each such entry; entries of one path in their order
    replaced/<number>   the file that was at the path of that position in ``paths``, from 0, if it was one and not empty

An entry's work is undone when what it made is set aside, or when its directory gets the attributes of a later entry; a
whiteout that made nothing, or a device that could not be made, counts as undone at once. So a path has as many lines as
entries of it were undone, the first ones, and the tree holds what the entry after those made. Implicit directories are
no entry's. A whiteout's path is that of its entry, ``.wh.`` and all. The path of an opaque whiteout says that a
directory was removed, whatever marks it had.
"""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pykka_imagestore.core.paths import REPLACED_PATHS
from pykka_imagestore.fs.attributes import join
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.flags import CREATE_FLAGS, DIRECTORY_FLAGS, FILE_FLAGS
from pykka_imagestore.fs.whiteout_format import OPAQUE_WHITEOUT, is_whiteout, whiteout_of
from pykka_imagestore.fs.write import write_all

if TYPE_CHECKING:
    from pathlib import Path

# A check of the layer has all of them in memory.
MAX_REPLACED = 50_000
MAX_PATHS_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class ReplacedSummary:
    """What a layer's record says of ``replaced/``.

    Attributes:
        is_lost: Whether not all was kept.
        checksum: CRC-32 of the bytes of ``paths``.
    """

    is_lost: bool = False
    checksum: int = 0


class Replaced:
    """Removes from a layer's tree what later entries replace, and keeps what it was.

    Args:
        place: The directory to keep it in, made when it is needed; None to keep nothing.

    Attributes:
        has_followed: Whether an entry's parent was found behind a symlink. What is replaced from then on may be a part
            of the way there, and entries before it would not be found again where they lie.
    """

    def __init__(self, place: str | None = None) -> None:
        self.has_followed = False
        self._is_lost = False
        self._checksum = 0
        self._place = place
        self._directory = self._paths = -1
        self._count = self._paths_bytes = 0

    def summary(self) -> ReplacedSummary:
        """Return what the layer's record says of what was kept so far."""
        return ReplacedSummary(self._is_lost, self._checksum)

    def close(self) -> None:
        """Close the files; the summary stays."""
        for descriptor in (self._directory, self._paths):
            if descriptor >= 0:
                os.close(descriptor)
        self._directory = self._paths = -1

    def lose(self) -> None:
        """Give up: something is undone that is not kept."""
        self._is_lost = True

    def follow(self) -> None:
        """Note that an entry's parent lies behind a symlink."""
        self.has_followed = True

    def set_aside(self, path: bytes, name: bytes, directory: int) -> None:
        """Remove what is no directory and was made at ``path``; it is called ``name`` in ``directory`` by now."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            self._lose_if_followed()
        number = self.note(whiteout_of(path) if is_whiteout(status) else path)
        if number is not None and stat.S_ISREG(status.st_mode) and status.st_size:
            os.rename(name, b"%d" % number, src_dir_fd=directory, dst_dir_fd=self._directory)
        else:
            os.unlink(name, dir_fd=directory)

    def note(self, path: bytes) -> int | None:
        """Note that the work of an entry at ``path`` was undone; return its number, None if that is not kept."""
        if self._place is None:
            return None
        self._paths_bytes += len(path) + 1
        if self._count == MAX_REPLACED or self._paths_bytes > MAX_PATHS_BYTES:
            self._is_lost = True
        if self._is_lost:
            return None
        if self._directory < 0:
            self._open(self._place)
        line = path + b"\0"
        write_all(self._paths, line)
        self._checksum = zlib.crc32(line, self._checksum)
        self._count += 1
        return self._count - 1

    def note_directory(self, path: bytes) -> None:
        """Note that a directory is removed, whichever entry made it."""
        self.note(join(path, OPAQUE_WHITEOUT))
        self._lose_if_followed()

    def _lose_if_followed(self) -> None:
        """Give up where a part of the way is removed by which an entry may have come."""
        if self.has_followed:
            self.lose()

    def _open(self, place: str) -> None:
        make_directory(place, 0o700)
        self._directory = os.open(place, DIRECTORY_FLAGS)
        self._paths = os.open(REPLACED_PATHS, CREATE_FLAGS, 0o600, dir_fd=self._directory)
        os.fchmod(self._paths, 0o600)


class Undone:
    """Reads what a ``Replaced`` kept, for a check that goes through the layer's entries in their order.

    Attributes:
        directory: Descriptor of ``replaced/``; negative if there is none.
        checksum: CRC-32 of the bytes of ``paths``.

    Raises:
        OSError: ``replaced/`` cannot be read.
    """

    def __init__(self, place: Path) -> None:
        self._left: dict[bytes, list[int]] = {}
        self._latest: dict[bytes, int] = {}
        self.directory = -1
        self.checksum = 0
        try:
            self.directory = os.open(place, DIRECTORY_FLAGS)
        except FileNotFoundError:
            return
        try:
            self._read()
        except OSError:
            self.close()
            raise

    def __bool__(self) -> bool:
        """Tell whether any entry's work was undone."""
        return bool(self._left)

    def close(self) -> None:
        """Close the directory."""
        if self.directory >= 0:
            os.close(self.directory)

    def take(self, path: bytes) -> int | None:
        """Return the number of the entry at hand, at ``path``, if its work was undone; None if it lies in the tree."""
        left = self._left.get(path)
        if not left:
            self._latest.pop(path, None)
            return None
        self._latest[path] = left.pop()
        return self._latest[path]

    def find(self, path: bytes) -> int | None:
        """Return the number of the latest entry at ``path``, if its work was undone; None if it lies in the tree."""
        return self._latest.get(path)

    def names(self) -> list[bytes]:
        """Return the names of the files that are kept."""
        directory = self.directory
        return [os.fsencode(name) for name in os.listdir(directory) if name != REPLACED_PATHS] if directory >= 0 else []

    def was_removed(self, path: bytes) -> bool:
        """Tell whether a directory was removed at a path, or on the way there."""
        while path:
            if join(path, OPAQUE_WHITEOUT) in self._left:
                return True
            path = path.rpartition(b"/")[0]
        return False

    def _read(self) -> None:
        descriptor = os.open(REPLACED_PATHS, FILE_FLAGS, dir_fd=self.directory)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_PATHS_BYTES)
        self.checksum = zlib.crc32(data)
        for number, path in reversed([*enumerate(data.split(b"\0")[:-1])]):
            self._left.setdefault(path, []).append(number)
