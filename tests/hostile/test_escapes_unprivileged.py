"""Layers that reach for what lies outside, unpacked by an ordinary user who may write there."""

from __future__ import annotations

import os

import pytest
from support import tars
from support.layers import refusal
from support.privileges import ORDINARY_USER, as_ordinary_user
from support.trees import describe

from pykka_imagestore.core.limits import DEFAULT_LIMITS

OUT = b"../../outside"
ATTACKS = {
    "name": [tars.file(OUT + b"/secret", b"changed")],
    "pax name": [tars.pax({b"path": OUT + b"/secret"}), tars.file(b"f", b"changed")],
    "GNU name": [tars.long_name(OUT + b"/secret"), tars.file(b"f", b"changed")],
    "sparse name": [tars.pax_sparse("1.0", OUT + b"/secret", 9, [(0, 1)], b"x")],
    "symlink": [tars.symlink(b"s", OUT), tars.file(b"s/secret", b"changed")],
    "symlinked directory": [
        tars.symlink(b"s", OUT),
        tars.directory(b"s", mode=0o777),
        tars.file(b"s/secret", b"changed"),
    ],
    "symlink in place of a directory": [tars.file(b"d/f"), tars.symlink(b"d", OUT), tars.file(b"d/secret", b"changed")],
    "symlink in place of a directory with a time": [tars.directory(b"d", mode=0o777, mtime=7), tars.symlink(b"d", OUT)],
    "sparse file through a symlink": [tars.symlink(b"s", OUT), tars.gnu_sparse(b"s/secret", 9, [(0, 1)], b"x")],
    "hard link": [tars.hard_link(b"l", OUT + b"/secret"), tars.file(b"l", b"changed")],
    "hard link through a symlink": [tars.symlink(b"s", OUT), tars.hard_link(b"l", b"s/secret")],
    "whiteout": [tars.whiteout(OUT + b"/secret")],
    "whiteout through a symlink": [tars.symlink(b"s", OUT), tars.whiteout(b"s/secret")],
    "opaque through a symlink": [tars.symlink(b"s", OUT), tars.opaque(b"s")],
    "overlay's own attribute": [
        tars.pax({b"SCHILY.xattr.user.overlay.redirect": b"/outside"}),
        tars.directory(b"d"),
        tars.pax({b"SCHILY.xattr.user.overlay.metacopy": b""}),
        tars.file(b"f"),
    ],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_outside_changes(users_directory, attack):
    outside, place = users_directory / "outside", users_directory / "place"
    for directory in (outside, place):
        directory.mkdir()
        if os.geteuid() == 0:
            os.chown(directory, ORDINARY_USER, ORDINARY_USER)
    (outside / "secret").write_bytes(b"unchanged")
    (outside / "secret").chmod(0o666)
    before = describe(outside)

    as_ordinary_user(refusal, tars.tar(*ATTACKS[attack]), str(place), DEFAULT_LIMITS)

    assert describe(outside) == before
    assert set(os.listdir(place)) <= {"layer", "layer.tar"}
    found = [key for node in describe(place).values() for key, _ in node.xattrs]
    assert not {"user.overlay.redirect", "user.overlay.metacopy"} & set(found)
