from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from privileges import as_ordinary_user
from trees import make_locked_tree, names

from pykka_imagestore.jobs.tree import empty_folder, remove_folder, remove_tree


@pytest.fixture
def kept(tmp_path):
    """Return a folder beside the tree that must stay as it is."""
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    (kept / "file").write_bytes(b"kept")
    yield kept
    assert names(kept) == [b"file", b"inner"]
    assert (kept / "file").read_bytes() == b"kept"


def make_deep(folder, depth):
    """Make folders in one another, deeper than any path may be."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def test_tree_is_removed_with_all_that_is_in_it(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_bytes(b"x")
    (tree / "a" / "b" / "locked").touch(mode=0)
    os.mkfifo(tree / "pipe")

    remove_tree(str(tree))

    assert names(tmp_path) == []


def test_symlinks_are_removed_and_not_followed(tmp_path, kept):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number, target in enumerate((kept, kept / "file", "../kept", "nowhere", tree)):
        (tree / str(number)).symlink_to(target)

    remove_tree(str(tree))

    assert not tree.exists()


def test_symlink_in_place_of_the_tree_is_removed_alone(tmp_path, kept):
    (tmp_path / "tree").symlink_to(kept)

    remove_tree(str(tmp_path / "tree"))

    assert not os.path.lexists(tmp_path / "tree")


def test_file_in_place_of_the_tree_is_removed(tmp_path):
    (tmp_path / "tree").write_bytes(b"x")

    remove_tree(str(tmp_path / "tree"))

    assert names(tmp_path) == []


@pytest.mark.parametrize("path", ["tree", "missing/tree"])
def test_nothing_there_is_fine(tmp_path, path):
    remove_tree(str(tmp_path / path))

    assert names(tmp_path) == []


def test_two_thousand_levels_take_one_descriptor_and_no_recursion(tmp_path):
    (tmp_path / "tree").mkdir()
    make_deep(tmp_path / "tree", 2000)
    assert sys.getrecursionlimit() < 2000

    remove_tree(str(tmp_path / "tree"))

    assert names(tmp_path) == []


def test_many_files_in_one_folder_are_removed(tmp_path):
    (tmp_path / "tree").mkdir()
    for number in range(3000):
        (tmp_path / "tree" / str(number)).touch()

    remove_tree(str(tmp_path / "tree"))

    assert names(tmp_path) == []


def test_names_that_are_not_text_are_removed(tmp_path):
    os.makedirs(os.fsencode(tmp_path) + b"/tree/\xff\xfe/\n")

    remove_tree(str(tmp_path / "tree"))

    assert names(tmp_path) == []


def test_folder_is_emptied_and_stays(tmp_path):
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "file").touch()
    inode = (tmp_path / "tree").stat().st_ino

    empty_folder(str(tmp_path / "tree"))

    assert names(tmp_path) == [b"tree"]
    assert (tmp_path / "tree").stat().st_ino == inode


def test_each_removed_folder_is_told_by_its_path_deepest_first(tmp_path):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    removed = []
    parent = os.open(tmp_path, os.O_RDONLY)

    remove_folder(b"a", parent, removed.append)

    os.close(parent)
    assert removed == [b"a/b/c", b"a/b", b"a"]


def test_ordinary_user_removes_folders_that_he_locked_himself_out_of(users_folder):
    as_ordinary_user(make_locked_tree, str(users_folder))

    as_ordinary_user(remove_tree, str(users_folder / "tree"))

    assert names(users_folder) == []


@pytest.mark.root
def test_ordinary_user_cannot_remove_what_is_not_his(users_folder):
    (users_folder / "tree").mkdir()
    (users_folder / "tree" / "file").touch()

    with pytest.raises(PermissionError):
        as_ordinary_user(remove_tree, str(users_folder / "tree"))

    assert names(users_folder) == [b"tree", b"tree/file"]


def test_some_that_remove_one_tree_at_once_all_succeed(tmp_path):
    with ThreadPoolExecutor(3) as threads:
        for _ in range(20):
            for number in range(20):
                (tmp_path / "tree" / str(number) / "below").mkdir(parents=True)
                (tmp_path / "tree" / str(number) / "file").touch()

            list(threads.map(remove_tree, [str(tmp_path / "tree")] * 3))

            assert names(tmp_path) == []
