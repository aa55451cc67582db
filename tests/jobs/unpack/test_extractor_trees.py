"""Trees at random, packed by the tools that people pack layers with: what is unpacked is what was packed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.layers import unpack_layer
from support.processes import TIMEOUT
from support.trees import describe

pytestmark = pytest.mark.root

BIRTHDAY = 1_700_000_000 * 10**9
# In all, shared out among the packers: TREES=1000 for a thousand.
TREES = int(os.environ.get("TREES", "200"))

tiny_names = st.sampled_from([b"a", b"b", b".c", b"with space", b"\xff\xfe", "ü\n".encode(), b"~"])
short_names = tiny_names | st.just(b"d" * 40)
ustar_names = tiny_names | st.just(b"d" * 9)  # a hard link's target has 100 bytes in all there, and trees are deep
long_names = short_names | st.sampled_from([b"n" * 101, b"\xff" * 255])


@dataclass(frozen=True)
class Holes:
    """A file with holes: its size, and what is where."""

    size: int
    pieces: dict[int, bytes]


@dataclass(frozen=True)
class Described:
    """What a node of a random tree is to be.

    Attributes:
        what: Bytes of a file, a file with holes, target of a symlink, entries of a directory by name, or kind and
            number of a device.
    """

    what: bytes | Holes | str | dict | tuple
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    xattrs: dict


@dataclass(frozen=True)
class Packer:
    """A tool and a format.

    Attributes:
        pack: Packs the directory given first into the file given second.
        nanoseconds: Whether its times are exact.
        xattrs: Whether it keeps extended attributes.
        names: Those that it keeps.
        special: Whether it keeps devices.
        holes: Whether it keeps files with holes.
    """

    pack: object
    nanoseconds: bool = False
    xattrs: bool = False
    names: object = long_names
    special: bool = True
    holes: bool = True


def gnu_tar(form, *options):
    def pack(directory, archive):
        run("tar", f"--format={form}", "--numeric-owner", *options, "-C", directory, "-cf", archive, ".")

    return pack


def bsdtar(form):
    def pack(directory, archive):
        run("bsdtar", f"--format={form}", "--numeric-owner", "-C", directory, "-cf", archive, ".")

    return pack


def python_tarfile(form):
    def pack(directory, archive):
        with tarfile.open(archive, "w", format=form) as file:
            file.add(directory, ".")

    return pack


def run(*command):
    done = subprocess.run(
        command, env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


ALL_XATTRS = ("--xattrs", "--xattrs-include=*")
PACKERS = {
    "GNU tar, gnu": Packer(gnu_tar("gnu")),
    "GNU tar, posix": Packer(gnu_tar("posix", *ALL_XATTRS), nanoseconds=True, xattrs=True),
    "GNU tar, ustar": Packer(gnu_tar("ustar"), names=ustar_names),
    "GNU tar, oldgnu": Packer(gnu_tar("oldgnu")),
    "GNU tar, v7": Packer(gnu_tar("v7"), names=tiny_names, special=False),
    "GNU tar, sparse gnu": Packer(gnu_tar("gnu", "--sparse")),
    "GNU tar, sparse oldgnu": Packer(gnu_tar("oldgnu", "--sparse", "--hole-detection=raw")),
    **{
        f"GNU tar, sparse {version}": Packer(
            gnu_tar("posix", "--sparse", f"--sparse-version={version}", *ALL_XATTRS), nanoseconds=True, xattrs=True
        )
        for version in ("0.0", "0.1", "1.0")
    },
    # It cuts the name of a file with holes that is long and not UTF-8: what it unpacks then is not what it packed.
    "bsdtar, pax": Packer(bsdtar("pax"), nanoseconds=True, xattrs=True, holes=False),
    "bsdtar, pax with holes": Packer(bsdtar("pax"), nanoseconds=True, xattrs=True, names=short_names),
    "bsdtar, gnutar": Packer(bsdtar("gnutar")),
    "bsdtar, ustar": Packer(bsdtar("ustar"), names=ustar_names),
    "tarfile, pax": Packer(python_tarfile(tarfile.PAX_FORMAT), nanoseconds=True),
    "tarfile, gnu": Packer(python_tarfile(tarfile.GNU_FORMAT)),
    "tarfile, ustar": Packer(python_tarfile(tarfile.USTAR_FORMAT), names=ustar_names),
}

modes = st.sampled_from([0o644, 0o755, 0, 0o4755, 0o2711, 0o1777, 0o7777, 0o600])
owners = st.tuples(*[st.sampled_from([0, 0, 1000, 65534, 2**18 - 1])] * 2)
# Halves and quarters of a second survive the floating-point numbers that tarfile keeps times in.
times = st.sampled_from([0, BIRTHDAY, BIRTHDAY + 250_000_000, 2**32 * 10**9 + 500_000_000])
attributes = st.dictionaries(st.sampled_from(["user.a", "trusted.b"]), st.binary(min_size=1, max_size=5), max_size=2)
targets = st.sampled_from(["a", "../b", "/etc/passwd", "no where", "t" * 99])
devices = st.sampled_from([(stat.S_IFCHR, 1, 3), (stat.S_IFBLK, 7, 200), (stat.S_IFIFO, 0, 0)])
pieces = st.dictionaries(
    st.integers(0, 60).map(lambda block: block * 4096), st.binary(min_size=1, max_size=9), max_size=9
)
holes = st.builds(Holes, st.integers(0, 300_000), pieces)
bodies = st.binary(max_size=8) | st.integers(500, 1100).map(lambda size: b"x" * size)


def nodes(what, xattrs):
    return st.builds(Described, what, modes, owners, times, xattrs)


def trees(names, bodies, others):
    def directories(below):
        return nodes(st.dictionaries(names, below, max_size=4), attributes)

    no_attributes = st.just({})
    leaves = nodes(bodies, attributes) | nodes(others, no_attributes)
    return directories(st.recursive(leaves, directories, max_leaves=8))


def make(path, node, files):
    """Make a node; hard links of a file may be made later, from ``files``."""
    if isinstance(node.what, dict):
        os.makedirs(path, exist_ok=True)
        for name, below in node.what.items():
            make(os.path.join(path, name), below, files)
    elif isinstance(node.what, bytes):
        with open(path, "wb") as file:
            file.write(node.what)
        files.append(path)
    elif isinstance(node.what, Holes):
        with open(path, "wb") as file:
            for offset, piece in node.what.pieces.items():
                os.pwrite(file.fileno(), piece, offset)
            file.truncate(node.what.size)
        files.append(path)
    elif isinstance(node.what, str):
        os.symlink(node.what, path)
    else:
        kind, major, minor = node.what
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
    os.chown(path, *node.owner, follow_symlinks=False)
    if not isinstance(node.what, str):
        os.chmod(path, node.mode)
    for key, value in node.xattrs.items():
        os.setxattr(path, key, value, follow_symlinks=False)
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)


def add_hard_links(links, files):
    """Give some files more names, and their directories their times back."""
    for number, link in enumerate(links):
        if files:
            source = files[link % len(files)]
            directory = os.path.dirname(files[link // 7 % len(files)])
            before = os.stat(directory).st_mtime_ns
            os.link(source, os.path.join(directory, b"link%d" % number))
            os.utime(directory, ns=(before, before))


def as_kept_by(packer, nodes):
    """Return nodes without what a format does not keep."""
    kept = {}
    for path, node in nodes.items():
        kept[path] = replace(
            node,
            mtime_ns=node.mtime_ns if packer.nanoseconds else node.mtime_ns // 10**9,
            xattrs=node.xattrs if packer.xattrs else (),
        )
    return kept


@pytest.mark.parametrize("packer", PACKERS)
def test_unpacked_tree_is_the_tree_that_was_packed(packer):
    tool = "bsdtar" if packer.startswith("bsdtar") else "tar"
    if shutil.which(tool) is None:
        pytest.skip(f"there is no {tool} here")

    others = targets | devices if PACKERS[packer].special else targets

    @settings(max_examples=-(-TREES // len(PACKERS)))
    @given(
        trees(PACKERS[packer].names, bodies | holes if PACKERS[packer].holes else bodies, others),
        st.lists(st.integers(0, 50), max_size=3),
    )
    def check(tree, links):
        with tempfile.TemporaryDirectory() as place:
            packed_and_unpacked(PACKERS[packer], os.fsencode(place), tree, links)

    check()


def packed_and_unpacked(packer, place, tree, links):
    original, archive, files = os.path.join(place, b"tree"), os.path.join(place, b"tree.tar"), []
    make(original, tree, files)
    add_hard_links(links, files)
    packer.pack(os.fsdecode(original), os.fsdecode(archive))
    with open(archive, "rb") as file:
        data = file.read()

    unpacked = unpack_layer(data, os.fsdecode(place))

    assert as_kept_by(packer, unpacked.nodes) == as_kept_by(packer, describe(os.fsdecode(original)))
    assert unpacked.unset == []
    assert list(unpacked.record.implicit_directories) == []
