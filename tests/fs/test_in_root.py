"""What a path means, against what the kernel says where it can be asked to take a directory for ``/``."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.fs.in_root import MAX_DEPTH, SpecialFileError, open_in_root
from pykka_imagestore.fs.walk import MAX_SYMLINKS, SymlinkLoopError

root = pytest.mark.root
OPENAT2, RESOLVE_IN_ROOT = 437, 0x10  # linux/openat2.h


@pytest.fixture
def tree(tmp_path):
    """Return a tree, beside a file that no path in it leads to."""
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "passwd").write_text("inside")
    return tmp_path / "root"


def opened(tree, path):
    """Return what is read in a tree: a file's bytes, a directory's names."""
    top = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        file = open_in_root(top, path)
        try:
            return sorted(os.listdir(file)) if stat.S_ISDIR(os.fstat(file).st_mode) else os.read(file, 100).decode()
        finally:
            os.close(file)
    finally:
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(top)


@pytest.mark.parametrize(
    "path", ["etc/passwd", "/etc/passwd", "//etc//./passwd", "/../../etc/passwd", "etc/../etc/passwd", b"etc/passwd"]
)
def test_path_is_one_below_the_root(tree, path):
    assert opened(tree, path) == "inside"


@pytest.mark.parametrize("path", ["", "/", ".", "..", "/../..", "etc/.."])
def test_root_is_its_own_parent(tree, path):
    assert opened(tree, path) == ["etc"]


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../../../etc/passwd", "etc/passwd", "./etc/../etc//passwd", "other"]
)
def test_symlink_that_leads_out_leads_to_what_is_there_inside(tree, target):
    (tree / "other").symlink_to("/etc/passwd")
    (tree / "link").symlink_to(target)

    assert opened(tree, "link") == "inside"


def test_symlink_to_a_file_outside_leads_nowhere(tree):
    (tree / "absolute").symlink_to(tree.parent / "secret")
    (tree / "etc" / "relative").symlink_to("../../secret")
    (tree / "up").symlink_to("..")

    for path in ("absolute", "etc/relative", "up/secret", "../secret"):
        with pytest.raises(FileNotFoundError):
            opened(tree, path)


def test_symlinks_of_the_kernels_that_lead_anywhere_are_followed_by_their_text_only(tree):
    secret = os.open(tree.parent / "secret", os.O_RDONLY)
    top = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        for path in (f"fd/{secret}", "cwd/etc/passwd", "root/etc/passwd", "exe"):
            with pytest.raises(FileNotFoundError):
                os.close(open_in_root(top, path))
    finally:
        os.close(secret)
        os.close(top)


def test_loops_end(tree):
    (tree / "a").symlink_to("b")
    (tree / "b").symlink_to("/a")
    (tree / "grows").symlink_to("grows/grows")
    (tree / "self").symlink_to(".")

    for path in ("a", "grows", "a/x", "/".join(["self"] * (MAX_SYMLINKS + 1))):
        with pytest.raises(SymlinkLoopError):
            opened(tree, path)
    assert opened(tree, "/".join(["self"] * MAX_SYMLINKS)) == ["a", "b", "etc", "grows", "self"]


def test_depth_is_bounded(tree):
    top = os.open(tree, os.O_RDONLY)
    below = top
    for _ in range(MAX_DEPTH + 1):
        os.mkdir("d", dir_fd=below)
        deeper = os.open("d", os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    os.close(below)

    assert opened(tree, "d/" * MAX_DEPTH) == ["d"]
    with pytest.raises(OSError, match="below more than 256 directories") as raised:
        opened(tree, "d/" * (MAX_DEPTH + 1))
    assert raised.value.errno == errno.ENAMETOOLONG


def test_fifo_is_not_waited_for_and_a_socket_is_told(tree):
    os.mkfifo(tree / "fifo")
    (tree / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tree)
        server.bind("socket")
        os.chdir(here)

    for path, kind in (("fifo", "a fifo"), ("link", "a fifo"), ("socket", "a socket")):
        with pytest.raises(SpecialFileError, match=f"it is {kind}"):
            opened(tree, path)


def test_what_takes_the_place_of_a_file_that_was_found_is_not_opened(tree, monkeypatch):
    found = os.fstat

    def exchange(file):
        status = found(file)
        if stat.S_ISREG(status.st_mode) and not (tree / "old").exists():
            (tree / "etc/passwd").rename(tree / "old")
            os.mkfifo(tree / "etc/passwd")
        return status

    monkeypatch.setattr(os, "fstat", exchange)

    assert opened(tree, "etc/passwd") == "inside"


def test_an_error_names_the_path_that_was_asked_for(tree):
    with pytest.raises(FileNotFoundError) as raised:
        opened(tree, "etc/missing/x")

    assert raised.value.filename == "etc/missing/x"


@root
@pytest.mark.parametrize(("kind", "number"), [(stat.S_IFCHR, (1, 5)), (stat.S_IFCHR, (0, 0)), (stat.S_IFBLK, (7, 0))])
def test_device_is_not_opened(tree, kind, number):
    os.mknod(tree / "device", kind | 0o666, os.makedev(*number))

    with pytest.raises(SpecialFileError, match="device"):
        opened(tree, "device")


def test_nothing_is_left_open_when_it_fails(tree):
    (tree / "file").write_text("")
    (tree / "loop").symlink_to("loop")

    for path in ("missing", "etc/missing/x", "file/x", "file/", "file/..", "loop", "x" * 300, "etc/" * 300 + "x" * 300):
        with pytest.raises(OSError, match=r"."):
            opened(tree, path)


# -- against the kernel

NAMES = ("a", "b", "c")
parts = st.sampled_from([*NAMES, *NAMES, ".", ".."])
ways = st.builds(
    lambda start, way, end: start + "/".join(way) + end,
    st.sampled_from(["", "/"]),
    st.lists(parts, min_size=1, max_size=5),
    st.sampled_from(["", "", "/"]),
)
nodes = st.recursive(
    st.one_of(ways, st.none(), st.just({})),  # a symlink, a file, an empty directory
    lambda below: st.dictionaries(st.sampled_from(NAMES), below, max_size=3),
    max_leaves=12,
)
trees = st.dictionaries(st.sampled_from(NAMES), nodes, max_size=3)


def build(directory, tree):
    for name, node in tree.items():
        if isinstance(node, str):
            os.symlink(node, directory / name)
        elif node is None:
            (directory / name).write_text(str(directory / name))
        else:
            (directory / name).mkdir()
            build(directory / name, node)


def asked_of_the_kernel(top, path):
    """Return what it finds, or why it finds nothing."""
    how = struct.pack("QQQ", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT)
    libc = ctypes.CDLL(None, use_errno=True)
    file = libc.syscall(OPENAT2, top, path.encode(), how, len(how))
    return identity(file) if file >= 0 else errno.errorcode[ctypes.get_errno()]


def asked_of_us(top, path):
    try:
        return identity(open_in_root(top, path))
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def identity(file):
    try:
        return os.fstat(file).st_ino
    finally:
        os.close(file)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    top = os.open(tmp_path_factory.mktemp("kernel"), os.O_RDONLY)
    answer = asked_of_the_kernel(top, ".")
    os.close(top)
    if isinstance(answer, str):
        pytest.skip(f"this kernel, or what watches over it, has no openat2: {answer}")
    return tmp_path_factory


@given(trees, st.lists(ways, min_size=1, max_size=6))
def test_any_path_leads_where_the_kernel_says(place, tree, paths):
    directory = place.mktemp("tree")
    build(directory, tree)
    top = os.open(directory, os.O_PATH)
    try:
        assert [asked_of_us(top, path) for path in paths] == [asked_of_the_kernel(top, path) for path in paths]
    finally:
        os.close(top)
