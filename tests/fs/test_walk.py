"""The walk against a model: a file system of dictionaries, whose root is ``/``."""

from __future__ import annotations

import os
import random
import shutil
import stat
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pykka_imagestore.fs.walk import MAX_OPEN_DIRECTORIES, MAX_PATHS_BYTES, MAX_SYMLINKS, Policy, SymlinkLoopError, Walk

NAMES = ("a", "b", "c")
parts = st.sampled_from([*NAMES, *NAMES, ".", ".."])
targets = st.builds(
    lambda root, way, end: root + "/".join(way) + end,
    st.sampled_from(["", "/"]),
    st.lists(parts, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)
paths = st.lists(st.sampled_from(NAMES), max_size=5).map("/".join)
nodes = st.recursive(
    st.one_of(targets, st.none(), st.just({})),  # a symlink, a file, an empty directory
    lambda below: st.dictionaries(st.sampled_from(NAMES), below, max_size=3),
    max_leaves=12,
)
trees = st.dictionaries(st.sampled_from(NAMES), nodes, max_size=3)


class Model:
    """What a path leads to: a directory's path, or an error's class."""

    def __init__(self, tree):
        self.tree = tree

    def node(self, way):
        node = self.tree
        for name in way:
            node = node[name] if isinstance(node, dict) and name in node else ...
        return node

    def resolve(self, path):
        way, left, hops = [], path.split("/")[::-1], 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del way[-1:]
                continue
            node = self.node([*way, part])
            if isinstance(node, str):
                hops += 1
                if hops > MAX_SYMLINKS:
                    return SymlinkLoopError
                way = [] if node.startswith("/") else way
                left += node.split("/")[::-1]
            else:
                way.append(part)
        if isinstance(self.node(way), dict):
            return "/".join(way)
        return OSError


def make(tree, directory):
    for name, node in tree.items():
        if isinstance(node, dict):
            (directory / name).mkdir()
            make(node, directory / name)
        elif node is None:
            (directory / name).write_bytes(b"")
        else:
            (directory / name).symlink_to(node)


@contextmanager
def made(tree):
    directory = Path(tempfile.mkdtemp())
    try:
        (directory / "root").mkdir()
        make(tree, directory / "root")
        root = os.open(directory / "root", os.O_RDONLY)
        try:
            yield root, directory / "root"
        finally:
            os.close(root)
    finally:
        shutil.rmtree(directory)


def find(walk, path):
    """Return what a walk finds: the path without symlinks, or the class of its error as the model has it."""
    try:
        found = walk.directory(os.fsencode(path))
    except SymlinkLoopError:
        return SymlinkLoopError
    except OSError:
        return OSError
    assert stat.S_ISDIR(os.fstat(found.directory).st_mode)
    return os.fsdecode(found.path)


@given(trees, st.lists(paths, min_size=1, max_size=6), st.booleans())
@example({"a": "b", "b": "a"}, ["a", "a/c"], False)
@example({"a": "b/../b", "b": {"c": "/a"}}, ["a/c/c/c/c", "b/c"], False)
@example({"a": "../../..", "b": {"a": "../../b"}}, ["a/b/a/a", "a/a/a"], True)
@example({"a": "b/c/..", "b": None}, ["a", "a/b"], False)
def test_a_walk_finds_what_a_path_leads_to_and_remembers_nothing_wrong(tree, asked, forgets):
    model = Model(tree)
    with made(tree) as (root, directory):
        walk = Walk(root)
        for path in [*asked, *asked]:
            expected, found = model.resolve(path), find(walk, path)

            assert found == expected
            if isinstance(found, str):
                there = os.fstat(walk.directory(os.fsencode(path)).directory)
                assert os.path.samestat(there, (directory / found).lstat())
            if forgets:
                walk.forget()
        walk.forget()


@given(trees, st.lists(paths, min_size=1, max_size=6))
def test_what_is_remembered_changes_no_answer(tree, asked):
    with made(tree) as (root, _):
        alone = []
        for path in asked:
            walk = Walk(root)
            alone.append(find(walk, path))
            walk.forget()
        walk = Walk(root)

        together = [find(walk, path) for path in asked]

        walk.forget()
    assert together == alone


@given(trees, paths)
def test_a_walk_that_follows_no_symlinks_goes_as_far_as_names_lead(tree, path):
    model = Model(tree)
    expected = path if isinstance(model.node(path.split("/") if path else []), dict) else OSError
    with made(tree) as (root, _):
        walk = Walk(root, follows=False)

        assert find(walk, path) == expected

        walk.forget()


@given(trees, paths)
def test_what_is_missing_is_made_where_symlinks_lead(tree, path):
    model = Model(tree)
    with made(tree) as (root, directory):
        policy = Policy(make=lambda above, _, name: os.mkdir(name, dir_fd=above), make_way=refuse)
        walk = Walk(root, policy)
        try:
            found = walk.directory(os.fsencode(path), make=True)
        except (IsADirectoryError, SymlinkLoopError):
            assert model.resolve(path) in (OSError, SymlinkLoopError)
        else:
            assert os.path.samestat(os.fstat(found.directory), (directory / os.fsdecode(found.path)).lstat())
            walk.forget()
            assert find(walk, path) == os.fsdecode(found.path)
        walk.forget()
        assert sorted(os.listdir(directory.parent)) == ["root"]


def refuse(*_):
    raise IsADirectoryError  # of all errors the one that no walk meets


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    descriptor = os.open(tmp_path / "root", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_as_many_symlinks_are_followed_whatever_is_remembered(tmp_path, root):
    for number in range(MAX_SYMLINKS + 1):
        (tmp_path / "root" / f"s{number}").symlink_to(".")
    long = b"/".join(b"s%d" % number for number in range(MAX_SYMLINKS + 1))
    walk = Walk(root)

    assert walk.directory(long.rpartition(b"/")[0]).symlinks == MAX_SYMLINKS
    for _ in range(2):
        with pytest.raises(SymlinkLoopError):
            walk.directory(long)


def test_symlinks_that_double_end_at_the_fortieth(tmp_path, root):
    (tmp_path / "root" / "s0").symlink_to(".")
    for number in range(60):
        (tmp_path / "root" / f"s{number + 1}").symlink_to(f"s{number}/s{number}")
    visits = []
    walk = Walk(root, Policy(visit=visits.append))

    with pytest.raises(SymlinkLoopError):
        walk.directory(b"s60")

    assert len(visits) < 1000


def test_what_is_remembered_is_bounded(tmp_path, root):
    (tmp_path / "root" / "d").mkdir()
    for name in range(10):
        (tmp_path / "root" / "d" / (str(name) * 200)).symlink_to(".")
    rand = random.Random(7)
    walk, most = Walk(root), 0

    for _ in range(3000):
        walk.make_room()
        walk.directory(b"/".join([b"d", *(b"%d" % rand.randrange(10) * 200 for _ in range(30))]))
        most = max(most, walk.remembered_bytes)

    walk.forget()
    assert most < 2 * MAX_PATHS_BYTES


def test_a_long_way_keeps_few_directories_open(root):
    descriptor = os.dup(root)
    for _ in range(300):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    before = len(os.listdir("/proc/self/fd"))
    walk = Walk(root)

    walk.directory(b"/".join([b"d"] * 300))

    assert len(os.listdir("/proc/self/fd")) - before <= MAX_OPEN_DIRECTORIES
    walk.forget()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_walk_leaves_its_root_open_and_nothing_else(tmp_path, root):
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "s").symlink_to("a")
    (tmp_path / "root" / "f").touch()
    before = len(os.listdir("/proc/self/fd"))
    walk = Walk(root)

    for path in (b"", b"a", b"s/b", b"a/b"):
        walk.directory(path)
    for path in (b"s/f", b"f/x", b"f", b"missing/x"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            walk.directory(path)
    walk.forget()

    assert len(os.listdir("/proc/self/fd")) == before
    assert os.fstat(root)


def test_whoever_exchanges_directories_for_symlinks_leads_no_walk_out(tmp_path, root):
    """CVE-2021-30465's kind: what is a directory when it is looked at is a symlink when it is opened."""
    outside = tmp_path / "outside"
    for directory in (outside, tmp_path / "root" / "a"):
        (directory / "b" / "c").mkdir(parents=True)
    others = {directory.stat().st_ino for directory in (outside, *outside.rglob("*"))}
    ended = time.monotonic() + 2

    def swap():
        a, away = tmp_path / "root" / "a", tmp_path / "root" / "away"
        while time.monotonic() < ended:
            a.rename(away)
            a.symlink_to(random.choice(["../outside", str(outside), "..", "a"]))
            a.unlink()
            away.rename(a)

    swapper = threading.Thread(target=swap)
    swapper.start()
    found = set()
    while time.monotonic() < ended:
        walk = Walk(root)
        with suppress(OSError):
            found.add(os.fstat(walk.directory(b"a/b/c").directory).st_ino)
        walk.forget()
    swapper.join()

    assert found
    assert not found & others
