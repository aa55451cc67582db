"""What a stack of layers means: tars applied one after the other, in dicts; and what a merge of directories shows.

Written from the rules alone: each layer is unpacked on its own; then it is applied to what the layers below made.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st
from support import tars

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.plan_rootfs import FixUps, Kind, Mark
from pykka_imagestore.core.rootfs import Reads

IMPLICIT_MODE = 0o755
MAX_SYMLINKS = 40


class RefusedError(Exception):
    """A layer, or a stack, does not do."""


@dataclass(frozen=True)
class Item:
    """A file, symlink or directory; what is ``None`` is nobody's to say.

    Attributes:
        file: Which file it is a name of; None of directories.
    """

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    content: bytes = b""
    file: object = None


NEW_DIRECTORY = Item("d", IMPLICIT_MODE, (0, 0), 0)
WHITEOUT = Item("w", 0, (0, 0), 0)
Tree = dict[bytes, Item]


@dataclass(frozen=True)
class Step:
    """An entry of a tar: what it makes, where, and a target or content."""

    action: str
    path: bytes
    target: bytes = b""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    mtime: int = 1

    def written(self) -> bytes:
        fields = {"mode": self.mode, "uid": self.owner[0], "gid": self.owner[1], "mtime": self.mtime}
        return _WRITTEN[self.action](self, fields)


_WRITTEN: dict[str, Callable[[Step, dict], bytes]] = {
    "file": lambda step, fields: tars.file(step.path, step.target, **fields),
    "symlink": lambda step, fields: tars.symlink(step.path, step.target, **fields | {"mode": 0o777}),
    "hard_link": lambda step, _: tars.hard_link(step.path, step.target),
    "directory": lambda step, fields: tars.directory(step.path or b"./", **fields),
    "whiteout": lambda step, _: tars.whiteout(step.path),
    "opaque": lambda step, _: tars.opaque(step.path),
}


@dataclass
class Layer:
    """A layer that was unpacked on its own.

    Attributes:
        steps: Its entries; those that are refused are left out.
        links: Hard links to files of lower layers.
    """

    steps: list[Step] = field(default_factory=list)
    items: Tree = field(default_factory=lambda: {b"": NEW_DIRECTORY})
    opaque: set[bytes] = field(default_factory=set)
    implicit: set[bytes] = field(default_factory=lambda: {b""})
    links: dict[bytes, bytes] = field(default_factory=dict)
    name: int = field(default_factory=itertools.count().__next__)

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Layer:
        layer = cls()
        for step in steps:
            layer = layer.after(step)
        return layer

    def after(self, step: Step) -> Layer:
        """Return the layer with one more entry; as it is if that is refused."""
        tried = copy.deepcopy(self)
        try:
            tried._add(step)
        except RefusedError:
            return self
        tried.steps.append(step)
        return tried

    def tar(self) -> bytes:
        return tars.tar(*(step.written() for step in self.steps))

    def _add(self, step: Step) -> None:
        path = step.path
        self._make_parents(path + b"/x" if step.action == "opaque" and path else path)
        there = self.items.get(path)
        if step.action in ("file", "symlink"):
            self._remove(path)
            kind, mode = ("f", step.mode) if step.action == "file" else ("l", 0o777)
            self.items[path] = Item(kind, mode, step.owner, step.mtime, step.target, (self.name, len(self.steps)))
        elif step.action == "hard_link":
            self._link(path, step.target)
        elif step.action == "directory":
            if there is None or there.kind != "d":
                self._remove(path)
                if there == WHITEOUT:
                    self.opaque.add(path)
            self.items[path] = Item("d", step.mode, step.owner, step.mtime)
            self.implicit.discard(path)
        elif step.action == "opaque" or (there is not None and there.kind == "d"):
            self.opaque.add(path)
        elif there is None:
            self.items[path] = WHITEOUT

    def _link(self, path: bytes, target: bytes) -> None:
        parent, _, name = target.rpartition(b"/")
        source = join(self._resolve(parent), name)
        found = self.items.get(source)
        if found is not None and found.kind == "d":
            raise RefusedError
        if found is None or found == WHITEOUT:
            leads_to = self.links.get(source)
            if source == path:
                if leads_to is None:
                    raise RefusedError
                return
            is_hidden = self.items.get(path) == WHITEOUT
            self._remove(path)
            if is_hidden:
                self.items[path] = WHITEOUT
            self.links[path] = leads_to or source
        elif source != path:
            self._remove(path)
            if self.items.get(join(self._resolve(parent), name)) != found:  # what was there led to the target
                raise RefusedError
            self.items[path] = found

    def _resolve(self, path: bytes) -> bytes:
        real, left, count = b"", path.split(b"/")[::-1], 0
        while left:
            part = left.pop()
            if part in (b"", b".", b".."):
                real = real.rpartition(b"/")[0] if part == b".." else real
                continue
            item = self.items.get(join(real, part))
            if item is None or item.kind != "l":
                real = join(real, part)
                continue
            count += 1
            if count > MAX_SYMLINKS:
                raise RefusedError
            real = b"" if item.content.startswith(b"/") else real
            left += item.content.split(b"/")[::-1]
        return real

    def _make_parents(self, path: bytes) -> None:
        parts = path.split(b"/")[:-1]
        for parent in itertools.accumulate(parts, lambda above, name: above + b"/" + name):
            there = self.items.get(parent)
            if parent in self.links or (there not in (None, WHITEOUT) and there.kind != "d"):
                raise RefusedError
            if there in (None, WHITEOUT):
                self.items[parent] = NEW_DIRECTORY
                self.implicit.add(parent)
                if there == WHITEOUT:
                    self.opaque.add(parent)

    def _remove(self, path: bytes) -> None:
        for known in [known for known in self.items if known == path or is_below(known, path)]:
            del self.items[known]
            self.opaque.discard(known)
            self.implicit.discard(known)
        for link in [link for link in self.links if link == path or is_below(link, path)]:
            del self.links[link]


def apply_all(layers: Iterable[Layer]) -> Tree:
    """Return the tree that layers mean, the lowest first.

    Raises:
        RefusedError: A hard link leads to no file of the layers below its own.
    """
    tree: Tree = {}
    for layer in layers:
        tree = _apply(tree, layer)
    return tree


def _apply(below: Tree, layer: Layer) -> Tree:
    linked = {name: _find_linked(below, target) for name, target in layer.links.items()}
    tree = dict(below)
    for path in sorted(layer.items.keys() | linked.keys()):
        item, there = layer.items.get(path, WHITEOUT), tree.get(path)
        if path in linked:
            _drop(tree, path)
            tree[path] = linked[path]
        elif item.kind == "d" and there is not None and there.kind == "d":
            if path in layer.opaque:
                _drop(tree, path)
            tree[path] = there if path in layer.implicit else item
        else:
            _drop(tree, path)
            if item != WHITEOUT:
                tree[path] = item
    return tree


def _find_linked(tree: Tree, target: bytes) -> Item:
    parent, _, name = target.rpartition(b"/")
    real, left, count = b"", parent.split(b"/")[::-1], 0
    while left:
        part = left.pop()
        if part in (b"", b".", b".."):
            real = real.rpartition(b"/")[0] if part == b".." else real
            continue
        item = tree.get(join(real, part))
        count += item is not None and item.kind == "l"
        if item is None or item.kind == "f" or count > MAX_SYMLINKS:
            raise RefusedError
        if item.kind == "d":
            real = join(real, part)
        else:
            real = b"" if item.content.startswith(b"/") else real
            left += item.content.split(b"/")[::-1]
    found = tree.get(join(real, name))
    if found is None or found.kind == "d":
        raise RefusedError
    return found


def _drop(tree: Tree, path: bytes) -> None:
    for known in [known for known in tree if known == path or is_below(known, path)]:
        del tree[known]


def seen(tree: Tree) -> dict[bytes, tuple]:
    """Return a tree as it can be compared: files that are one are named by their first path."""
    first: dict[object, bytes] = {}
    return {
        path: (
            *(item.kind, item.mode, item.owner, item.mtime, item.content),
            None if item.kind == "d" else first.setdefault(item.file, path),
        )
        for path, item in sorted(tree.items())
    }


# -- layers as directories: what lies on disk, and what a merge of that shows


@dataclass
class Directory:
    """A directory tree, of whatever form: whiteouts are items ``w``, or files.

    Attributes:
        marks: Which of its directories are opaque by an extended attribute.
    """

    items: Tree
    marks: set[bytes]
    form: WhiteoutFormat


def as_directory(layer: Layer, form: WhiteoutFormat) -> Directory:
    """Return how a layer lies on disk."""
    if WHITEOUT not in layer.items.values() and not layer.opaque:
        return Directory(dict(layer.items), set(), WhiteoutFormat.NONE)
    if form != WhiteoutFormat.FILES:
        return Directory(dict(layer.items), set(layer.opaque), form)
    items = {path: item for path, item in layer.items.items() if item != WHITEOUT}
    mark = Item("f", 0o600, (0, 0), 0)
    for path in [path for path, item in layer.items.items() if item == WHITEOUT]:
        items[hiding(path)] = replace(mark, file=hiding(path))
    for path in layer.opaque:
        items[join(path, b".wh..wh..opq")] = replace(mark, file=join(path, b".wh..wh..opq"))
    return Directory(items, set(), form)


def merge(directories: Sequence[Directory], reads: Reads) -> Tree:
    """Return what a merge of directories shows, the lowest first: whole directories, name by name."""
    shown: Tree = {}
    left = [(b"", list(range(len(directories) - 1, -1, -1)))]
    while left:
        path, numbers = left.pop()
        opaque = [depth for depth, number in enumerate(numbers) if _is_opaque(directories[number], path, reads)]
        numbers = numbers[: opaque[0] + 1] if opaque else numbers
        shown[path] = directories[numbers[0]].items[path]
        names: dict[bytes, list[int]] = {}
        hidden: set[bytes] = set()
        if reads is not Reads.ANY and path and len(numbers) == 1:
            shown |= _devices_in(directories[numbers[0]], path)
        for number in numbers:
            shows, hides = _read(directories[number], path, reads)
            for name, item in shows.items():
                if name in hidden:
                    continue
                if item.kind == "d":
                    names.setdefault(name, []).append(number)
                elif name not in names:
                    shown[join(path, name)] = item
            hidden |= hides
        left += [(join(path, name), numbers) for name, numbers in names.items()]
    return shown


def _devices_in(directory: Directory, path: bytes) -> Tree:
    """Return what the kernel lists of a directory that it does not merge with another."""
    items = directory.items.items()
    return {below: item for below, item in items if item == WHITEOUT and below.rpartition(b"/")[0] == path}


def _read(directory: Directory, path: bytes, reads: Reads) -> tuple[Tree, set[bytes]]:
    """Return what a directory shows below ``path``, and which names it hides of those below it."""
    shows: Tree = {}
    hides: set[bytes] = set()
    for below, item in directory.items.items():
        parent, _, name = below.rpartition(b"/")
        if not below or parent != path:
            continue
        if reads is Reads.ANY and directory.form == WhiteoutFormat.FILES and name.startswith(b".wh."):
            hides.add(name.removeprefix(b".wh."))
            continue
        if item != WHITEOUT:
            shows[name] = item
        if item.kind != "d":
            hides.add(name)
    return shows, hides


def _is_opaque(directory: Directory, path: bytes, reads: Reads) -> bool:
    if reads is Reads.ANY:
        by_file = {join(path, b".wh..wh..opq"), hiding(path)} & directory.items.keys()
        return path in directory.marks or (directory.form == WhiteoutFormat.FILES and bool(by_file))
    read = {Reads.TRUSTED: WhiteoutFormat.OVERLAY_TRUSTED, Reads.USER: WhiteoutFormat.OVERLAY_USER}[reads]
    return bool(path) and directory.form == read and path in directory.marks


def with_fix_ups(directories: Sequence[Directory], fix_ups: FixUps) -> list[Directory]:
    """Return directories with what a plan says lies on top."""
    if fix_ups.is_empty:
        return [*directories]
    items: Tree = {}
    for fix in fix_ups.directories:
        items[fix.path] = directories[fix.layer].items[fix.path]
    for link in fix_ups.links:
        copied = replace(directories[link.layer].items[link.source], file=("copy", link.layer, link.source))
        items.update(dict.fromkeys(link.names, copied))
    items.update(dict.fromkeys(fix_ups.whiteouts, WHITEOUT))
    return [*directories, Directory(items, set(), WhiteoutFormat.OVERLAY_USER)]


class View:
    """A layer of the model as the plan sees it; counts what it is asked."""

    def __init__(self, layer: Layer, form: WhiteoutFormat) -> None:
        self._layer = layer
        self.directory = as_directory(layer, form)
        self.diff_id = f"sha256:{layer.name:064x}"
        self.whiteouts = self.directory.form
        self.implicit = frozenset(layer.implicit)
        gone = () if form == WhiteoutFormat.FILES else [path for path, item in layer.items.items() if item == WHITEOUT]
        self.hiding = {path.rpartition(b"/")[0] for path in gone}
        self.lower_links = dict(layer.links)
        self.walks = 0

    def kind(self, path: bytes) -> Kind:
        parent = path.rpartition(b"/")[0]
        assert self._layer.items[parent].kind == "d", "every path that is asked about lies in a directory"
        item = self._layer.items.get(path)
        if item is None:
            return Kind.NOTHING
        if item.kind == "d":
            return Kind.OPAQUE if path in self._layer.opaque else Kind.DIRECTORY
        return {"w": Kind.WHITEOUT, "l": Kind.SYMLINK, "f": Kind.OTHER}[item.kind]

    def names(self, path: bytes) -> list[bytes]:
        items = self._layer.items
        return [below.rpartition(b"/")[2] for below in items if below and below.rpartition(b"/")[0] == path]

    def target(self, path: bytes) -> bytes:
        return self._layer.items[path].content

    def same(self, path: bytes) -> list[bytes]:
        file = self._layer.items[path].file
        return [name for name, item in self._layer.items.items() if item.file == file and file is not None]

    def marks(self) -> list[Mark]:
        self.walks += 1
        if self.whiteouts != WhiteoutFormat.FILES:
            return [*map(Mark, self._layer.opaque)]
        gone = [path for path, item in self._layer.items.items() if item == WHITEOUT]
        opaque = [Mark(path, join(path, b".wh..wh..opq")) for path in self._layer.opaque]
        return [*opaque, *(Mark(path, hiding(path)) for path in gone)]


# -- layers at random

NAMES = [b"a", b"b"]
directories = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
# Symlinks have names that are no entry's parent; hard links may lead through them.
symlinks = st.one_of(
    st.sampled_from([b"s", b"t"]), st.tuples(directories, st.sampled_from([b"s", b"t"])).map(b"/".join)
)
targets = st.sampled_from([b"/a", b"b", b"..", b"/", b"../a", b"s", b"/t", b"a/b", b"nowhere"])
files = st.one_of(directories, symlinks)
attributes = {
    "mode": st.sampled_from([0o644, 0o600, 0o755]),
    "owner": st.sampled_from([(0, 0), (1000, 1000)]),
    "mtime": st.integers(1, 5),
}
dir_attributes = attributes | {"mode": st.sampled_from([0o755, 0o1777, 0o700, 0o2775])}
steps = st.one_of(
    st.builds(Step, st.just("file"), files, st.sampled_from([b"", b"x", b"yy"]), **attributes),
    st.builds(Step, st.just("symlink"), symlinks, targets, **attributes),
    st.builds(Step, st.just("directory"), directories | st.just(b""), **dir_attributes),
    st.builds(Step, st.just("whiteout"), files),
    st.builds(Step, st.just("opaque"), directories | st.just(b"")),
    st.builds(Step, st.just("hard_link"), files, files | st.tuples(symlinks, files).map(b"/".join)),
    st.builds(Step, st.just("link to a lower file"), files, st.binary(min_size=1, max_size=1)),
)


def stack_of(layers: Sequence[Sequence[Step]], *, keeps_wrong_links: bool) -> list[Layer]:
    """Return layers of some entries; a link to a lower file leads to one that is there."""
    stack: list[Layer] = []
    tree: Tree = {}
    for steps in layers:
        layer = Layer()
        there = [path for path, item in sorted(tree.items()) if item.kind != "d"]
        for step in steps:
            tried = layer
            if step.action == "link to a lower file" and there:
                tried = layer.after(replace(step, action="hard_link", target=there[step.target[0] % len(there)]))
            elif step.action != "link to a lower file":
                tried = layer.after(step)
            if keeps_wrong_links or fits(tree, tried):
                layer = tried
        stack.append(layer)
        tree = _apply(tree, layer) if fits(tree, layer) else {}
    return stack


def fits(tree: Tree, layer: Layer) -> bool:
    """Tell whether all hard links of a layer to lower files lead to one."""
    try:
        _apply(tree, layer)
    except RefusedError:
        return False
    return True


stacks = st.builds(
    stack_of,
    st.lists(st.lists(steps, max_size=8), min_size=1, max_size=4),
    keeps_wrong_links=st.sampled_from([False] * 7 + [True]),
)
forms = st.sampled_from([WhiteoutFormat.OVERLAY_TRUSTED, WhiteoutFormat.OVERLAY_USER, WhiteoutFormat.FILES])


def is_below(path: bytes, directory: bytes) -> bool:
    return path != directory and (not directory or path.startswith(directory + b"/"))


def join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def hiding(path: bytes) -> bytes:
    parent, _, name = path.rpartition(b"/")
    return join(parent, b".wh." + name)
