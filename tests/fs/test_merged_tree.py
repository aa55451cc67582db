"""The merged tree against a model: layers of dictionaries, applied one after the other."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.privileges import as_ordinary_user, ordinary_users_place

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import StackLayer
from pykka_imagestore.fs.merged_tree import DIRECTORY, FILE, OTHER, MergedTree

FILES = WhiteoutFormat.FILES
ROOTS = [WhiteoutFormat.OVERLAY_TRUSTED, WhiteoutFormat.OVERLAY_USER]
FORMS = [pytest.param(FILES, id="files"), *(pytest.param(form, id=form.name, marks=pytest.mark.root) for form in ROOTS)]
XATTRS = {
    WhiteoutFormat.OVERLAY_TRUSTED: "trusted.overlay.opaque",
    WhiteoutFormat.OVERLAY_USER: "user.overlay.opaque",
}
OPAQUE = "opaque"  # the name of no file: a directory that has it hides what lower layers have in it
GONE = "gone"
KINDS = {"file": FILE, "link": OTHER, "pipe": OTHER}
names = st.sampled_from(["a", "b", "\udcff", "z" * 200])
nodes = st.recursive(
    st.sampled_from(["file", "link", "pipe", GONE]),
    lambda below: st.dictionaries(st.one_of(names, st.just(OPAQUE)), below, max_size=4),
    max_leaves=12,
)
layers = st.dictionaries(names, nodes, max_size=4)


def make(directory: Path, tree: dict, form: WhiteoutFormat) -> None:
    directory.mkdir()
    for name, node in tree.items():
        path = directory / name
        if name == OPAQUE and form == FILES:
            (directory / ".wh..wh..opq").touch()
        elif name == OPAQUE:
            os.setxattr(directory, XATTRS[form], b"y")
        elif isinstance(node, dict):
            make(path, node, form)
        elif node == "file":
            path.touch()
        elif node == "link":
            path.symlink_to("..")
        elif node == "pipe":
            os.mkfifo(path)
        elif form == FILES:
            (directory / f".wh.{name}").touch()
        else:
            os.mknod(path, 0o020000, os.makedev(0, 0))


def stack(directory: Path, trees: list[dict], form: WhiteoutFormat) -> list[StackLayer]:
    for number, tree in enumerate(trees):
        make(directory / str(number), tree, form)
    return [StackLayer(str(directory / str(number)), form) for number in range(len(trees))]


def walked(layers: list[StackLayer]) -> dict[bytes, tuple[int, tuple[int, ...]]]:
    """Return kind and layers of each path, and check that each is found where the walk says."""
    found = {}
    with MergedTree(layers) as tree:
        for directory in tree.walk():
            found[directory.path] = DIRECTORY, directory.layers
            assert [entry.name for entry in directory.entries] == sorted(entry.name for entry in directory.entries)
            for entry in directory.entries:
                os.stat(entry.name, dir_fd=tree.open(entry.layers[0], directory.path), follow_symlinks=False)
                if entry.kind != DIRECTORY:
                    path = b"/".join(filter(None, (directory.path, entry.name)))
                    found[path] = entry.kind, entry.layers
    return found


def modelled(trees: list[dict]) -> dict[bytes, tuple[int, tuple[int, ...]]]:
    found: dict[bytes, tuple[int, tuple[int, ...]]] = {b"": (DIRECTORY, ())}
    for number, tree in enumerate(trees):
        lay_over(found, b"", tree, number)
    return found


def lay_over(found: dict, path: bytes, tree: dict, number: int) -> None:
    if OPAQUE in tree:
        drop(found, path)
        found[path] = DIRECTORY, ()
    found[path] = DIRECTORY, (number, *found[path][1])
    for name, node in tree.items():
        if name == OPAQUE:
            continue
        below = b"/".join(filter(None, (path, os.fsencode(name))))
        if not (isinstance(node, dict) and below in found and found[below][0] == DIRECTORY):
            drop(found, below)
        if isinstance(node, dict):
            found.setdefault(below, (DIRECTORY, ()))
            lay_over(found, below, node, number)
        elif node != GONE:
            found[below] = KINDS[node], (number,)


def drop(found: dict, path: bytes) -> None:
    for key in [key for key in found if key == path or not path or key.startswith(path + b"/")]:
        del found[key]


@pytest.mark.parametrize("form", FORMS)
@given(trees=st.lists(layers, min_size=1, max_size=4))
def test_the_tree_is_what_the_layers_mean_one_after_the_other(form, trees):
    with tempfile.TemporaryDirectory() as directory:
        assert walked(stack(Path(directory), trees, form)) == modelled(trees)


@pytest.mark.root
def test_each_layer_speaks_its_own_form_and_no_other(tmp_path):
    lower = {"a": "file", "b": {"old": "file"}, "c": "file", "d": {"old": "file"}}
    make(tmp_path / "0", lower, FILES)
    make(tmp_path / "1", {"a": GONE, "b": {OPAQUE: GONE}}, WhiteoutFormat.OVERLAY_TRUSTED)
    make(tmp_path / "2", {"c": GONE, "d": {}}, FILES)
    os.setxattr(tmp_path / "2" / "d", XATTRS[WhiteoutFormat.OVERLAY_TRUSTED], b"y")
    (tmp_path / "1" / ".wh.d").touch()
    forms = [FILES, WhiteoutFormat.OVERLAY_TRUSTED, FILES]

    found = walked([StackLayer(str(tmp_path / str(number)), form) for number, form in enumerate(forms)])

    assert found.keys() == {b"", b"b", b"d", b"d/old", b".wh.d"}


def test_whiteout_beside_a_directory_of_its_own_layer_hides_what_lower_ones_have_in_it(tmp_path):
    layers = stack(tmp_path, [{"a": {"old": "file"}}, {"a": {"new": "file"}}], FILES)
    (tmp_path / "1" / ".wh.a").touch()

    assert walked(layers).keys() == {b"", b"a", b"a/new"}


def test_a_deep_tree_of_many_layers_takes_few_descriptors(tmp_path):
    depth, count = 300, 10
    for number in range(count):
        make(tmp_path / str(number), {}, FILES)
        deepen(tmp_path / str(number), depth, f"file{number}")
    layers = [StackLayer(str(tmp_path / str(number)), FILES) for number in range(count)]

    with MergedTree(layers) as tree:
        before, most, entries = len(os.listdir("/proc/self/fd")), 0, []
        for directory in tree.walk():
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
            entries += [entry.name for entry in directory.entries if entry.kind == FILE]
            assert os.fstat(tree.open(0, directory.path)).st_ino

    assert len(entries) == count
    assert most <= 256
    assert len(os.listdir("/proc/self/fd")) == before


def deepen(root: Path, depth: int, name: str) -> None:
    directory = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=directory))
    os.close(directory)


def test_what_became_a_symlink_is_not_followed(tmp_path):
    layers = stack(tmp_path, [{"a": {"b": {}}}], FILES)
    (tmp_path / "elsewhere").mkdir()

    with MergedTree(layers) as tree:
        walk = tree.walk()
        next(walk)
        shutil.rmtree(tmp_path / "0" / "a")
        (tmp_path / "0" / "a").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(NotADirectoryError) as caught:
            next(walk)

    assert caught.value.filename == str(tmp_path / "0" / "a")


@pytest.mark.root
def test_deletions_in_attributes_that_are_not_shown_are_never_overlooked():
    place = Path(tempfile.mkdtemp(dir=ordinary_users_place()))
    try:
        place.chmod(0o755)
        layers = stack(place, [{"a": {"old": "file"}}, {"a": {OPAQUE: GONE}}], WhiteoutFormat.OVERLAY_TRUSTED)

        with pytest.raises(PermissionError, match=r"trusted\.overlay\.opaque, which is shown with CAP_SYS_ADMIN only"):
            as_ordinary_user(walked, layers)
    finally:
        shutil.rmtree(place)
