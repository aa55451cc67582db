"""What a layer's entries, one after another, make of its directories: opaque marks and extended attributes.

An entry that names an existing directory adds to its extended attributes. A directory is opaque when an opaque whiteout
lies in it, when a whiteout names it, or when it replaces a whiteout. Something that replaces the directory ends all of
that.
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
    """Remembers the directories that are opaque or that several entries name; each step is linear in a path's depth.

    Attributes:
        forgot: Whether there were too many attributes to remember. Then none may be compared.
    """

    def __init__(self) -> None:
        self.forgot = False
        self._root = _Directory()
        self._bytes = 0

    def make_opaque(self, path: bytes) -> None:
        """Note that a directory is opaque."""
        self._directory(path).is_opaque = True

    def add_xattrs(self, path: bytes, xattrs: Mapping[bytes, bytes]) -> None:
        """Add the attributes that an entry gives a directory which a later entry names again."""
        if not xattrs:
            return
        self._bytes += sum(len(key) + len(value) for key, value in xattrs.items())
        self.forgot = self.forgot or self._bytes > _MAX_BYTES
        if not self.forgot:
            directory = self._directory(path)
            directory.xattrs = {**directory.xattrs, **xattrs}

    def xattrs(self, path: bytes, given: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return the attributes of a directory to which its last entry gives ``given``."""
        directory = self._find(path)
        return given if directory is None or not directory.xattrs else {**directory.xattrs, **given}

    def drop(self, path: bytes) -> None:
        """Forget a directory and those below it: something that is no directory replaced it."""
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
