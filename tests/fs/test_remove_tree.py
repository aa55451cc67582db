from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.privileges import as_ordinary_user, immutable, with_capabilities, with_own_mounts, with_umask
from support.trees import make_locked_tree, names

from pykka_imagestore.errors import NotRemovedError
from pykka_imagestore.fs.remove_tree import empty_directory, remove_directory, remove_tree


@pytest.fixture
def kept(tmp_path):
    """Return a directory beside the tree that must stay as it is."""
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    (kept / "file").write_bytes(b"kept")
    yield kept
    assert names(kept) == [b"file", b"inner"]
    assert (kept / "file").read_bytes() == b"kept"


def make_deep(directory, depth):
    """Make directories in one another, deeper than any path may be."""
    descriptor = os.open(directory, os.O_RDONLY)
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


def remove_with_few_descriptors(tree: str) -> None:
    """Remove a tree while 40 more descriptors may be opened."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40,) * 2)
    assert sys.getrecursionlimit() < 2000
    remove_tree(tree)


def test_two_thousand_levels_take_few_descriptors_and_no_recursion(users_directory):
    (users_directory / "tree").mkdir()
    make_deep(users_directory / "tree", 2000)

    with_umask(0o022, remove_with_few_descriptors, str(users_directory / "tree"))

    assert names(users_directory) == []


def test_many_files_in_one_directory_are_removed(tmp_path):
    (tmp_path / "tree").mkdir()
    for number in range(3000):
        (tmp_path / "tree" / str(number)).touch()

    remove_tree(str(tmp_path / "tree"))

    assert names(tmp_path) == []


def test_names_that_are_not_text_are_removed(tmp_path):
    os.makedirs(os.fsencode(tmp_path) + b"/tree/\xff\xfe/\n")

    remove_tree(str(tmp_path / "tree"))

    assert names(tmp_path) == []


def empty(path):
    directory = os.open(path, os.O_RDONLY)
    try:
        empty_directory(directory, str(path))
    finally:
        os.close(directory)


def test_directory_is_emptied_and_stays(tmp_path):
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "file").touch()
    inode = (tmp_path / "tree").stat().st_ino

    empty(tmp_path / "tree")

    assert names(tmp_path) == [b"tree"]
    assert (tmp_path / "tree").stat().st_ino == inode


def test_each_removed_directory_is_told_by_its_path_deepest_first(tmp_path):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    removed = []
    parent = os.open(tmp_path, os.O_RDONLY)

    remove_directory(b"a", parent, removed.append)

    os.close(parent)
    assert removed == [b"a/b/c", b"a/b", b"a"]


def test_ordinary_user_removes_directories_that_he_locked_himself_out_of(users_directory):
    as_ordinary_user(make_locked_tree, str(users_directory))

    as_ordinary_user(remove_tree, str(users_directory / "tree"))

    assert names(users_directory) == []


@pytest.mark.root
def test_ordinary_user_cannot_remove_what_is_not_his(users_directory):
    (users_directory / "tree").mkdir()
    (users_directory / "tree" / "file").touch()

    with pytest.raises(NotRemovedError, match=r"tree/file could not be removed: Permission denied\. All else"):
        as_ordinary_user(remove_tree, str(users_directory / "tree"))

    assert names(users_directory) == [b"tree", b"tree/file"]


def test_some_that_remove_one_tree_at_once_all_succeed(tmp_path):
    with ThreadPoolExecutor(3) as threads:
        for _ in range(20):
            for number in range(20):
                (tmp_path / "tree" / str(number) / "below").mkdir(parents=True)
                (tmp_path / "tree" / str(number) / "file").touch()

            list(threads.map(remove_tree, [str(tmp_path / "tree")] * 3))

            assert names(tmp_path) == []


@pytest.mark.root
def test_what_cannot_be_removed_is_told_and_all_else_is_removed(tmp_path):
    tree = tmp_path / "tree"
    for name in ("a/b/c", "d", "e"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
        (tree / name / "other").touch()

    with (
        immutable(tree / "a" / "b" / "c" / "file"),
        immutable(tree / "d"),
        pytest.raises(NotRemovedError) as caught,
    ):
        remove_tree(str(tree))

    assert names(tmp_path) == [
        *(b"tree", b"tree/a", b"tree/a/b", b"tree/a/b/c", b"tree/a/b/c/file"),
        *(b"tree/d", b"tree/d/file", b"tree/d/other"),
    ]
    assert caught.value.count == 2  # a directory is one, with what is in it
    assert os.path.exists(caught.value.path)
    assert "could not be removed: Operation not permitted, and 1 more. All else" in str(caught.value)


@pytest.mark.root
def test_directory_is_emptied_of_all_that_can_be_removed(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()

    said = rf"^{tmp_path}/b could not be removed: Operation not permitted\. All"
    with immutable(tmp_path / "b"), pytest.raises(NotRemovedError, match=said):
        empty(tmp_path)

    assert names(tmp_path) == [b"b"]


@pytest.mark.root
def test_some_thousand_files_that_cannot_be_removed_end_the_work(users_directory):
    (users_directory / "tree").mkdir(mode=0o755)
    for number in range(3000):
        (users_directory / "tree" / str(number)).touch()

    with pytest.raises(NotRemovedError, match=r"Permission denied, and 999 more"):
        as_ordinary_user(remove_tree, str(users_directory / "tree"))


def remove_beside_mounts(directory: str) -> str:
    """Mount what must stay into a tree, and remove that."""
    for kind in ("--bind", "--rbind"):
        subprocess.run(["mount", kind, f"{directory}/kept", f"{directory}/tree/a/{kind}"], check=True)
    subprocess.run(["mount", "--bind", f"{directory}/kept/file", f"{directory}/tree/file"], check=True)
    try:
        remove_tree(f"{directory}/tree")
    except NotRemovedError as error:
        return str(error)
    return ""


@pytest.mark.root
@pytest.mark.usefixtures("kept")
def test_mount_below_is_told_and_what_lies_in_it_is_not_touched(tmp_path):
    for name in ("--bind", "--rbind", "other"):
        (tmp_path / "tree" / "a" / name).mkdir(parents=True)
    (tmp_path / "tree" / "file").touch()
    (tmp_path / "tree" / "a" / "file").touch()

    said = with_own_mounts(remove_beside_mounts, str(tmp_path))

    assert "could not be removed: something is mounted there, and 2 more. All else there was removed" in said
    assert names(tmp_path / "tree") == [b"a", b"a/--bind", b"a/--rbind", b"file"]


@pytest.mark.root
@pytest.mark.parametrize(
    "bounds", ["-dac_override,-dac_read_search", *(f"-all,+{one}" for one in ("chown", "fowner", "dac_override"))]
)
def test_one_privilege_is_enough_to_remove_what_is_anothers(users_directory, bounds):
    as_ordinary_user(make_locked_tree, str(users_directory))
    os.chown(users_directory, 0, 0)

    with_capabilities(bounds, remove_tree, str(users_directory / "tree"))

    assert names(users_directory) == []


@pytest.mark.root
def test_directory_that_may_be_read_and_not_passed_is_left(users_directory):
    for name in ("tree/a/b", "tree/c"):
        (users_directory / name).mkdir(parents=True)
    (users_directory / "tree" / "a").chmod(0o744)
    for name in ("tree", "tree/c"):
        os.chown(users_directory / name, 65534, 65534)

    with pytest.raises(NotRemovedError, match=r"tree/a/b could not be removed: Permission denied\. "):
        as_ordinary_user(remove_tree, str(users_directory / "tree"))

    assert names(users_directory) == [b"tree", b"tree/a", b"tree/a/b"]


# -- how often a directory is read


def scans_of_removal(tree: str) -> int:
    """Remove a tree; return how often a directory was read from its beginning."""
    scans = []
    sys.addaudithook(lambda event, _: scans.append(event) if event == "os.scandir" else None)
    remove_tree(tree)
    return len(scans)


@pytest.mark.parametrize("below", ["", "a", "a/b/c"])
def test_a_directory_of_many_directories_is_read_once(users_directory, below):
    for number in range(1000):
        (users_directory / "tree" / str(number) / below).mkdir(parents=True)
        (users_directory / "tree" / str(number) / below / "file").touch()
    directories = sum(1 for _ in os.walk(users_directory / "tree"))

    scans = with_umask(0o022, scans_of_removal, str(users_directory / "tree"))

    assert scans == directories
    assert names(users_directory) == []


def test_a_directory_of_many_deep_directories_is_read_a_few_times(users_directory):
    deep = "/".join(["d"] * 40)
    for number in range(300):
        (users_directory / "tree" / str(number) / deep).mkdir(parents=True)
    directories = 1 + 300 * 41

    scans = with_umask(0o022, scans_of_removal, str(users_directory / "tree"))

    assert scans < directories * 1.01
    assert names(users_directory) == []


# -- somebody else who moves what is being removed

DEPTHS = (2, 6, 30, 60)


@pytest.fixture
def beside(tmp_path):
    """Return a directory outside of the tree, to move something into; those above it hold what must stay.

    It lies deeper than any tree here has directories: so a removal that went wrong, up through "..", would meet what
    must stay, and not get past it.
    """
    ways = [tmp_path / "beside" / "/".join(["d"] * depth) for depth in range(max(DEPTHS) + 2)]
    ways[-1].mkdir(parents=True)
    for directory in ways[:-1]:
        (directory / "precious").write_bytes(b"stays")
        (directory / "full").mkdir()
        (directory / "full" / "precious").write_bytes(b"stays")
    yield ways[-1]
    for directory in ways[:-1]:
        assert (directory / "precious").read_bytes() == b"stays"
        assert (directory / "full" / "precious").read_bytes() == b"stays"


class Mover:
    """Does something, once, when the first file is met that is about to be removed."""

    def __init__(self, move):
        self._move = move

    def __call__(self, _, name, directory):
        if self._move is not None:
            self._move, move = None, self._move
            move()
        os.unlink(name, dir_fd=directory)


def remove_while(tmp_path, move):
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        remove_directory(b"tree", parent, unlink=move)
    finally:
        os.close(parent)


def make_way(tmp_path, depth):
    """Make directories in one another, and a file in the last; return the ways there."""
    ways = [tmp_path / "tree" / "/".join(["d"] * above) for above in range(depth)]
    ways[-1].mkdir(parents=True)
    (ways[-1] / "file").touch()
    return ways


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("moved", [0, 1, 0.5, 0.9, -1])
def test_a_directory_that_is_moved_away_while_it_is_emptied_leads_nowhere(tmp_path, beside, depth, moved):
    ways = make_way(tmp_path, depth)
    victim = ways[int(moved * (depth - 1)) if isinstance(moved, float) else moved]

    remove_while(tmp_path, Mover(lambda: victim.rename(beside / "moved")))

    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("depth", [6, 60])
@pytest.mark.parametrize("moved", [0, 1, -2, -1])
@pytest.mark.parametrize("by", ["symlink", "file", "fifo", "full directory", "part of the tree"])
def test_a_directory_that_is_replaced_while_it_is_emptied_leads_nowhere(tmp_path, beside, depth, moved, by):
    victim = make_way(tmp_path, depth)[moved]
    replace = {
        "symlink": lambda: victim.symlink_to(beside.parent),
        "file": victim.touch,
        "fifo": lambda: os.mkfifo(victim),
        "full directory": lambda: (victim / "a" / "b").mkdir(parents=True),
        "part of the tree": lambda: (beside / "moved" / "d").rename(victim) if moved >= 0 else victim.mkdir(),
    }

    remove_while(tmp_path, Mover(lambda: (victim.rename(beside / "moved"), replace[by]())))

    assert not os.path.lexists(tmp_path / "tree")


@pytest.mark.parametrize("depth", [2, 60])
def test_whoever_fills_a_directory_without_end_is_not_waited_for(tmp_path, depth):
    directory = make_way(tmp_path, depth)[-1]
    fills = []

    def fill(_, name, opened):
        fills.append(name)
        os.unlink(name, dir_fd=opened)
        assert len(fills) < 1000
        (directory / f"file {len(fills)}").touch()

    with pytest.raises(NotRemovedError, match=r"could not be removed: somebody goes on filling it\. "):
        remove_while(tmp_path, fill)


@pytest.mark.parametrize("depth", [3, 60])
def test_whoever_moves_directories_without_end_is_not_waited_for(tmp_path, beside, depth):
    ways = make_way(tmp_path, depth)
    turns = []

    def move(_, name, opened):
        turns.append(name)
        os.unlink(name, dir_fd=opened)
        assert len(turns) < 1000
        ways[1].rename(beside / str(len(turns)))
        make_way(tmp_path, depth)

    with pytest.raises(NotRemovedError, match=r"tree.* could not be removed: somebody goes on (filling|moving) it"):
        remove_while(tmp_path, move)


def test_whoever_fills_a_directory_that_is_emptied_is_not_waited_for(tmp_path):
    ended, begun = threading.Event(), threading.Event()

    def fill():
        number = 0
        while not ended.is_set() and number < 1_000_000:
            number += 1
            (tmp_path / f"file {number}").touch()
            begun.set()

    directory = os.open(tmp_path, os.O_RDONLY)
    with ThreadPoolExecutor(1) as threads:
        filling = threads.submit(fill)
        begun.wait()
        try:
            empty_directory(directory, str(tmp_path))
        except NotRemovedError as error:
            assert "somebody goes on filling it" in str(error)  # noqa: PT017 - it may end well, too
        finally:
            ended.set()
        filling.result()
    os.close(directory)
