"""What becomes of a layer's directories over the course of its entries: marks and attributes.

An entry that names a directory that is there adds to its extended attributes. A directory is opaque when a whiteout
says so, when one names it, or when it takes the place of one. All of that goes with the directory when something takes
its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pykka_imagestore.fs.attributes import join

_MAX_BYTES = 8 << 20
_NONE: dict[bytes, bytes] = {}


@dataclass(slots=True)
class _Directory:
    below: dict[bytes, _Directory] = field(default_factory=dict)
    is_opaque: bool = False
    xattrs: dict[bytes, bytes] = field(default_factory=lambda: _NONE)


class DirectoryMarks:
    """Follows those directories that there is something to say of; a step takes as long as a path has parts.

    Attributes:
        forgot: Whether there were too many attributes to remember.
    """

    def __init__(self) -> None:
        self.forgot = False
        self._root = _Directory()
        self._bytes = 0

    def make_opaque(self, path: bytes) -> None:
        """Note that a directory is opaque."""
        self._directory(path).is_opaque = True

    def add_xattrs(self, path: bytes, xattrs: Mapping[bytes, bytes]) -> None:
        """Add what an entry gives a directory that a later one names again."""
        if not xattrs:
            return
        self._bytes += sum(len(key) + len(value) for key, value in xattrs.items())
        self.forgot = self.forgot or self._bytes > _MAX_BYTES
        if not self.forgot:
            directory = self._directory(path)
            directory.xattrs = {**directory.xattrs, **xattrs}

    def xattrs(self, path: bytes, given: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return what a directory has with what its last entry gives."""
        directory = self._find(path)
        return given if directory is None or not directory.xattrs else {**directory.xattrs, **given}

    def drop(self, path: bytes) -> None:
        """Forget a directory, and those below it, if there is one: what is there now is none."""
        parent, _, name = path.rpartition(b"/")
        above = self._find(parent)
        if above is not None:
            above.below.pop(name, None)

    def opaque(self) -> Iterator[bytes]:
        """Yield the directories that are opaque."""
        directories = [(b"", self._root)]
        while directories:
            path, directory = directories.pop()
            if directory.is_opaque:
                yield path
            directories += ((join(path, name), below) for name, below in directory.below.items())

    def _find(self, path: bytes) -> _Directory | None:
        directory: _Directory | None = self._root
        for name in path.split(b"/") if path else ():
            if directory is None:
                break
            directory = directory.below.get(name)
        return directory

    def _directory(self, path: bytes) -> _Directory:
        directory = self._root
        for name in path.split(b"/") if path else ():
            directory = directory.below.setdefault(name, _Directory())
        return directory
