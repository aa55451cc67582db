"""Decide what a stack of layers needs on top to mean what its tars say, applied one after the other. Pure.

Each layer was unpacked on its own. Merged as directories, the highest first, as an overlay does it, they would mean the
same but for five things, which a small layer on top, the fix-ups, puts right:

    whiteouts      in a form that who merges them does not read: what they hide is hidden anew
    directories    that a layer only implies: each gets the attributes that the layers below gave it
    hard links     to files of layers below: each such file is there once, with all its names
    lone devices   that hide something where nothing is merged: the kernel lists them there, and finds nothing of that
                   name; it is given an empty directory to merge
    opaque roots   which the kernel never reads: what lower layers have in theirs is hidden anew

A whiteout, an opaque mark and a hard link to no file of its own layer speak of the layers below, whatever the order of
a layer's entries. A directory that is implied where its own layer hides what is in it keeps the attributes from below
as well. Only what records name is looked up; a layer is walked only for whiteouts that are not read, and for the other
names of a file that a hard link leads to.

Spec:
    OCI image-spec v1.1, layer.md, "Applying Changesets" and "Whiteouts"; Linux, filesystems/overlayfs.rst.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import DEVICES_FOR, Reads
from pykka_imagestore.errors import StackError
from pykka_imagestore.text import shown

MAX_SYMLINKS = 40  # as the kernel has it


class Kind(Enum):
    """What a layer has at a path."""

    NOTHING = auto()
    WHITEOUT = auto()
    DIRECTORY = auto()
    OPAQUE = auto()  # a directory that hides what lower layers have in it
    SYMLINK = auto()
    OTHER = auto()
    LINK = auto()  # a hard link to a file of the layers below; it lies in the record


class Mark(NamedTuple):
    """A whiteout, or the mark of an opaque directory.

    Attributes:
        path: What it hides, or the directory that is opaque.
        file: The file that says so; None if it is none.
    """

    path: bytes
    file: bytes | None = None


class LayerView(Protocol):
    """A layer that was unpacked on its own. Paths are those of its root; the root's own is empty.

    Every ``path`` that is asked about lies in a directory of the layer, which no symlink leads to.

    Attributes:
        diff_id: Which layer it is.
        whiteouts: How deletions are kept in it.
        implicit: Its directories that no entry names, the root among them.
        hiding: Its directories that have whiteouts which are devices; perhaps others.
        lower_links: Its hard links to files of the layers below: where each leads to.
    """

    @property
    def diff_id(self) -> str: ...
    @property
    def whiteouts(self) -> WhiteoutFormat: ...
    @property
    def implicit(self) -> Collection[bytes]: ...
    @property
    def hiding(self) -> Collection[bytes]: ...
    @property
    def lower_links(self) -> Mapping[bytes, bytes]: ...

    def kind(self, path: bytes) -> Kind:
        """Return what it has there, by its own form of whiteouts; never LINK."""

    def names(self, path: bytes) -> Iterable[bytes]:
        """Return the names in a directory, but not those of whiteouts that are files."""

    def target(self, path: bytes) -> bytes:
        """Return where a symlink leads to."""

    def same(self, path: bytes) -> Collection[bytes]:
        """Return all paths of the file that is there, which is no directory."""

    def marks(self) -> Iterable[Mark]:
        """Return all that it hides; of what is a device, the opaque directories suffice."""


@dataclass(frozen=True, slots=True)
class FixDirectory:
    """A directory among the fix-ups.

    Attributes:
        path: Its path below the root.
        layer: The position of the layer, from 0, whose directory at that path it gets its attributes from.
    """

    path: bytes
    layer: int


@dataclass(frozen=True, slots=True)
class FixLink:
    """A file among the fix-ups: a copy, with all the names that it has in the merged tree.

    Attributes:
        layer: The position of the layer that has the file.
        source: Its path there.
        names: Sorted.
    """

    layer: int
    source: bytes
    names: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FixUps:
    """What a stack needs on top. Directories come before what is in them.

    Attributes:
        directories: All that the others lie in, too, the root first.
        whiteouts: Paths.
    """

    directories: tuple[FixDirectory, ...] = ()
    links: tuple[FixLink, ...] = ()
    whiteouts: tuple[bytes, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the layers mean what they say without any."""
        return not self.directories


def plan_rootfs(layers: Sequence[LayerView], reads: Reads) -> FixUps:
    """Return what a stack of layers needs on top.

    Args:
        layers: The lowest first.
        reads: Which whiteouts those read who merge the layers.

    Raises:
        StackError: A hard link leads to nothing that a layer below has.
    """
    meant, shown = _Merge(layers), _Merge(layers, reads)
    links = _Links(meant)
    top = len(layers) - 1
    fix_links = tuple(links.visible(top))
    whiteouts = sorted(_find_wrong(meant, shown))
    implied = {path for view in layers for path in view.implicit}
    paths = {path for path in implied if meant.needs_attributes(path, top)}
    if reads is not Reads.ANY:
        paths.update(_find_lone(meant, shown))
    for path in (*paths, *whiteouts, *(name for link in fix_links for name in link.names)):
        paths.update(_ancestors(path))
    directories = (FixDirectory(path, meant.attributes_of(path, top)) for path in sorted(paths))
    return FixUps(tuple(directories), fix_links, tuple(whiteouts))


class _Place(NamedTuple):
    """What a merged tree has at a path.

    Attributes:
        layer: Position of the highest layer that has it.
        directories: Positions of all layers whose directories are merged there, the highest first.
    """

    kind: Kind
    layer: int = -1
    directories: tuple[int, ...] = ()

    @property
    def is_directory(self) -> bool:
        return self.kind is Kind.DIRECTORY


_NOWHERE = _Place(Kind.NOTHING)


class _Origin(NamedTuple):
    """The file that a hard link leads to: the layer that has it, and its path there."""

    layer: int
    path: bytes


class _Merge:
    """The tree that the lowest layers are merged to.

    Args:
        reads: Which whiteouts are read; None to mean what the layers say, hard links to lower files included.
    """

    def __init__(self, layers: Sequence[LayerView], reads: Reads | None = None) -> None:
        self.layers = layers
        self._reads = reads
        self._places: dict[tuple[bytes, int], _Place] = {}
        self._kinds: dict[tuple[int, bytes], Kind] = {}

    def find(self, path: bytes, top: int) -> _Place:
        """Return what is at a path, whose symlinks are not followed, in the merge of the layers up to ``top``."""
        missing, key = [], path
        while (key, top) not in self._places:
            missing.append(key)
            if not key:
                break
            key = _parent(key)
        for key in reversed(missing):
            above = self._places[_parent(key), top].directories if key else range(top, -1, -1)
            self._places[key, top] = self._merge(key, above)
        return self._places[path, top]

    def attributes_of(self, path: bytes, top: int) -> int:
        """Return the layer that gives a directory its attributes: the highest, unless one below it names it.

        Those that layers only imply are all alike.
        """
        merged = self.find(path, top).directories
        highest = merged[0]
        # With another layer below it in the same merge, one hides nothing of that: no need to merge once more for each.
        layer = next((layer for layer in merged if path not in self.layers[layer].implicit), merged[-1])
        while path in self.layers[layer].implicit:
            is_new = path and len(self.find(_parent(path), layer).directories) == 1  # what is below is hidden there
            if is_new or not layer or not self.find(path, layer - 1).is_directory:
                return highest
            layer = self.find(path, layer - 1).layer
        return layer

    def needs_attributes(self, path: bytes, top: int) -> bool:
        """Tell whether a directory is there that gets its attributes from another layer than the highest."""
        place = self.find(path, top)
        return place.is_directory and self.attributes_of(path, top) != place.layer

    def is_read(self, layer: int) -> bool:
        """Tell whether the whiteouts of a layer are read."""
        return self._reads is None or _is_read(self.layers[layer].whiteouts, self._reads)

    def _merge(self, path: bytes, above: Iterable[int]) -> _Place:
        """Return what is at a path in directories of these layers, the highest first."""
        directories: list[int] = []
        for layer in above:
            kind = self._kinds.get((layer, path))  # of many layers, each is asked for once for each above it
            if kind is None:
                kind = self._kinds[layer, path] = self._kind(layer, path)
            if kind is Kind.NOTHING:
                continue
            if kind not in (Kind.DIRECTORY, Kind.OPAQUE):
                if kind is not Kind.WHITEOUT and not directories:
                    return _Place(kind, layer)
                break
            directories.append(layer)
            if kind is Kind.OPAQUE:
                break
        return _Place(Kind.DIRECTORY, directories[0], tuple(directories)) if directories else _NOWHERE

    def _kind(self, layer: int, path: bytes) -> Kind:
        view = self.layers[layer]
        if self._reads is None:
            return Kind.LINK if path in view.lower_links else view.kind(path)
        kind = view.kind(path)
        if not path and self._reads is not Reads.ANY:
            return Kind.DIRECTORY  # the kernel does not look for marks there
        if self.is_read(layer):
            return kind
        if kind is Kind.WHITEOUT and view.whiteouts == WhiteoutFormat.FILES:
            return Kind.NOTHING
        return Kind.DIRECTORY if kind is Kind.OPAQUE else kind


class _Links:
    """The hard links of a stack that lead to files of lower layers.

    Raises:
        StackError: One leads to nothing that a layer below has.
    """

    def __init__(self, meant: _Merge) -> None:
        self._meant = meant
        self._layers = meant.layers
        self._origins: dict[tuple[int, bytes], _Origin] = {}
        for layer, view in enumerate(self._layers):  # the lowest first: what a link leads to may be one
            for name in sorted(view.lower_links):
                self._origins[layer, name] = self._resolve(layer, name, view.lower_links[name])

    def visible(self, top: int) -> Iterator[FixLink]:
        """Yield the files that links lead to, each with all names that it has in the merged tree."""
        groups: dict[_Origin, set[bytes]] = {}
        for (layer, name), origin in self._origins.items():
            if self._meant.find(name, top)[:2] == (Kind.LINK, layer):
                groups.setdefault(origin, set()).add(name)
        merged: dict[_Origin, set[bytes]] = {}  # by the first of the names that one file has in its layer
        for (layer, path), names in groups.items():
            same = self._layers[layer].same(path)
            there = merged.setdefault(_Origin(layer, min(same)), set())
            there.update(names, (other for other in same if self._meant.find(other, top).layer == layer))
        for origin in sorted(merged):
            yield FixLink(*origin, tuple(sorted(merged[origin])))

    def _resolve(self, layer: int, name: bytes, target: bytes) -> _Origin:
        """Return what the layers below one have where its link leads to."""
        link = f"has a hard link {shown(name)} to {shown(target)}"
        parent, _, last = target.rpartition(b"/")
        real = self._real(parent, layer - 1) if layer and last else None
        if real is None:
            raise self._error(layer, f"{link}, which no layer below it has")
        path = _join(real, last)
        place = self._meant.find(path, layer - 1)
        if place.is_directory:
            raise self._error(layer, f"{link}, which is a directory of the layers below it")
        if place.kind is Kind.NOTHING:
            raise self._error(layer, f"{link}, which no layer below it has")
        return self._origin(place.layer, path)

    def _real(self, path: bytes, top: int) -> bytes | None:
        """Return a directory's path without symlinks, in a merged tree whose root is ``/``; None if it is none."""
        real, left, symlinks = b"", path.split(b"/")[::-1], 0
        while left:
            part = left.pop()
            if part in (b"", b".", b".."):
                real = _parent(real) if part == b".." else real
                continue
            below = _join(real, part)
            place = self._meant.find(below, top)
            if place.is_directory:
                real = below
                continue
            target, symlinks = self._target(place, below), symlinks + 1
            if target is None or symlinks > MAX_SYMLINKS:
                return None
            real = b"" if target.startswith(b"/") else real
            left += target.split(b"/")[::-1]
        return real

    def _target(self, place: _Place, path: bytes) -> bytes | None:
        """Return where a symlink leads to; None if there is none."""
        if place.kind is Kind.NOTHING:
            return None
        origin = self._origin(place.layer, path)
        view = self._layers[origin.layer]
        return view.target(origin.path) if view.kind(origin.path) is Kind.SYMLINK else None

    def _origin(self, layer: int, path: bytes) -> _Origin:
        """Return what a layer has at a path; of a hard link, what it leads to."""
        return self._origins.get((layer, path)) or _Origin(layer, path)

    def _error(self, layer: int, reason: str) -> StackError:
        return StackError(self._layers[layer].diff_id, reason)


def _find_lone(meant: _Merge, shown: _Merge) -> Iterator[bytes]:
    """Yield the directories whose devices an overlay would list, since it merges nothing with them.

    The root is always merged. A layer that comes twice is not merged with itself: an overlay takes it once.
    """
    top = len(meant.layers) - 1
    for view in meant.layers:
        for path in filter(None, view.hiding):
            merged = {meant.layers[layer].diff_id for layer in shown.find(path, top).directories}
            if merged == {view.diff_id} and meant.find(path, top).is_directory:
                yield path


def _find_wrong(meant: _Merge, shown: _Merge) -> set[bytes]:
    """Return the paths of what a merge shows and the layers do not mean, but nothing below another one."""
    top, wrong = len(meant.layers) - 1, set[bytes]()
    looked: set[bytes] = set()
    for layer, mark in _find_marks(shown):
        left = [mark.path]
        if mark.file is not None and layer in shown.find(_parent(mark.file), top).directories:
            left.append(mark.file)
        while left:
            path = left.pop()
            if path in looked or (path and not meant.find(_parent(path), top).is_directory):
                continue  # what it lies in is wrong itself, or a hard link hides it
            looked.add(path)
            there, means = shown.find(path, top), meant.find(path, top)
            if path == mark.file or (means.kind is Kind.NOTHING and there.kind is not Kind.NOTHING):
                wrong.add(path)
            elif means.is_directory:
                for other in set(there.directories).difference(means.directories):
                    left += (_join(path, name) for name in meant.layers[other].names(path))
    return wrong


def _find_marks(shown: _Merge) -> Iterator[tuple[int, Mark]]:
    """Yield what layers hide and a merge does not read."""
    for layer, view in enumerate(shown.layers):
        for name in view.lower_links:
            yield layer, Mark(name)  # a directory of a lower layer would be merged with that of a higher one
        if not shown.is_read(layer):
            yield from ((layer, mark) for mark in view.marks())
        elif view.whiteouts != WhiteoutFormat.NONE and view.kind(b"") is Kind.OPAQUE:
            yield layer, Mark(b"")


def _is_read(form: WhiteoutFormat, reads: Reads) -> bool:
    return form == WhiteoutFormat.NONE or reads is Reads.ANY or form == DEVICES_FOR[reads]


def _ancestors(path: bytes) -> Iterator[bytes]:
    while path:
        path = _parent(path)
        yield path


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name
