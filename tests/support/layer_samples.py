"""Layers that tests of several modules unpack: of everything, of others' files, and of what replaces itself."""

from __future__ import annotations

import os
from typing import Any

from support import tars
from support.attributes import MAY_BIND_LOW_PORTS

SEGMENTS = [(0, 5), (100_000, 7)]
# Something of each kind; owned by whoever runs the tests, so that there is nothing that he could not set.
OWNER: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid()}
PARTS = (
    tars.directory(b"./", **OWNER),
    tars.directory(b"d", mode=0o750, **OWNER),
    tars.file(b"d/f", b"x" * 5000, mode=0o640, **OWNER),
    tars.file(b"d/large", bytes(range(256)) * 2000, **OWNER),
    tars.file(b"empty", **OWNER),
    tars.symlink(b"d/s", b"f", **OWNER),
    tars.hard_link(b"h", b"d/f", **OWNER),
    tars.header(b"p", tars.FIFO, mode=0o600, **OWNER),
    tars.file(b"implicit/f", b"y", **OWNER),
    tars.gnu_sparse(b"holes", 200_000, SEGMENTS, b"a" * 12, **OWNER),
    tars.pax({b"SCHILY.xattr.user.a": b"b"}) + tars.file(b"x", b"z", **OWNER),
    tars.whiteout(b"d/gone"),
    tars.opaque(b"d"),
)

OLD = tars.file(b"d/f", b"old" * 1000, **OWNER)
NEW = tars.file(b"d/f", b"new", **OWNER)
REPLACED = {
    "a file by a file": (OLD, NEW),
    "a file by many": (*(tars.file(b"f", b"%d" % number, **OWNER) for number in range(9)),),
    "a file by an empty one, and back": (OLD, tars.file(b"d/f", **OWNER), NEW, OLD),
    "a file by a symlink": (OLD, tars.symlink(b"d/f", b"x", **OWNER)),
    "a file by a directory": (OLD, tars.directory(b"d/f", **OWNER), tars.file(b"d/f/g", b"1", **OWNER)),
    "a directory with all below it": (OLD, tars.file(b"d/e/g", b"2", **OWNER), tars.file(b"d", b"file", **OWNER)),
    "a directory twice": (
        OLD,
        tars.file(b"d", b"1", **OWNER),
        tars.directory(b"d", **OWNER),
        NEW,
        tars.file(b"d", b"2"),
    ),
    "a hard link by a file": (OLD, tars.hard_link(b"h", b"d/f"), tars.file(b"h", b"1", **OWNER), tars.file(b"h", b"2")),
    "a file that has another name": (OLD, tars.hard_link(b"h", b"d/f"), NEW, tars.hard_link(b"i", b"d/f")),
    "a file by a link to itself": (OLD, NEW, tars.hard_link(b"d/f", b"d/f"), OLD),
    "a sparse file": (tars.gnu_sparse(b"d/f", 200_000, SEGMENTS, b"a" * 12, **OWNER), NEW),
    "a directory's attributes": (
        tars.directory(b"d", mode=0o700, **OWNER),
        OLD,
        tars.directory(b"d", mode=0o711, **OWNER),
    ),
    "the root's attributes": (tars.directory(b".", mode=0o700, **OWNER), tars.directory(b"./", mode=0o755, **OWNER)),
    "a whiteout by a file": (tars.whiteout(b"d/f"), tars.whiteout(b"d/f"), OLD, tars.whiteout(b"d/f"), NEW),
    "a whiteout by a directory": (tars.whiteout(b"d"), OLD),
    "whiteouts by a file": (tars.whiteout(b"d/x"), tars.opaque(b"d"), OLD, tars.file(b"d", b"1", **OWNER)),
    "a directory that no entry names, opaque": (tars.opaque(b"d"), tars.file(b"d", b"1", **OWNER)),
    "a link's target, and then its directory": (
        OLD,
        tars.hard_link(b"h", b"d/f"),
        tars.file(b"e/f", b"1", **OWNER),
        tars.symlink(b"d", b"e", **OWNER),
    ),
    "a file behind a symlink": (
        tars.directory(b"d", **OWNER),
        tars.symlink(b"s", b"d", **OWNER),
        tars.file(b"s/f", b"1", **OWNER),
        tars.hard_link(b"h", b"s/f"),
        NEW,
        tars.whiteout(b"s/gone"),
        tars.file(b"d/gone", b"back", **OWNER),
    ),
    "a directory by a symlink": (OLD, tars.directory(b"e", **OWNER), tars.symlink(b"d", b"e", **OWNER), NEW),
}

# It cannot be checked deeply: a name was replaced behind a symlink that was replaced.
UNCHECKABLE = tars.tar(
    tars.directory(b"a"),
    tars.directory(b"b"),
    tars.symlink(b"s", b"a"),
    tars.file(b"s/f", b"1"),
    tars.symlink(b"s", b"b"),
    tars.file(b"s/f", b"2"),
)
OTHERS = tars.tar(
    tars.directory(b"./", mode=0o700, uid=3),
    tars.directory(b"home", mode=0o2770, uid=1, gid=2, mtime=1),
    tars.directory(b"home/u", mode=0o700, uid=1000, gid=1000, mtime=2),
    tars.file(b"home/u/f", b"x", uid=1000, gid=1000, mode=0o600, mtime=3),
    tars.directory(b"home/u/locked", mode=0, uid=1000, mtime=4),
    tars.file(b"home/u/locked/f", b"x", uid=1001, mode=0),
    tars.symlink(b"home/u/s", b"f", uid=1000, mtime=5),
    tars.hard_link(b"home/u/z", b"home/u/locked/f"),
    tars.file(b"su", b"#!", mode=0o4755, uid=1000),
    tars.file(b"wall", b"#!", mode=0o2755, gid=5),
    tars.file(b"both", b"#!", mode=0o6755, uid=7, gid=5),
    tars.hard_link(b"linked", b"both"),
    tars.file(b"ours", b"#!", mode=0o6755),
    tars.directory(b"tmp", mode=0o1777, uid=9),
    tars.file(b"tmp/f", b"1", uid=1000),
    tars.file(b"tmp/f", b"2", uid=1000, mtime=6),
    tars.directory(b"tmp/d", mode=0o700, uid=1000),
    tars.file(b"tmp/d/f", b"gone", uid=1000),
    tars.file(b"tmp/d", b"a file now", uid=1000),
    tars.directory(b"home/u", mode=0o500, uid=1001, mtime=7),
    tars.file(b"home/u/late", b"x", uid=1001),
    tars.header(b"p", tars.FIFO, uid=7, mode=0o622, mtime=8),
    tars.header(b"null", tars.CHARACTER_DEVICE, mode=0o666, major=1, minor=3),
    tars.pax({b"SCHILY.xattr.user.a": b"1", b"SCHILY.xattr.security.capability": MAY_BIND_LOW_PORTS}),
    tars.file(b"ping", b"x", mode=0o555, uid=7),
    tars.hard_link(b"ping6", b"ping"),
    tars.pax({b"SCHILY.xattr.trusted.a": b"1", b"SCHILY.xattr.user.a": b"2"}),
    tars.directory(b"attributes", mode=0o755, uid=7, mtime=9),
    tars.whiteout(b"home/u/gone"),
    tars.opaque(b"tmp"),
)
