"""What becomes of a layer's folders over the course of its entries, as long as they are there: marks and attributes.

An entry that names a folder that is there adds to its extended attributes. A folder is opaque when a whiteout says so,
when one names it, or when it takes the place of one. All of that goes with the folder when something takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pykka_imagestore.fs.attributes import join

_MAX_BYTES = 8 << 20
_NONE: dict[bytes, bytes] = {}


@dataclass(slots=True)
class _Folder:
    below: dict[bytes, _Folder] = field(default_factory=dict)
    is_opaque: bool = False
    xattrs: dict[bytes, bytes] = field(default_factory=lambda: _NONE)


class FolderMarks:
    """Follows those folders that there is something to say of; a step takes as long as a path has parts.

    Attributes:
        forgot: Whether there were too many attributes to remember.
    """

    def __init__(self) -> None:
        self.forgot = False
        self._root = _Folder()
        self._bytes = 0

    def make_opaque(self, path: bytes) -> None:
        """Note that a folder is opaque."""
        self._folder(path).is_opaque = True

    def add_xattrs(self, path: bytes, xattrs: Mapping[bytes, bytes]) -> None:
        """Add what an entry gives a folder that a later one names again."""
        if not xattrs:
            return
        self._bytes += sum(len(key) + len(value) for key, value in xattrs.items())
        self.forgot = self.forgot or self._bytes > _MAX_BYTES
        if not self.forgot:
            folder = self._folder(path)
            folder.xattrs = {**folder.xattrs, **xattrs}

    def xattrs(self, path: bytes, given: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return what a folder has with what its last entry gives."""
        folder = self._find(path)
        return given if folder is None or not folder.xattrs else {**folder.xattrs, **given}

    def drop(self, path: bytes) -> None:
        """Forget a folder, and those below it, if there is one: what is there now is none."""
        parent, _, name = path.rpartition(b"/")
        above = self._find(parent)
        if above is not None:
            above.below.pop(name, None)

    def opaque(self) -> Iterator[bytes]:
        """Yield the folders that are opaque."""
        folders = [(b"", self._root)]
        while folders:
            path, folder = folders.pop()
            if folder.is_opaque:
                yield path
            folders += ((join(path, name), below) for name, below in folder.below.items())

    def _find(self, path: bytes) -> _Folder | None:
        folder: _Folder | None = self._root
        for name in path.split(b"/") if path else ():
            if folder is None:
                break
            folder = folder.below.get(name)
        return folder

    def _folder(self, path: bytes) -> _Folder:
        folder = self._root
        for name in path.split(b"/") if path else ():
            folder = folder.below.setdefault(name, _Folder())
        return folder
