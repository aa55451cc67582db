"""Fuzz target: any bytes as a layer. It becomes a directory of files, or is refused without a trace; with help, the
same.

What it may not do is looked for in three ways: a directory beside it is compared, each call with a path that came from
the layer is looked at on its way to the kernel, and what was unpacked is held against the layer's record.
"""

from __future__ import annotations

import atexit
import io
import os
import pickle
import re
import resource
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mutations import mutate_tar
from plain import cleaned, plain_members
from support.layers import Unpacked, unpack_layer, unpack_with_peers
from support.trees import Node, describe

from pykka_imagestore._proto import layer_pb2
from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.errors import LayerError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.unpack.inflate import inflate, read_some

mutate = mutate_tar
MAX_INFLATED_BYTES = 64 << 10  # some bytes of bzip2 hold a gigabyte
MAX_FILE_BYTES = 4 << 20  # as much as a layer's peers share
PAGE_BYTES = 4096
OVERLAY = ("trusted.overlay.", "user.overlay.")


def check(data: bytes) -> None:
    """Unpack the same bytes alone and with help."""
    tar = inflated(data)
    if tar is None:
        return
    place = playground()
    before, open_before = describe(place / "outside"), set(os.listdir("/proc/self/fd"))

    alone, helped = outcome(data, tar, place, unpack_layer), outcome(data, tar, place, unpack_with_peers)

    assert helped == alone
    assert describe(place / "outside") == before
    assert not set(os.listdir("/proc/self/fd")) - open_before
    remove_tree(str(place / "layer"))
    assert set(os.listdir(place)) == {"layer.tar", "outside"}


def check_all(layers: list[bytes]) -> None:
    for data in layers:
        check(data)


def inflated(data: bytes) -> bytes | None:
    """Return the tar that a layer holds, perhaps cut off; None if it is larger than is good for this machine."""
    tar = b""
    try:
        source = inflate(io.BytesIO(data), data[:10])
        while len(tar) <= MAX_INFLATED_BYTES:
            if not (block := read_some(source, MAX_INFLATED_BYTES)):
                return tar
            tar += block
    except TarError:
        return tar
    return None


def outcome(data: bytes, tar: bytes, place: Path, unpack: Callable[[bytes, Path], Unpacked]) -> object:
    """Return what a layer becomes, or the sentence that refuses it."""
    try:
        with watched(place):
            unpacked = unpack(data, place)
    except LayerError as error:
        assert not (place / "layer").exists()
        assert str(error).isprintable()
        assert len(str(error)) < 1000
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        return str(error)
    try:
        nodes = unpacked.nodes
    except (OSError, RecursionError):
        return None  # deeper than a path reaches, through symlinks
    if not any(map(is_locked, nodes.values())):
        see_that_it_is_no_larger(unpacked, nodes, tar)
        see_that_it_is_sound(unpacked, nodes)
        see_that_plain_files_are_there(unpacked, nodes, tar)
    return {path: timeless(path, node) for path, node in nodes.items()}, whoever_replaced(unpacked.record)


def is_locked(node: Node) -> bool:
    """Tell whether an ordinary user cannot look at what he unpacked."""
    needed = {"d": stat.S_IRUSR | stat.S_IXUSR, "f": stat.S_IRUSR}.get(node.kind, 0)
    return os.geteuid() != 0 and node.mode & needed != needed


def see_that_it_is_no_larger(unpacked: Unpacked, nodes: dict[bytes, Node], tar: bytes) -> None:
    assert unpacked.counts.size_bytes == len(tar)
    names = Counter(node.same_as for node in nodes.values() if node.kind == "f")
    files = [(unpacked.rootfs / os.fsdecode(path)).lstat() for path in names]
    replaced = Counter(found.stat().st_ino for found in unpacked.target.glob("replaced/*"))
    own_names = [count + replaced[found.st_ino] for count, found in zip(names.values(), files, strict=True)]
    assert [found.st_nlink for found in files] == own_names, "a file has names elsewhere"
    # What a header claims and the layer does not have is refused: not written, and not left as a hole either.
    sparse = may_have_holes(tar)
    assert sum(found.st_size for found in files) <= len(tar) or sparse
    pages = len(files) + (len(tar) if sparse else 0)  # each byte may be a segment on a page of its own
    assert sum(found.st_blocks * 512 for found in files) <= len(tar) + PAGE_BYTES * pages


def may_have_holes(tar: bytes) -> bool:
    return b"GNU.sparse." in tar or b"S" in tar[156::512]


def see_that_it_is_sound(unpacked: Unpacked, nodes: dict[bytes, Node]) -> None:
    record, own = unpacked.record, (os.geteuid(), os.getegid())
    assert record.entries == unpacked.counts.entries
    assert set(record.implicit_directories) <= {path for path, node in nodes.items() if node.kind == "d"}
    assert all(nodes[path].owner == own for path in record.implicit_directories)
    for path, node in nodes.items():
        assert own[0] == 0 or node.owner == own
        marks = {key: value for key, value in node.xattrs if key.startswith(OVERLAY)}
        is_whiteout = (node.kind, node.content) == ("c", b"0:0")
        if record.whiteouts in (layer_pb2.NONE, layer_pb2.FILES):
            assert not marks
            assert not is_whiteout
        assert not marks or (
            node.kind == "d" and list(marks.values()) == [b"y"] and next(iter(marks)).endswith("opaque")
        )
        assert b".wh." not in (part[:4] for part in path.split(b"/")) or record.whiteouts == layer_pb2.FILES


def see_that_plain_files_are_there(unpacked: Unpacked, nodes: dict[bytes, Node], tar: bytes) -> None:
    members = plain_members(tar)
    paths = {cleaned(member.name): member for member in members}
    if len(members) != unpacked.counts.entries or len(paths) != len(members) or b"/.wh." in b"/" + b"/".join(paths):
        return
    if any(other.startswith(path + b"/") for path in paths if paths[path].body is not None for other in paths):
        return  # a file that took a directory's place
    for path, member in paths.items():
        if member.body is not None:
            assert (unpacked.rootfs / os.fsdecode(path)).read_bytes() == member.body
    assert {path for path, node in nodes.items() if node.kind != "d"} == {
        path for path, member in paths.items() if member.body is not None
    }


def whoever_replaced(record: layer_pb2.LayerRecord) -> bytes:
    """Return a record without the sum of what was replaced: peers do that in another order."""
    for field in ("replaced_checksum", "checksum"):
        record.ClearField(field)
    return record.SerializeToString()


def timeless(path: bytes, node: Node) -> object:
    """Return a node, without the time that no entry gives."""
    name = path.rpartition(b"/")[2]
    given = path and name[:4] != b".wh." and (node.kind, node.content) != ("c", b"0:0")
    return node.kind, node.mode, node.owner, node.content, node.xattrs, node.same_as, given and node.mtime_ns


# -- where it happens


@cache
def playground() -> Path:
    """Return a directory to unpack in, beside one that is not to be reached."""
    base = Path(tempfile.mkdtemp(prefix="fuzz-"))  # nobody else may enter: programs with set-ID bits may lie in it
    atexit.register(remove_tree, str(base))
    (base / "outside" / "inner").mkdir(parents=True)
    (base / "outside" / "secret").write_bytes(b"unchanged")
    os.symlink("secret", base / "outside" / "link")
    os.utime(base / "outside", (1, 1))
    sys.addaudithook(_see_call)
    return base


_watched: list[str] = []


@contextmanager
def watched(place: Path):
    """Look at each system call that takes a path, and let no file become large."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, limits[1]))
    _watched[:] = [os.fspath(place)]
    try:
        yield
    finally:
        _watched.clear()
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


_ONE_PATH = frozenset({"open", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.utime", "os.truncate"})
_XATTRS = frozenset({"os.setxattr", "os.removexattr", "os.getxattr", "os.listxattr"})
_OWN_NAMES = ("", "/layer.tar", "/layer", "/peers")
_NO_DIR_FD = -1


def _see_call(event: str, arguments: tuple[object, ...]) -> None:
    if not _watched:
        return
    if event in _ONE_PATH:
        _see_path(event, arguments[0], arguments[-1])
    elif event in _XATTRS:
        _see_path(event, arguments[0], None)
    elif event == "os.symlink":
        _see_path(event, arguments[1], arguments[2])
    elif event in ("os.link", "os.rename"):
        _see_path(event, arguments[0], arguments[2])
        _see_path(event, arguments[1], arguments[3])


def _see_path(event: str, path: object, last: object) -> None:
    """See that a path is one name in an open directory, or one of our own. A layer's names are bytes, as in a tar."""
    if isinstance(path, str | os.PathLike) and "/" in os.fspath(path):
        text = os.fspath(path)
        own = {"/proc/self/status", "/proc/self/uid_map", *(_watched[0] + name for name in _OWN_NAMES)}
        is_open_file = re.fullmatch("/proc/self/fd/[0-9]+", text)
        assert text in own or is_open_file or text.startswith(f"{_watched[0]}/layer/"), (event, text)
    elif isinstance(path, bytes | str):
        name = os.fsencode(path)
        if re.fullmatch(b"/proc/self/fd/[0-9]+", name):  # a pin
            return
        if event in _XATTRS:
            name = name.removeprefix(b"/proc/self/fd/").partition(b"/")[2]  # the spelling of a name in a directory
        elif event == "open":
            assert isinstance(last, int)
            assert last & os.O_NOFOLLOW, path
        else:
            assert last != _NO_DIR_FD, (event, path)
        assert b"/" not in name, (event, path)
