"""What may change in a stored layer, kind by kind, and which check finds it; docs/checking.md lists the same."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import stat
import struct
from array import array
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import tars
from support.attributes import NOBODYS, acl
from support.compressions import zstd
from support.layers import unpack_layer

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.checksum import with_checksum
from pykka_imagestore.jobs.check.findings import LayerCheck
from pykka_imagestore.jobs.check_layer import CheckLayer, check_layer

CAPABILITY = struct.pack("<I4I", 0x02000000, 1 << 10, 0, 0, 0)
EVERYTHING = struct.pack("<I4I", 0x02000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0)


ACL = acl((1, 6, NOBODYS), (2, 4, 7), (4, 4, NOBODYS), (0x10, 4, NOBODYS), (0x20, 4, NOBODYS))
OTHER_ACL = acl((1, 6, NOBODYS), (2, 6, 7), (4, 4, NOBODYS), (0x10, 4, NOBODYS), (0x20, 4, NOBODYS))
SEGMENTS = [(50_000, 4)]


def xattr(key: bytes, value: bytes) -> bytes:
    return tars.pax({b"SCHILY.xattr." + key: value})


def plain() -> tuple[bytes, ...]:
    """Return a layer of all kinds that anybody can make."""
    owner: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid()}
    return (
        tars.directory(b"d", mode=0o755, mtime=5, **owner),
        tars.file(b"d/f", b"hello" * 3000, mtime=5, **owner),
        tars.file(b"d/g", b"hello" * 3000, mtime=5, **owner),
        tars.file(b"empty", **owner),
        tars.file(b"su", b"x", mode=0o4755, **owner),
        tars.symlink(b"l", b"d/f", **owner),
        tars.hard_link(b"h", b"d/f", **owner),
        tars.hard_link(b"lower", b"usr/bin/f", **owner),
        tars.header(b"ff", tars.FIFO, mode=0o600, **owner),
        xattr(b"user.k", b"v") + tars.file(b"ux", b"x", **owner),
        tars.whiteout(b"gone"),
        tars.whiteout(b"gone-too"),
        tars.directory(b"op", mode=0o755, **owner),
        tars.opaque(b"op"),
        tars.file(b"op/k", b"k", **owner),
        tars.file(b"imp/x", b"y", **owner),
        tars.pax_sparse("1.0", b"sp", 100_000, SEGMENTS, b"DATA", **owner),
        # What is replaced by later entries, and lives on under other names.
        tars.file(b"e", **owner),
        tars.hard_link(b"eh", b"e"),
        tars.hard_link(b"eh2", b"e"),
        tars.file(b"e", b"new", **owner),
        tars.symlink(b"s", b"right", **owner),
        tars.hard_link(b"sh", b"s"),
        tars.file(b"s", b"wen", **owner),
        tars.file(b"r", b"old", **owner),
        tars.hard_link(b"rh", b"r"),
        tars.file(b"r", b"new", **owner),
        tars.file(b"z", b"a" * 100, **owner),
        tars.file(b"z", b"b" * 100, **owner),
    )


def roots() -> tuple[bytes, ...]:
    """Return what root can make, too."""
    owner: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid()}
    return (
        *plain(),
        tars.header(b"dev", tars.CHARACTER_DEVICE, major=1, minor=3, mode=0o666, **owner),
        tars.header(b"blk", tars.BLOCK_DEVICE, major=7, minor=9, **owner),
        xattr(b"trusted.k", b"v") + tars.file(b"tx", b"x", **owner),
        xattr(b"security.capability", CAPABILITY) + tars.file(b"cap", b"x", mode=0o755, **owner),
        xattr(b"system.posix_acl_access", ACL) + tars.file(b"acl", b"x", **owner),
        tars.header(b"dv", tars.CHARACTER_DEVICE, major=1, minor=3, mode=0o600, **owner),
        tars.hard_link(b"dvh", b"dv"),
        tars.file(b"dv", b"new", **owner),
    )


Do = Callable[[Path], object]


@dataclass(frozen=True)
class Change:
    """One kind of change.

    Attributes:
        what: What docs/checking.md calls it.
        path: What is changed, below the layer's directory.
        do: Changes it.
        found: ``shallow``, ``deep``; or why it is not.
        of_root: Whether only root can.
    """

    what: str
    path: str
    do: Do
    found: str = "deep"
    of_root: bool = False


def changed(what: str, directory: str) -> tuple[LayerCheck, LayerCheck]:
    """Unpack the layer, change it, and return what a shallow and a deep check find."""
    change = CHANGES[what]
    layer = unpack_layer(tars.tar(*(roots() if os.geteuid() == 0 else plain())), directory)
    assert layer.check() == LayerCheck()
    change.do(layer.target / change.path)
    return check_layer(CheckLayer(str(layer.target), layer.counts.diff_id)), layer.check()


def changed_each(changes: Sequence[str], directory: str) -> dict[str, tuple[LayerCheck, LayerCheck]]:
    """Do what ``changed`` does for each of some changes, below a directory."""
    found = {}
    for number, what in enumerate(changes):
        place = Path(directory, str(number))
        place.mkdir()
        try:
            found[what] = changed(what, str(place))
        except Exception as error:
            error.add_note(f"of the change {what!r}")
            raise
    return found


def keep_times(do: Do, *, above: bool = False) -> Do:
    """Return what changes something and gives it its time back, and the directory that it is in."""

    def doing(path: Path) -> None:
        kept = path.parent if above else path
        before = kept.lstat().st_mtime_ns
        do(path)
        os.utime(kept, ns=(before, before), follow_symlinks=False)

    return doing


def write(offset: int, data: bytes) -> Do:
    def do(path: Path) -> None:
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    return keep_times(do)


def append(data: bytes) -> Do:
    def do(path: Path) -> None:
        with open(path, "ab") as file:
            file.write(data)

    return do


def anew(make: Do) -> Do:
    def do(path: Path) -> None:
        path.unlink()
        make(path)
        os.utime(path, (0, 0), follow_symlinks=False)

    return keep_times(do, above=True)


def add(make: Do) -> Do:
    """Return what makes something new, and leaves its directory's time as it was."""
    return keep_times(make, above=True)


def node(kind: int, major: int = 0, minor: int = 0, mode: int = 0o644) -> Do:
    def do(path: Path) -> None:
        os.mknod(path, kind | mode, os.makedev(major, minor))
        os.chmod(path, mode)

    return do


def chmod(mode: int) -> Do:
    return lambda path: path.chmod(mode)


def chown(uid: int, gid: int) -> Do:
    return lambda path: os.chown(path, uid, gid, follow_symlinks=False)


def date(path: Path) -> None:
    os.utime(path, (1, 1), follow_symlinks=False)


def set_xattr(key: str, value: bytes) -> Do:
    return lambda path: os.setxattr(path, key, value, follow_symlinks=False)


def remove_xattr(key: str) -> Do:
    return lambda path: os.removexattr(path, key, follow_symlinks=False)


def remove_user_or_trusted(path: Path) -> None:
    for key in os.listxattr(path):
        os.removexattr(path, key)


def remove_mark(path: Path) -> None:
    if (path / ".wh..wh..opq").exists():
        add(lambda mark: mark.unlink())(path / ".wh..wh..opq")
    else:
        remove_user_or_trusted(path)


def whiteout_of(path: Path) -> Path:
    """Return where a whiteout is, in the form that this process made it."""
    as_file = path.with_name(f".wh.{path.name}")
    return as_file if as_file.exists() else path


def of_whiteout(do: Do) -> Do:
    return lambda path: do(whiteout_of(path))


def move(to: str) -> Do:
    return keep_times(lambda path: path.rename(path.with_name(to)), above=True)


def exchange(path: Path) -> None:
    """Exchange two files of one size and time: the names are what they were, and the contents."""
    other, aside = path.with_name("s"), path.with_name("aside")
    path.rename(aside), other.rename(path), aside.rename(other)


def copy(path: Path) -> None:
    """Have a file of the same content, mode, owner and time in the place of a hard link."""
    shutil.copy2(path.with_name("d") / "f", path.with_name("aside"))
    os.chown(path.with_name("aside"), path.stat().st_uid, path.stat().st_gid)
    path.with_name("aside").replace(path)


def link_to(name: str) -> Do:
    def do(path: Path) -> None:
        path.unlink()
        os.link(path.with_name(name), path)

    return keep_times(do, above=True)


def two_whiteouts_as_one(path: Path) -> None:
    target = whiteout_of(path.with_name("gone-too"))
    path.unlink()
    os.link(target, path, follow_symlinks=False)


def directory_by_symlink(path: Path) -> None:
    path.rename(path.parents[2] / "moved")
    path.symlink_to("../../moved")


def record(**fields: Any) -> Do:
    """Return what changes fields, and not the checksum."""

    def do(path: Path) -> None:
        message = LayerRecord.FromString(path.read_bytes())
        for name, value in fields.items():
            if name == "unset":
                message.unset.add(path=b"su", what=value)
            elif name in ("implicit_directories", "opaque_directories", "hiding_directories"):
                getattr(message, name).append(value)
            elif name == "lower_links":
                message.lower_links.add(path=value, target=b"d/f")
            else:
                setattr(message, name, value)
        path.write_bytes(message.SerializeToString())

    return do


def record_without_checksum(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-6])


def old_record(path: Path) -> None:
    message = LayerRecord.FromString(path.read_bytes())
    for field in LayerRecord.DESCRIPTOR.fields:
        if field.number >= 10 and field.name != "lower_links":  # it would have refused these
            message.ClearField(field.name)
    path.write_bytes(message.SerializeToString())


def record_made_anew(change: Callable[[LayerRecord], object]) -> Do:
    """Return what changes a record, and its checksum too."""

    def do(path: Path) -> None:
        message = LayerRecord.FromString(path.read_bytes())
        change(message)
        message.ClearField("checksum")
        path.write_bytes(with_checksum(message.SerializeToString()))

    return do


def count_one_more(message: LayerRecord) -> None:
    message.entries += 1


def lead_elsewhere(message: LayerRecord) -> None:
    message.lower_links[0].target = b"d/g"


def compress_anew(path: Path) -> None:
    """Write another frame of the same bytes, and one behind it that is to be skipped, so that the size is the same."""
    data = path.read_bytes()
    frame = zstd.compress(zstd.decompress(data), level=19)
    rest = len(data) - len(frame) - 8
    path.write_bytes(frame + struct.pack("<II", 0x184D2A50, rest) + bytes(rest))


def fill_hole(path: Path) -> None:
    with open(path, "r+b") as file:
        before = path.stat().st_mtime_ns
        file.seek(0)
        file.write(bytes(4096))
    os.utime(path, ns=(before, before))


def set_flag(path: Path) -> None:
    """Set the flag ``nodump``, as chattr(1) does, if the file system has flags."""
    with open(path, "rb") as file, contextlib.suppress(OSError):
        flags = array("l", [0])
        fcntl.ioctl(file, 0x80086601, flags)
        fcntl.ioctl(file, 0x40086602, array("l", [flags[0] | 0x40]))


def reserve(path: Path) -> None:
    """Reserve space behind the end of a file, if the file system can."""
    with open(path, "r+b") as file:
        ctypes.CDLL(None).fallocate(file.fileno(), 1, ctypes.c_long(0), ctypes.c_long(1 << 20))  # FALLOC_FL_KEEP_SIZE


def bind(path: Path) -> None:
    """Make a socket, by a path that may be long."""
    directory = os.open(path.parent, os.O_RDONLY)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    os.close(directory)


S, D = "shallow", "deep"
ROOT = True
_ALL = [
    # Content
    Change("a byte of a file", "rootfs/d/f", write(7, b"Z")),
    Change("a file cut off", "rootfs/d/f", keep_times(lambda p: os.truncate(p, 9))),
    Change("a longer file", "rootfs/d/f", keep_times(lambda p: os.truncate(p, 99_999))),
    Change("bytes in an empty file", "rootfs/empty", keep_times(append(b"x"))),
    Change("a byte in the data of a sparse file", "rootfs/sp", write(50_001, b"Z")),
    Change("a byte in a hole", "rootfs/sp", write(10, b"Z")),
    Change("the size of a sparse file", "rootfs/sp", keep_times(lambda p: os.truncate(p, 100_001))),
    Change("two files exchanged", "rootfs/r", keep_times(exchange, above=True)),
    Change("the target of a symlink", "rootfs/l", anew(lambda p: p.symlink_to("d/g"))),
    Change("the number of a device", "rootfs/dev", anew(node(stat.S_IFCHR, 1, 5, 0o666)), D, ROOT),
    # Kind
    Change("a block device made a character device", "rootfs/blk", anew(node(stat.S_IFCHR, 7, 9)), D, ROOT),
    Change("a fifo made a file", "rootfs/ff", anew(lambda p: p.touch(0o600))),
    Change("a file made a symlink to its content", "rootfs/d/f", anew(lambda p: p.symlink_to("g"))),
    Change("a directory made a symlink to its content", "rootfs/d", keep_times(directory_by_symlink, above=True)),
    # Names
    Change("no file", "rootfs/d/f", keep_times(Path.unlink, above=True)),
    Change("a name with another byte", "rootfs/empty", move("emptz")),
    Change("a name with a byte that is not UTF-8", "rootfs/empty", move(os.fsdecode(b"empty\xff"))),
    Change("a file moved to another directory", "rootfs/empty", lambda p: p.rename(p.parent / "d" / "empty")),
    Change("one more file", "rootfs/new", add(Path.touch)),
    Change("one more directory", "rootfs/op/new", add(Path.mkdir)),
    Change("one more symlink", "rootfs/imp/new", add(lambda p: p.symlink_to("x"))),
    Change("one more fifo", "rootfs/new", add(os.mkfifo)),
    Change("one more socket", "rootfs/new", add(bind)),
    Change("one more whiteout", "rootfs/op/new", add(node(stat.S_IFCHR, mode=0)), D, ROOT),
    Change("a file like a mark", "rootfs/d/.wh..wh..opq", add(Path.touch)),
    # Modes
    Change("the mode of a file", "rootfs/d/f", chmod(0o664)),
    Change("set-user-ID added", "rootfs/d/f", chmod(0o4644)),
    Change("set-user-ID lost", "rootfs/su", chmod(0o755)),
    Change("the mode of a directory", "rootfs/d", chmod(0o777)),
    Change("a directory made sticky", "rootfs/d", chmod(0o1755)),
    Change("the mode of a fifo", "rootfs/ff", chmod(0o666)),
    Change("the mode of a device", "rootfs/dev", chmod(0o600), D, ROOT),
    Change("the mode of an implicit directory", "rootfs/imp", chmod(0o700)),
    Change("the mode of the root, which no entry names", "rootfs", chmod(0o777)),
    Change("the root made sticky", "rootfs", chmod(0o1755)),
    # Owners
    Change("the user of a file", "rootfs/d/f", chown(7, -1), D, ROOT),
    Change("the group of a file", "rootfs/d/f", chown(-1, 7), D, ROOT),
    Change("the owner of a directory", "rootfs/d", chown(7, 7), D, ROOT),
    Change("the owner of a symlink", "rootfs/l", chown(7, 7), D, ROOT),
    Change("the owner of a device", "rootfs/dev", chown(7, 7), D, ROOT),
    Change("the owner of a fifo", "rootfs/ff", chown(7, 7), D, ROOT),
    Change("the owner of an implicit directory", "rootfs/imp", chown(7, 7), D, ROOT),
    Change("the owner of the root, which no entry names", "rootfs", chown(7, 7), D, ROOT),
    # Times
    Change("the time of a file", "rootfs/d/f", date),
    Change("the time of an empty file", "rootfs/empty", date),
    Change("the time of a directory", "rootfs/d", date),
    Change("the time of a symlink", "rootfs/l", date),
    Change("the time of a fifo", "rootfs/ff", date),
    Change("the time of a device", "rootfs/dev", date, D, ROOT),
    Change("the time of an implicit directory", "rootfs/imp", date),
    Change("the time of the root, which no entry names", "rootfs", date),
    # Extended attributes
    Change("an attribute with another value", "rootfs/ux", set_xattr("user.k", b"w")),
    Change("an attribute lost", "rootfs/ux", remove_xattr("user.k")),
    Change("one more attribute of a file", "rootfs/d/f", set_xattr("user.zz", b"1")),
    Change("one more attribute of a directory", "rootfs/d", set_xattr("user.zz", b"1")),
    Change("one more attribute of an implicit directory", "rootfs/imp", set_xattr("user.zz", b"1")),
    Change("one more attribute of the root", "rootfs", set_xattr("user.zz", b"1")),
    Change("one more attribute of a symlink", "rootfs/l", set_xattr("trusted.zz", b"1"), D, ROOT),
    Change("one more attribute of a device", "rootfs/dev", set_xattr("trusted.zz", b"1"), D, ROOT),
    Change("an attribute trusted.* with another value", "rootfs/tx", set_xattr("trusted.k", b"w"), D, ROOT),
    Change("an attribute trusted.* lost", "rootfs/tx", remove_xattr("trusted.k"), D, ROOT),
    Change("other capabilities", "rootfs/cap", set_xattr("security.capability", EVERYTHING), D, ROOT),
    Change("capabilities lost", "rootfs/cap", remove_xattr("security.capability"), D, ROOT),
    Change("capabilities added", "rootfs/d/f", set_xattr("security.capability", CAPABILITY), D, ROOT),
    Change("another ACL", "rootfs/acl", set_xattr("system.posix_acl_access", OTHER_ACL), D, ROOT),
    Change("an ACL lost", "rootfs/acl", remove_xattr("system.posix_acl_access"), D, ROOT),
    Change("an ACL added", "rootfs/d/f", set_xattr("system.posix_acl_access", ACL)),
    Change("a default ACL added", "rootfs/d", set_xattr("system.posix_acl_default", ACL)),
    Change("overlayfs: a directory redirected", "rootfs/d", set_xattr("trusted.overlay.redirect", b"/op"), D, ROOT),
    Change("overlayfs: a file of metadata only", "rootfs/d/f", set_xattr("trusted.overlay.metacopy", b""), D, ROOT),
    # Whiteouts
    Change("a whiteout lost", "rootfs/gone", keep_times(of_whiteout(Path.unlink), above=True)),
    Change("a whiteout made a file", "rootfs/gone", of_whiteout(anew(lambda p: p.write_bytes(b"x")))),
    Change("the mode of a whiteout", "rootfs/gone", of_whiteout(chmod(0o666))),
    Change("the owner of a whiteout", "rootfs/gone", of_whiteout(chown(7, 7)), D, ROOT),
    Change("two whiteouts made one", "rootfs/gone", keep_times(of_whiteout(two_whiteouts_as_one), above=True)),
    Change("an opaque directory that is none now", "rootfs/op", remove_mark),
    Change("overlayfs: another opaque mark", "rootfs/op", set_xattr("trusted.overlay.opaque", b"x"), D, ROOT),
    Change("a directory made opaque", "rootfs/d", set_xattr("trusted.overlay.opaque", b"y"), D, ROOT),
    Change("the root made opaque", "rootfs", set_xattr("trusted.overlay.opaque", b"y"), D, ROOT),
    Change("an implicit directory made opaque", "rootfs/imp", set_xattr("trusted.overlay.opaque", b"y"), D, ROOT),
    # Hard links
    Change("a hard link made a file of its own", "rootfs/h", keep_times(copy, above=True)),
    Change("two equal files made one", "rootfs/d/g", link_to("f")),
    Change("content of a hard link to what was replaced", "rootfs/rh", write(0, b"EVL")),
    Change("mode of a hard link to what was replaced", "rootfs/rh", chmod(0o4777)),
    Change("owner of a hard link to what was replaced", "rootfs/rh", chown(7, 7), D, ROOT),
    Change("content of a hard link to an empty file that was replaced", "rootfs/eh", write(0, b"EVIL")),
    Change("mode of a hard link to an empty file that was replaced", "rootfs/eh", chmod(0o4777)),
    Change("a second hard link to it made a file of its own", "rootfs/eh2", anew(lambda p: p.touch(0o644))),
    Change("target of a linked symlink that was replaced", "rootfs/sh", anew(lambda p: p.symlink_to("/evil"))),
    Change("number of a linked device that was replaced", "rootfs/dvh", anew(node(stat.S_IFBLK, 8, 0, 0o600)), D, ROOT),
    # What was replaced
    Change("a byte of a file that was replaced", "replaced/3", write(0, b"EVL")),
    Change("the mode of a file that was replaced", "replaced/3", chmod(0o4777)),
    Change("the time of a file that was replaced", "replaced/3", date),
    Change("no file that was replaced", "replaced/3", Path.unlink),
    Change("one more file among those", "replaced/99", Path.touch),
    Change("one more path among those", "replaced/paths", append(b"nowhere\0")),
    Change("none of those", "replaced", shutil.rmtree),
    # tar-split.zst
    Change("a byte of tar-split.zst", "tar-split.zst", write(40, b"\xa5")),
    Change("tar-split.zst compressed anew", "tar-split.zst", compress_anew),
    Change("tar-split.zst cut off", "tar-split.zst", lambda p: os.truncate(p, p.stat().st_size - 1), S),
    Change("something behind tar-split.zst", "tar-split.zst", append(b"junk"), S),
    Change("an empty frame behind tar-split.zst", "tar-split.zst", append(bytes.fromhex("28b52ffd2000010000")), S),
    Change("no tar-split.zst", "tar-split.zst", Path.unlink, S),
    # layer.pb
    *(
        Change(f"layer.pb: {field}", "layer.pb", record(**{field: value}), S)
        for field, value in {
            "diff_id": "sha256:" + "0" * 64,
            "size_bytes": 3,
            "entries": 3,
            "whiteouts": 0,
            "implicit_directories": b"nowhere",
            "unset": "owner",
            "unset_count": 5000,
            "stored_bytes": 1 << 50,
            "replaced_lost": True,
            "uid": 7,
            "gid": 7,
            "earliest": 0,
            "latest": 5,
            "time_step_ns": 10**9,
            "split_bytes": 3,
            "split_checksum": 3,
            "replaced_checksum": 3,
            "inodes": 3,
            "implicit_root": False,
            "lower_links": b"nowhere",
            "opaque_directories": b"nowhere",
            "hiding_directories": b"nowhere",
            "checksum": 3,
        }.items()
    ),
    Change("layer.pb without its checksum", "layer.pb", record_without_checksum, S),
    Change("layer.pb cut off", "layer.pb", lambda p: os.truncate(p, p.stat().st_size // 2), S),
    Change("something behind layer.pb", "layer.pb", append(b"\x18\x05"), S),
    Change("no layer.pb", "layer.pb", Path.unlink, S),
    Change("layer.pb with another count, and its checksum", "layer.pb", record_made_anew(count_one_more)),
    Change("layer.pb with a hard link to a lower file that no entry made, and its checksum", "layer.pb",
           record_made_anew(lambda record: record.lower_links.add(path=b"nowhere", target=b"f"))),
    Change("layer.pb with another target of such a link, and its checksum", "layer.pb",
           record_made_anew(lead_elsewhere)),
    Change("layer.pb without such a link, and its checksum", "layer.pb",
           record_made_anew(lambda record: record.ClearField("lower_links"))),
    Change("layer.pb without an opaque directory, and its checksum", "layer.pb",
           record_made_anew(lambda record: record.ClearField("opaque_directories"))),
    Change("layer.pb without a directory that hides something, and its checksum", "layer.pb",
           record_made_anew(lambda record: record.ClearField("hiding_directories"))),
    Change("layer.pb where an entry names the root, and its checksum", "layer.pb",
           record_made_anew(lambda record: setattr(record, "implicit_root", False))),
    # The layer's directory
    Change("no rootfs", "rootfs", shutil.rmtree, S),
    Change("one more file beside rootfs", "new", Path.touch, S),
    Change("one more directory beside rootfs", "new", Path.mkdir, S),
    # What is not found
    Change("zeros in a hole, or a hole for zeros", "rootfs/sp", fill_hole, "the content is the same"),
    Change("a name outside of the layer", "rootfs/d/f", lambda p: os.link(p, p.parents[3] / "outside"),
           "copies that are made of hard links are sound"),
    Change("the time of a whiteout", "rootfs/gone", of_whiteout(date), "no entry gives it one, and nobody sees it"),
    Change("the time when a file was last read", "rootfs/d/f", lambda p: os.utime(p, (1, p.stat().st_mtime)),
           "reading changes it"),
    Change("a flag of chattr(1)", "rootfs/d/f", set_flag, "a layer has none"),
    Change("mode and time of layer.pb", "layer.pb", lambda p: (p.chmod(0o400), date(p)), "its content counts"),
    Change("mode and time of tar-split.zst", "tar-split.zst", lambda p: (p.chmod(0o400), date(p)),
           "its content counts"),
    Change("mode and time of the layer's directory", "", lambda p: (p.chmod(0o700), date(p)),
           "a store may be opened to others, or not"),
    Change("mode and time of replaced/", "replaced", lambda p: (p.chmod(0o755), date(p)), "what is in it counts"),
    Change("the owner of replaced/", "replaced", chown(7, 7), "what is in it counts", ROOT),
    Change("attributes of replaced/", "replaced", set_xattr("user.zz", b"1"), "what is in it counts"),
    Change("mode and time of replaced/paths", "replaced/paths", lambda p: (p.chmod(0o644), date(p)),
           "its content counts"),
    Change("a second name of replaced/paths", "replaced/paths", lambda p: os.link(p, p.parents[2] / "outside"),
           "copies that are made of hard links are sound"),
    Change("the owner of tar-split.zst", "tar-split.zst", chown(7, 7), "its content counts", ROOT),
    Change("attributes of layer.pb", "layer.pb", set_xattr("user.zz", b"1"), "its content counts"),
    Change("attributes of tar-split.zst", "tar-split.zst", set_xattr("user.zz", b"1"), "its content counts"),
    Change("attributes of the layer's directory", "", set_xattr("user.zz", b"1"), "nothing of the layer is in them"),
    Change("space reserved for a file by fallocate(2)", "rootfs/d/f", keep_times(reserve), "the content is the same"),
    Change("a label of a security module", "rootfs/d/f", set_xattr("security.selinux", b"x\0"),
           "the system sets it by itself", ROOT),
    Change("layer.pb as an older version wrote it", "layer.pb", old_record,
           "it is sound; the check says what it cannot see"),
    Change("the owner of layer.pb", "layer.pb", chown(7, 7),
           "the check says that owners cannot be compared", ROOT),
]  # fmt: skip
CHANGES = {change.what: change for change in _ALL}
assert len(CHANGES) == len(_ALL)
