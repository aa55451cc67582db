"""Stacks of tars, each with the tree that it means."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from support import tars
from support.attributes import MAY_BIND_LOW_PORTS, NOBODYS, acl
from support.trees import Node

Tree = dict[bytes, Node]
SEGMENTS = [(0, 4096), (1 << 20, 4096)]
HOLES = b"a" * 4096 + bytes((1 << 20) - 4096) + b"b" * 4096 + bytes((4 << 20) - (1 << 20) - 4096)
ACL = acl((1, 6, NOBODYS), (2, 4, 1000), (4, 4, NOBODYS), (16, 4, NOBODYS), (32, 0, NOBODYS))
DEFAULT_ACL = acl((1, 7, NOBODYS), (2, 4, 1000), (4, 5, NOBODYS), (16, 5, NOBODYS), (32, 0, NOBODYS))
SYMLINK_MODE = 0o777


@dataclass(frozen=True)
class Sample:
    """A stack of tars and what it means; the root is left out where no tar says anything of it."""

    tars: tuple[bytes, ...]
    tree: Tree


def of(kind: str, mode: int, content: bytes = b"", **fields: Any) -> Node:
    """Return a node of root's and of time 0, unless ``fields`` say otherwise; its one name is filled in later."""
    if kind == "f":
        content = hashlib.sha256(content).digest()
    return Node(
        **{
            "kind": kind,
            "mode": mode,
            "owner": (0, 0),
            "mtime_ns": 0,
            "content": content,
            "xattrs": (),
            "same_as": b"",
            **fields,
        }
    )


def sample(layers: list[bytes], tree: Tree) -> Sample:
    named = {path: node if node.same_as else replace(node, same_as=path) for path, node in tree.items()}
    return Sample(tuple(map(tars.tar, layers)), {b"": replace(of("d", 0o755), same_as=b""), **named})


def at(seconds: int) -> int:
    return seconds * 1_000_000_000


def _xattrs(entry: bytes, **values: bytes) -> bytes:
    return (
        tars.pax({b"SCHILY.xattr." + key.replace("__", ".").encode(): value for key, value in values.items()}) + entry
    )


def for_ordinary_user(tree: Tree, user: int) -> Tree:
    """Return what a user makes of a tree who may make no devices, give nothing away, and set no privileged attribute.

    Set-ID bits speak of the owner: what does not get its owner does not get them either.
    """
    return {
        path: replace(
            node,
            mode=node.mode if node.owner == (user, user) else node.mode & ~0o6000,
            owner=(user, user),
            xattrs=tuple(pair for pair in node.xattrs if not pair[0].startswith(("security.", "trusted."))),
        )
        for path, node in tree.items()
        if node.kind not in "cb"
    }


DIRECTORY = of("d", 0o755)
FILE = of("f", 0o644)
DEEP = b"/".join([b"%03d" % number for number in range(200)])
LONG = b"n" * 255
MANY = [b"many/%04d" % number for number in range(1000)]

CLOSED = "directories that their owner may not enter"
SAMPLES: dict[str, Sample] = {
    "no layer": sample([], {}),
    "an empty layer": sample([b""], {}),
    "a directory that a layer only implies": sample(
        [
            tars.directory(b"tmp", mode=0o1777, uid=5, gid=6, mtime=100) + tars.directory(b"a", mode=0o700, mtime=7),
            tars.file(b"tmp/x", b"x") + tars.file(b"a/b/y", b"y"),
            tars.file(b"tmp/z", b"z") + tars.directory(b"a/b", mode=0o711, mtime=8),
        ],
        {
            b"tmp": of("d", 0o1777, owner=(5, 6), mtime_ns=at(100)),
            b"tmp/x": of("f", 0o644, b"x"),
            b"tmp/z": of("f", 0o644, b"z"),
            b"a": of("d", 0o700, mtime_ns=at(7)),
            b"a/b": of("d", 0o711, mtime_ns=at(8)),
            b"a/b/y": of("f", 0o644, b"y"),
        },
    ),
    "whiteouts": sample(
        [
            tars.file(b"a") + tars.file(b"d/x") + tars.file(b"d/y") + tars.file(b"d/e/f") + tars.file(b"keep/a"),
            tars.whiteout(b"a") + tars.whiteout(b"d/x") + tars.opaque(b"d/e") + tars.file(b"d/e/g", b"g"),
            tars.whiteout(b"keep/none") + tars.whiteout(b"d/y") + tars.file(b"d/x", b"again"),
        ],
        {
            b"d": DIRECTORY,
            b"d/x": of("f", 0o644, b"again"),
            b"d/e": DIRECTORY,
            b"d/e/g": of("f", 0o644, b"g"),
            b"keep": DIRECTORY,
            b"keep/a": FILE,
        },
    ),
    "whiteouts where nothing is merged": sample(
        [
            tars.whiteout(b"never") + tars.whiteout(b"low/never") + tars.file(b"d/secret") + tars.file(b"d/e/f"),
            tars.directory(b"d", mode=0o711, mtime=2)
            + tars.opaque(b"d")
            + tars.whiteout(b"d/secret")
            + tars.directory(b"new/in", mode=0o1777, uid=5, mtime=3)
            + tars.whiteout(b"new/in/never")
            + tars.whiteout(b"new/never")
            + tars.file(b"new/in/f"),
        ],
        {
            b"low": DIRECTORY,
            b"d": of("d", 0o711, mtime_ns=at(2)),
            b"new": DIRECTORY,
            b"new/in": of("d", 0o1777, owner=(5, 0), mtime_ns=at(3)),
            b"new/in/f": FILE,
        },
    ),
    "one layer that hides something": sample(
        [tars.whiteout(b"a") + tars.file(b"b") + tars.opaque(b"d") + tars.whiteout(b"d/x")],
        {b"b": FILE, b"d": DIRECTORY},
    ),
    "opaque over opaque": sample(
        [
            tars.directory(b"d", mode=0o700) + tars.file(b"d/1") + tars.file(b"d/s/1"),
            tars.opaque(b"d") + tars.file(b"d/2") + tars.file(b"d/s/2"),
            tars.directory(b"d", mode=0o711, mtime=3) + tars.opaque(b"d") + tars.file(b"d/3") + tars.file(b"d/s/3"),
            tars.file(b"d/4"),
        ],
        {
            b"d": of("d", 0o711, mtime_ns=at(3)),
            b"d/3": FILE,
            b"d/4": FILE,
            b"d/s": DIRECTORY,
            b"d/s/3": FILE,
        },
    ),
    "one kind over another, and back": sample(
        [
            tars.directory(b"a") + tars.file(b"a/old") + tars.file(b"b") + tars.symlink(b"c", b"a") + tars.file(b"e/f"),
            tars.file(b"a", b"file") + tars.directory(b"b", mode=0o700) + tars.file(b"b/new") + tars.file(b"c/in"),
            tars.directory(b"a", mode=0o750)
            + tars.file(b"a/new")
            + tars.symlink(b"b", b"..")
            + tars.symlink(b"e", b"a"),
        ],
        {
            b"a": of("d", 0o750),
            b"a/new": FILE,
            b"b": of("l", SYMLINK_MODE, b".."),
            b"c": DIRECTORY,
            b"c/in": FILE,
            b"e": of("l", SYMLINK_MODE, b"a"),
        },
    ),
    "hard links": sample(
        [
            tars.file(b"a/1", b"one", mode=0o600, mtime=9)
            + tars.hard_link(b"b/2", b"a/1")
            + tars.hard_link(b"c/3", b"a/1")
            + tars.file(b"x", b"alone")
            + tars.hard_link(b"y", b"x")
            + tars.symlink(b"s", b"t")
            + tars.hard_link(b"s2", b"s"),
            tars.whiteout(b"a/1") + tars.whiteout(b"y"),
        ],
        {
            b"a": DIRECTORY,
            b"b": DIRECTORY,
            b"b/2": of("f", 0o600, b"one", mtime_ns=at(9)),
            b"c": DIRECTORY,
            b"c/3": of("f", 0o600, b"one", mtime_ns=at(9), same_as=b"b/2"),
            b"x": of("f", 0o644, b"alone"),
            b"s": of("l", SYMLINK_MODE, b"t"),
            b"s2": of("l", SYMLINK_MODE, b"t", same_as=b"s"),
        },
    ),
    "a hard link to a file of a lower layer": sample(
        [tars.file(b"a/1", b"one", mode=0o600, mtime=9), tars.hard_link(b"b", b"a/1")],
        {
            b"a": DIRECTORY,
            b"a/1": of("f", 0o600, b"one", mtime_ns=at(9)),
            b"b": of("f", 0o600, b"one", mtime_ns=at(9), same_as=b"a/1"),
        },
    ),
    "holes": sample(
        [tars.pax_sparse("1.0", b"holes", 4 << 20, SEGMENTS, b"a" * 4096 + b"b" * 4096)],
        {b"holes": of("f", 0o644, HOLES)},
    ),
    "attributes": sample(
        [
            tars.file(b"suid", b"#!", mode=0o4755, uid=1000, gid=1000, mtime=1)
            + tars.file(b"sgid", b"#!", mode=0o2711, gid=7)
            + tars.directory(b"sgid-d", mode=0o3775, uid=9, gid=8)
            + tars.file(b"sgid-d/f", b"f", uid=1, gid=2)
            + _xattrs(tars.file(b"cap", b"#!", mode=0o755, uid=3), security__capability=MAY_BIND_LOW_PORTS)
            + _xattrs(tars.file(b"user", b"u", mode=0o444), user__a=b"b\0\n=c", user__e=b"")
            + _xattrs(tars.directory(b"user-d", mode=0o555), user__d=b"x" * 3000)
            + tars.file(b"user-d/f")
            + _xattrs(tars.file(b"acl", mode=0o640), system__posix_acl_access=ACL)
            + _xattrs(tars.directory(b"acl-d", mode=0o750), system__posix_acl_default=DEFAULT_ACL)
            + tars.file(b"acl-d/f")
            + tars.directory(b"acl-d/e", mode=0o777)
            + tars.symlink(b"link", b"/etc/../x", uid=4, gid=5, mtime=6)
            + tars.pax({b"mtime": b"1.5"})
            + tars.file(b"half")
            + tars.pax({b"mtime": b"-2.25"})
            + tars.file(b"before"),
            tars.file(b"user-d/g"),
        ],
        {
            b"suid": of("f", 0o4755, b"#!", owner=(1000, 1000), mtime_ns=at(1)),
            b"sgid": of("f", 0o2711, b"#!", owner=(0, 7)),
            b"sgid-d": of("d", 0o3775, owner=(9, 8)),
            b"sgid-d/f": of("f", 0o644, b"f", owner=(1, 2)),
            b"cap": of("f", 0o755, b"#!", owner=(3, 0), xattrs=(("security.capability", MAY_BIND_LOW_PORTS),)),
            b"user": of("f", 0o444, b"u", xattrs=(("user.a", b"b\0\n=c"), ("user.e", b""))),
            b"user-d": of("d", 0o555, xattrs=(("user.d", b"x" * 3000),)),
            b"user-d/f": FILE,
            b"user-d/g": FILE,
            b"acl": of("f", 0o640, xattrs=(("system.posix_acl_access", ACL),)),
            b"acl-d": of("d", 0o750, xattrs=(("system.posix_acl_default", DEFAULT_ACL),)),
            b"acl-d/f": FILE,
            b"acl-d/e": of("d", 0o777),
            b"link": of("l", SYMLINK_MODE, b"/etc/../x", owner=(4, 5), mtime_ns=at(6)),
            b"half": of("f", 0o644, mtime_ns=1_500_000_000),
            b"before": of("f", 0o644, mtime_ns=-2_250_000_000),
        },
    ),
    "devices and fifos": sample(
        [
            tars.header(b"null", tars.CHARACTER_DEVICE, major=1, minor=3, mode=0o666, gid=5, mtime=2)
            + tars.header(b"disk", tars.BLOCK_DEVICE, major=7, minor=300, mode=0o660)
            + tars.header(b"pipe", tars.FIFO, mode=0o622, mtime=3),
            tars.header(b"disk", tars.FIFO, mode=0o600),
        ],
        {
            b"null": of("c", 0o666, b"1:3", owner=(0, 5), mtime_ns=at(2)),
            b"disk": of("p", 0o600),
            b"pipe": of("p", 0o622, mtime_ns=at(3)),
        },
    ),
    CLOSED: sample(
        [
            tars.directory(b"closed", mode=0) + tars.file(b"closed/f", b"f", mode=0),
            tars.directory(b"closed/in", mode=0o111) + tars.file(b"closed/in/g"),
        ],
        {
            b"closed": of("d", 0),
            b"closed/f": of("f", 0, b"f"),
            b"closed/in": of("d", 0o111),
            b"closed/in/g": FILE,
        },
    ),
    "deep and long names": sample(
        [tars.file(DEEP + b"/f", b"deep") + tars.file(LONG, b"long"), tars.file(DEEP + b"/g")],
        {
            **{DEEP[: 4 * depth + 3]: DIRECTORY for depth in range(200)},
            DEEP + b"/f": of("f", 0o644, b"deep"),
            DEEP + b"/g": FILE,
            LONG: of("f", 0o644, b"long"),
        },
    ),
    "names that are no text": sample(
        [tars.file(b"\xff\xfe", b"1") + tars.file(b"d\n/\x01 \\", b"2") + tars.symlink(b"s", b"\xff\n")],
        {
            b"\xff\xfe": of("f", 0o644, b"1"),
            b"d\n": DIRECTORY,
            b"d\n/\x01 \\": of("f", 0o644, b"2"),
            b"s": of("l", SYMLINK_MODE, b"\xff\n"),
        },
    ),
    "many files": sample(
        [b"".join(tars.file(name, name) for name in MANY), tars.whiteout(MANY[7]) + tars.file(MANY[8], b"other")],
        {
            b"many": DIRECTORY,
            **{name: of("f", 0o644, name) for name in MANY if name != MANY[7]},
            MANY[8]: of("f", 0o644, b"other"),
        },
    ),
    "the root": sample(
        [
            _xattrs(tars.directory(b"./", mode=0o711, uid=3, gid=4, mtime=5), user__r=b"r") + tars.file(b"f"),
            tars.file(b"g"),
        ],
        {b"": of("d", 0o711, owner=(3, 4), mtime_ns=at(5), xattrs=(("user.r", b"r"),)), b"f": FILE, b"g": FILE},
    ),
    "one layer, whose marks hide nothing": sample(
        [tars.file(b"d/f", b"f") + tars.symlink(b"l", b"d")],
        {b"d": DIRECTORY, b"d/f": of("f", 0o644, b"f"), b"l": of("l", SYMLINK_MODE, b"d")},
    ),
}
