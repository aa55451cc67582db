"""Attributes reach what was made for an entry, whatever somebody puts in its place meanwhile."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest
from support.attributes import MAY_BIND_LOW_PORTS

from pykka_imagestore.core.tar.format import BLOCK_DEVICE, CHARACTER_DEVICE, FIFO, FILE, SYMLINK, Entry
from pykka_imagestore.fs.attributes import Attributes

NODE = b"node"
SET_USER_ID = 0o4666
OTHER = (4242, 4243)
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "a mode": {"mode": 0o666},
    "set-user-ID": {"mode": SET_USER_ID},
    "an owner": {"uid": OTHER[0], "gid": OTHER[1]},
    "an owner and set-user-ID": {"mode": SET_USER_ID, "uid": OTHER[0], "gid": OTHER[1]},
    "a capability": {"xattrs": {b"security.capability": MAY_BIND_LOW_PORTS}},
    "an owner and a capability": {"uid": 7, "gid": 7, "xattrs": {b"security.capability": MAY_BIND_LOW_PORTS}},
    "an attribute": {"xattrs": {b"trusted.of": b"the layer"}},
}


def entry_of(kind, *, mode=0o644, uid=0, gid=0, xattrs=None):
    major, minor = (1, 3) if kind in (CHARACTER_DEVICE, BLOCK_DEVICE) else (0, 0)
    return Entry(0, kind, NODE, b"", mode, uid, gid, 0, 1_000_000_000, major, minor, xattrs or {})


def state_of(path):
    status = path.lstat()
    named = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, named


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "tree").mkdir()
    descriptor = os.open(tmp_path / "tree", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def victim(tmp_path):
    """Return a file of this user's that must stay as it is."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"private")
    victim.chmod(0o600)
    before = state_of(victim)
    yield victim
    assert state_of(victim) == before


def swap(by, victim, directory):
    """Put something else where an entry's node was made."""
    os.unlink(NODE, dir_fd=directory)
    if by == "symlink":
        os.symlink(victim, NODE, dir_fd=directory)
    elif by == "hard link":
        os.link(victim, NODE, dst_dir_fd=directory)
    elif by == "file":
        os.close(os.open(NODE, os.O_CREAT | os.O_WRONLY, 0o755, dir_fd=directory))
    elif by == "device":
        os.mknod(NODE, stat.S_IFCHR | 0o600, os.makedev(1, 5), dir_fd=directory)


@pytest.mark.root
@pytest.mark.parametrize("by", ["symlink", "hard link", "file", "device", "nothing"])
@pytest.mark.parametrize("kind", [FIFO, CHARACTER_DEVICE, BLOCK_DEVICE])
@pytest.mark.parametrize("attributes", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_attributes_of_a_node_reach_nothing_that_was_put_in_its_place(
    tmp_path, directory, victim, by, kind, attributes
):
    os.mkfifo(NODE, 0o644, dir_fd=directory)
    swap(by, victim, directory)
    there = tmp_path / "tree" / "node"
    before = state_of(there) if by != "nothing" else None

    with pytest.raises(OSError, match=r"somebody else changes what is in the directory|No such file"):
        Attributes().finish_node(entry_of(kind, **attributes), NODE, NODE, directory)

    assert (state_of(there) if by != "nothing" else None) == before


@pytest.mark.root
@pytest.mark.parametrize("by", ["symlink", "hard link", "file"])
@pytest.mark.parametrize("attributes", ["an owner", "a capability", "an owner and a capability", "an attribute"])
def test_attributes_of_a_symlink_reach_no_file_that_was_put_in_its_place(directory, victim, by, attributes):
    os.symlink("nowhere", NODE, dir_fd=directory)
    swap(by, victim, directory)

    try:
        Attributes().finish_node(entry_of(SYMLINK, **ATTRIBUTES[attributes]), NODE, NODE, directory)
    except OSError as error:
        assert by != "symlink"
        assert "somebody else changes" in str(error)  # noqa: PT017 - another symlink is as good
    else:
        assert by == "symlink"


@pytest.mark.root
@pytest.mark.parametrize("kind", [FIFO, CHARACTER_DEVICE, BLOCK_DEVICE, SYMLINK])
@pytest.mark.parametrize("attributes", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_a_node_gets_its_attributes(tmp_path, directory, kind, attributes):
    types = {FIFO: stat.S_IFIFO, CHARACTER_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}
    entry = entry_of(kind, **attributes)
    if kind == SYMLINK:
        os.symlink("nowhere", NODE, dir_fd=directory)
    else:
        os.mknod(NODE, types[kind] | entry.mode & 0o777, os.makedev(entry.major, entry.minor), dir_fd=directory)

    Attributes().finish_node(entry, NODE, NODE, directory)

    mode, uid, gid, mtime_ns, xattrs = state_of(tmp_path / "tree" / "node")
    assert kind == SYMLINK or mode == entry.mode
    assert (uid, gid, mtime_ns) == (entry.uid, entry.gid, entry.mtime_ns)
    assert {os.fsencode(key): value for key, value in xattrs.items()} == entry.xattrs


@pytest.mark.root
def test_attributes_of_a_file_stay_with_it_wherever_its_name_leads(directory, victim):
    attributes = Attributes()
    entry = entry_of(FILE, mode=0o6755, uid=OTHER[0], gid=OTHER[1], xattrs={b"security.capability": MAY_BIND_LOW_PORTS})
    file = attributes.create_file(entry, directory, NODE)
    swap("symlink", victim, directory)

    attributes.finish_file(entry, b"", NODE, file)

    status = os.fstat(file)
    os.close(file)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o6755, *OTHER)


@pytest.mark.parametrize("by", ["symlink", "hard link", "file"])
def test_no_file_is_made_through_what_lies_in_its_place(directory, victim, by):
    os.mkfifo(NODE, dir_fd=directory)
    swap(by, victim, directory)

    with pytest.raises(FileExistsError):
        Attributes().create_file(entry_of(FILE), directory, NODE)
