from __future__ import annotations

import os
from pathlib import Path

import pytest

from pykka_imagestore.core.budget import Size
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.fs.tree_size import measure_tree


def blocks(path: Path) -> int:
    return sum(each.lstat().st_blocks * 512 for each in [path, *path.rglob("*")])


def test_size_is_what_all_of_it_takes(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "file").write_bytes(bytes(10_000))
    (tmp_path / "link").symlink_to("/usr")

    assert measure_tree(str(tmp_path)) == Size(blocks(tmp_path), 10)
    assert measure_tree(str(tmp_path), ["a"]).inodes == 4


def test_file_of_several_names_counts_once_and_one_of_others_not(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    tree.mkdir()
    outside.write_bytes(bytes(1 << 20))
    (tree / "layers").hardlink_to(outside)
    (tree / "own").write_bytes(bytes(1 << 16))
    (tree / "again").hardlink_to(tree / "own")

    size = measure_tree(str(tree))

    assert size == Size(tree.stat().st_blocks * 512 + (tree / "own").stat().st_blocks * 512, 2)


@pytest.mark.parametrize("name", ["d", "d" * 250])
def test_deep_tree_is_measured_with_few_descriptors_and_no_path(tmp_path: Path, name: str) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir(name, dir_fd=directory)
        below = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    for number in range(300):
        os.mkdir(str(number), dir_fd=directory)
    os.close(directory)

    try:
        assert measure_tree(str(tmp_path)).inodes == 3301
    finally:
        remove_tree(str(tmp_path / name))  # shutil's goes too deep


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/")

    assert [measure_tree(str(tmp_path / name)) for name in ("none", "file", "link")] == [Size()] * 3
