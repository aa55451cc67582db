from __future__ import annotations

import os
import resource
import tracemalloc
import zlib
from typing import Any

import pytest
from support import tars
from support.attributes import MAY_BIND_LOW_PORTS, NOBODYS, acl
from support.changes import ACL
from support.layers import NEWER_FIELDS, blob_at, unpack_layer, unpack_with_peers
from support.privileges import with_umask

from pykka_imagestore._proto.layer_pb2 import NONE, LayerRecord
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.errors import DigestMismatchError, EscapingEntryError, LayerError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer

root = pytest.mark.root


# -- one test for each type


def test_file_has_its_content_and_mode(unpack):
    body = os.urandom(1_000_000)

    unpacked = unpack(tars.directory(b"etc"), tars.file(b"etc/motd", body, mode=0o640))

    assert (unpacked.rootfs / "etc" / "motd").read_bytes() == body
    assert unpacked.nodes[b"etc/motd"].mode == 0o640


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 262143, 262144, 262145, 600_000])
def test_file_of_any_size_ends_where_it_should(unpack, size):
    unpacked = unpack(tars.file(b"first", b"x" * size), tars.file(b"second", b"y"))

    assert (unpacked.rootfs / "first").read_bytes() == b"x" * size
    assert (unpacked.rootfs / "second").read_bytes() == b"y"


def test_directory_has_its_mode_though_files_come_into_it_later(unpack):
    unpacked = unpack(tars.directory(b"d", mode=0o500), tars.file(b"d/f", b"x"), tars.directory(b"d/e", mode=0o700))

    assert unpacked.nodes[b"d"].mode == 0o500
    assert unpacked.kinds == {b"d": "d", b"d/f": "f", b"d/e": "d"}


@pytest.mark.parametrize("target", [b"target", b"/etc/passwd", b"../../..", b"no\nwhere\xff", b"x" * 4095])
def test_symlink_has_its_target_byte_for_byte(unpack, target):
    unpacked = unpack(tars.pax({b"linkpath": target}), tars.symlink(b"link", b""))

    assert unpacked.nodes[b"link"].content == target


def test_hard_link_is_one_file_with_its_target(unpack):
    unpacked = unpack(tars.file(b"d/a", b"x"), tars.hard_link(b"b", b"d/a"), tars.hard_link(b"e/c", b"./b"))

    assert {unpacked.nodes[path].same_as for path in (b"d/a", b"b", b"e/c")} == {b"b"}


def test_hard_link_to_a_symlink_is_a_symlink(unpack):
    unpacked = unpack(tars.symlink(b"a", b"target"), tars.hard_link(b"b", b"a"))

    assert unpacked.nodes[b"b"].content == b"target"
    assert unpacked.nodes[b"b"].same_as == b"a"


def test_hard_link_to_itself_is_what_it_was(unpack):
    unpacked = unpack(tars.file(b"a", b"x"), tars.hard_link(b"a", b"./a"))

    assert (unpacked.rootfs / "a").read_bytes() == b"x"


@root
def test_hard_link_to_a_device_is_one_device(unpack):
    unpacked = unpack(tars.header(b"a", tars.CHARACTER_DEVICE, major=1, minor=3), tars.hard_link(b"b", b"a"))

    assert unpacked.nodes[b"b"].same_as == b"a"


@pytest.mark.parametrize("target", [b"directory", b"", b"link", b"./link", b".wh.gone"])
def test_hard_link_to_what_is_no_file_of_any_layer_is_refused(unpack, target):
    with pytest.raises(LayerError, match=r"entry 2 'link' is a hard link to .*, no file of this layer"):
        unpack(tars.directory(b"directory"), tars.file(b"file"), tars.hard_link(b"link", target))


@root
@pytest.mark.parametrize(("kind", "letter"), [(tars.CHARACTER_DEVICE, "c"), (tars.BLOCK_DEVICE, "b")])
def test_device_has_its_number_and_mode(unpack, kind, letter):
    unpacked = unpack(tars.header(b"dev/it", kind, mode=0o660, gid=5, major=259, minor=1_000_000))

    node = unpacked.nodes[b"dev/it"]
    assert (node.kind, node.content, node.mode, node.owner) == (letter, b"259:1000000", 0o660, (0, 5))


@pytest.mark.parametrize("number", [-1, 2**20, 2**40])
@pytest.mark.parametrize("field", ["major", "minor"])
def test_device_number_that_no_device_has_is_refused(unpack, field, number):
    fields: dict[str, Any] = {"minor": 1, field: tars.base_256(number, 8)}
    if (field, number) != ("minor", 2**20):  # minors have twenty bits, majors twelve
        with pytest.raises(LayerError, match=r"entry 0 'dev' cannot be made|'dev' has"):
            unpack(tars.header(b"dev", tars.BLOCK_DEVICE, **fields))


def test_fifo_has_its_mode(unpack):
    unpacked = unpack(tars.header(b"pipe", tars.FIFO, mode=0o622))

    assert (unpacked.nodes[b"pipe"].kind, unpacked.nodes[b"pipe"].mode) == ("p", 0o622)


# -- metadata


EVERY_TYPE = {
    "file": lambda name, **fields: tars.file(name, b"x", **fields),
    "empty file": tars.file,
    "directory": tars.directory,
    "symlink": lambda name, **fields: tars.symlink(name, b"target", **fields),
    "fifo": lambda name, **fields: tars.header(name, tars.FIFO, **fields),
    "device": lambda name, **fields: tars.header(name, tars.CHARACTER_DEVICE, **{"major": 1, "minor": 3} | fields),
}


@root
@pytest.mark.parametrize("kind", EVERY_TYPE)
@pytest.mark.parametrize("owner", [(0, 0), (1000, 0), (0, 1000), (1000, 1001), (2**32 - 2, 2**32 - 2)])
def test_owner_is_set_on_every_type(unpack, kind, owner):
    fields = {"uid": tars.base_256(owner[0], 8), "gid": tars.base_256(owner[1], 8)}

    unpacked = unpack(EVERY_TYPE[kind](b"it", **fields))

    assert unpacked.nodes[b"it"].owner == owner


@pytest.mark.parametrize("owner", [-1, 2**32 - 1, 2**32, 2**62])
@pytest.mark.parametrize("field", ["uid", "gid"])
def test_owner_that_no_file_can_have_is_refused(unpack, field, owner):
    with pytest.raises(LayerError, match=r"entry 0 'it' has an owner out of range"):
        unpack(tars.file(b"it", **{field: tars.base_256(owner, 8)}))


@root
@pytest.mark.parametrize("kind", sorted(EVERY_TYPE.keys() - {"symlink"}))
@pytest.mark.parametrize("mode", [0, 0o777, 0o644, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777, 0o7000])
@pytest.mark.parametrize("owner", [0, 1000])
def test_every_bit_of_the_mode_is_set_on_every_type(unpack, kind, mode, owner):
    unpacked = unpack(EVERY_TYPE[kind](b"it", mode=mode, uid=owner, gid=owner))

    assert unpacked.nodes[b"it"].mode == mode


@pytest.mark.parametrize("kind", sorted(EVERY_TYPE.keys() - {"device"}))
@pytest.mark.parametrize("time", [b"0", b"1234567890.123456789", b"1.000000001", b"-1.5", b"4294967296.5"])
def test_time_is_set_to_the_nanosecond_on_every_type(unpack, kind, time):
    unpacked = unpack(tars.pax({b"mtime": time}), EVERY_TYPE[kind](b"it"))

    whole, _, fraction = time.lstrip(b"-").partition(b".")
    nanoseconds = int(whole) * 10**9 + int(fraction.ljust(9, b"0"))
    assert unpacked.nodes[b"it"].mtime_ns == (-nanoseconds if time.startswith(b"-") else nanoseconds)


def test_time_of_a_directory_outlasts_what_comes_into_it_later(unpack):
    unpacked = unpack(
        tars.directory(b"./", mtime=1),
        tars.directory(b"a", mtime=2),
        tars.directory(b"a/b", mtime=3),
        tars.file(b"a/b/f"),
        tars.file(b"a/g"),
        tars.file(b"h"),
        tars.hard_link(b"a/b/l", b"h"),
        tars.file(b"a/b/f", b"again"),
    )

    assert [unpacked.nodes[path].mtime_ns // 10**9 for path in (b"", b"a", b"a/b")] == [1, 2, 3]


@pytest.mark.parametrize("mtime", [2**40, 2**62, -(2**62)])
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_time_that_the_file_system_cannot_hold_is_cut_or_refused(unpack, kind, mtime):
    try:
        unpacked = unpack(EVERY_TYPE[kind](b"it", mtime=tars.base_256(mtime, 12)))
    except LayerError:
        return
    assert b"it" in unpacked.nodes


@root
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_extended_attributes_are_set_on_every_type(unpack, kind):
    # User attributes are for files and directories alone.
    key = b"user.a" if kind in ("file", "empty file", "directory") else b"trusted.a"

    unpacked = unpack(tars.pax({b"SCHILY.xattr." + key: b"\0\xff=\n"}), EVERY_TYPE[kind](b"it", mode=0o444, uid=5))

    assert unpacked.nodes[b"it"].xattrs == ((key.decode(), b"\0\xff=\n"),)


@root
def test_file_capability_outlasts_the_change_of_owner(unpack):
    unpacked = unpack(
        tars.pax({b"SCHILY.xattr.security.capability": MAY_BIND_LOW_PORTS}),
        tars.file(b"it", b"x" * 1000, mode=0o755, uid=5),
    )

    assert unpacked.nodes[b"it"].xattrs == (("security.capability", MAY_BIND_LOW_PORTS),)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", b"x"),
        (b"nonsense", b"x"),
        (b"user.", b"x"),
        (b"user." + b"x" * 300, b"x"),
        (b"user.large", b"x" * 70_000),
        (b"system.posix_acl_access", b"x"),
        (b"security.capability", b"x"),
        (b"user.\xff", b"x"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_extended_attribute_that_the_kernel_does_not_take_is_recorded(unpack, kind, key, value):
    unpacked = unpack(tars.pax({b"SCHILY.xattr." + key: value}), EVERY_TYPE[kind](b"it"))

    if not unpacked.nodes[b"it"].xattrs:
        assert (b"it", f"xattr {key.decode('utf-8', 'backslashreplace')}") in unpacked.unset


@pytest.mark.parametrize("unpack_it", [unpack_layer, unpack_with_peers])
def test_names_of_attributes_that_could_not_be_set_do_not_fill_the_record(tmp_path, unpack_it):
    name = b"user." + b"\xff" * 50_000
    files = (tars.pax({b"SCHILY.xattr." + name: b""}) + tars.file(b"f%d" % number) for number in range(40))

    unpacked = unpack_it(tars.tar(*files), tmp_path)

    unset = [(path, what) for path, what in unpacked.unset if what != "owner"]
    assert set(unset) < {(b"f%d" % number, "xattr user." + "\\xff" * 50_000) for number in range(40)}
    assert unpacked.record.unset_count >= 40
    assert 0 < (unpacked.target / "layer.pb").stat().st_size < 2 << 20


@pytest.mark.parametrize("kind", sorted(EVERY_TYPE.keys() - {"directory", "device"}))
def test_default_acl_of_what_is_no_directory_is_recorded(unpack, kind):
    key = b"system.posix_acl_default"

    unpacked = unpack(tars.pax({b"SCHILY.xattr." + key: ACL}), EVERY_TYPE[kind](b"it"))

    assert unpacked.nodes[b"it"].xattrs == ()
    assert (b"it", f"xattr {key.decode()}") in unpacked.unset


@pytest.mark.parametrize("owner", [0, 7])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_empty_capability_is_recorded_and_not_set(unpack, kind, owner):
    key = b"security.capability"

    unpacked = unpack(tars.pax({b"SCHILY.xattr." + key: b""}), EVERY_TYPE[kind](b"it", uid=owner, gid=owner))

    assert os.listxattr(unpacked.rootfs / "it") == []
    assert (b"it", f"xattr {key.decode()}") in unpacked.unset


@pytest.mark.parametrize("kind", sorted(EVERY_TYPE.keys() - {"device"}))
@pytest.mark.parametrize("key", [b"trusted.overlay.opaque", b"trusted.overlay.redirect", b"user.overlay.opaque"])
def test_overlays_own_attributes_are_never_taken_from_an_archive(unpack, kind, key):
    unpacked = unpack(tars.pax({b"SCHILY.xattr." + key: b"y"}), EVERY_TYPE[kind](b"it"))

    assert unpacked.nodes[b"it"].xattrs == ()
    assert (b"it", f"xattr {key.decode()}") in unpacked.unset


def test_root_directory_has_what_its_entry_says(unpack):
    unpacked = unpack(
        tars.pax({b"SCHILY.xattr.user.a": b"1"}), tars.directory(b"./", mode=0o1711, mtime=7), tars.file(b"f")
    )

    node = unpacked.nodes[b""]
    assert (node.mode, node.mtime_ns, node.xattrs) == (0o1711, 7 * 10**9, (("user.a", b"1"),))


@root
def test_root_directory_has_the_owner_of_its_entry(unpack):
    unpacked = unpack(tars.directory(b".", uid=7, gid=8))

    assert unpacked.nodes[b""].owner == (7, 8)


@pytest.mark.parametrize("entry", [tars.file(b"./"), tars.symlink(b"/", b"x"), tars.header(b"a/..", tars.FIFO)])
def test_root_directory_cannot_be_replaced(unpack, entry):
    if entry[156:157] == tars.FILE:
        assert unpack(entry).nodes[b""].kind == "d"  # a file whose name ends in a slash is a directory
    else:
        with pytest.raises(LayerError, match=r"would replace the root directory"):
            unpack(entry)


# -- whatever is around


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o027])
def test_umask_takes_nothing_away(tmp_path, umask):
    data = tars.tar(
        tars.directory(b"d", mode=0o777),
        tars.file(b"d/f", mode=0o666),
        tars.file(b"implicit/f", mode=0o4777, uid=os.geteuid(), gid=os.getegid()),
        tars.header(b"p", tars.FIFO, mode=0o666),
    )

    unpacked = with_umask(umask, unpack_layer, data, tmp_path)

    modes = {path: oct(node.mode) for path, node in unpacked.nodes.items()}
    assert modes == {
        b"": "0o755",
        b"d": "0o777",
        b"d/f": "0o666",
        b"implicit": "0o755",
        b"implicit/f": "0o4777",
        b"p": "0o666",
    }


@root
def test_set_group_id_directory_of_the_store_leaves_no_trace(tmp_path):
    os.chown(tmp_path, 0, 4242)
    os.chmod(tmp_path, 0o2775)

    unpacked = unpack_layer(
        tars.tar(tars.directory(b"d"), tars.file(b"d/f"), tars.file(b"i/f"), tars.symlink(b"s", b"t")), tmp_path
    )

    assert {node.owner for node in unpacked.nodes.values()} == {(0, 0)}
    assert {node.mode for node in unpacked.nodes.values() if node.kind == "d"} == {0o755}


@root
def test_set_group_id_directory_of_the_layer_speaks_of_later_files_alone(unpack):
    unpacked = unpack(
        tars.directory(b"d", mode=0o2755, gid=5), tars.file(b"d/f"), tars.directory(b"d/e"), tars.file(b"d/i/f")
    )

    assert unpacked.nodes[b"d"].mode == 0o2755
    assert {unpacked.nodes[path].owner for path in (b"d/f", b"d/e", b"d/i", b"d/i/f")} == {(0, 0)}
    assert {unpacked.nodes[path].mode for path in (b"d/e", b"d/i")} == {0o755}


@root
def test_default_acl_of_the_store_leaves_no_trace(tmp_path):
    # u::rwx,u:1000:rwx,g::r-x,m::rwx,o::r-x
    default = acl((1, 7, NOBODYS), (2, 7, 1000), (4, 5, NOBODYS), (0x10, 7, NOBODYS), (0x20, 5, NOBODYS))
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", default)
    except OSError:
        pytest.skip("this file system has no access control lists")

    unpacked = unpack_layer(tars.tar(tars.directory(b"d"), tars.file(b"d/f"), tars.file(b"i/f")), tmp_path)

    assert {node.xattrs for node in unpacked.nodes.values()} == {()}
    assert {node.mode for node in unpacked.nodes.values()} == {0o755, 0o644}


# -- names


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"\x01", b" ", b"-rf", b"*", b"\xc3\x28", b"~", b"a" * 255])
def test_name_is_any_bytes(unpack, name):
    unpacked = unpack(
        tars.pax({b"path": name + b"/" + name}),
        tars.file(b"short"),
        tars.pax({b"path": b"l"}),
        tars.symlink(b"l", name),
    )

    assert unpacked.kinds == {name: "[d]", name + b"/" + name: "f", b"l": "l"}
    assert unpacked.record.implicit_directories == [name]


@pytest.mark.parametrize("name", [b"a" * 256, b"d/" + b"a" * 256, b"a" * 256 + b"/f"])
def test_name_longer_than_a_file_may_have_is_refused(unpack, name):
    with pytest.raises(LayerError, match=r"entry 0 'a*.*cannot be made: File name too long"):
        unpack(tars.pax({b"path": name}), tars.file(b"short"))


@pytest.mark.parametrize("part", [b"p" * 199, b"\xff" * 39, b"d"])
def test_path_of_four_thousand_bytes_is_made_seen_and_removed(tmp_path, part):
    path = b"/".join([part] * (4000 // (len(part) + 1)))
    layer = tars.tar(tars.pax({b"path": path}), tars.file(b"short", b"x"), tars.file(b"beside"))

    unpacked = unpack_layer(layer, tmp_path, limits=Limits(depth=4000))

    assert len(unpacked.record.implicit_directories) == path.count(b"/")
    remove_tree(str(unpacked.target))
    assert not unpacked.target.exists()


def test_deep_directories_one_by_one_have_their_times(unpack):
    depth = 250
    paths = [b"/".join([b"d"] * level) for level in range(1, depth)]

    unpacked = unpack(*(tars.pax({b"path": path}) + tars.directory(b"d", mtime=7) for path in paths))

    assert len(unpacked.nodes) == depth
    assert {node.mtime_ns for path, node in unpacked.nodes.items() if path} == {7 * 10**9}


def test_more_directories_than_may_be_open_are_made(unpack):
    names = [b"%d/%d" % (number % 500, number) for number in range(1500)]

    unpacked = unpack(*(tars.file(name) for name in names))

    assert len(unpacked.nodes) == 1 + 500 + 1500
    assert len(os.listdir("/proc/self/fd")) < 100


# -- the digest, and the record


def test_record_says_what_the_layer_is(unpack):
    unpacked = unpack(tars.file(b"a", b"x"), tars.file(b"a", b"y"), tars.directory(b"d/e"))

    record = unpacked.record
    assert (record.uid, record.gid) == (os.geteuid(), os.getegid())
    assert record.split_bytes == (unpacked.target / "tar-split.zst").stat().st_size
    assert record.split_checksum == zlib.crc32((unpacked.target / "tar-split.zst").read_bytes())
    assert record.replaced_checksum == zlib.crc32(b"a\0")
    assert record.earliest < 0 < record.latest
    assert record.inodes == 5
    for field in NEWER_FIELDS:
        record.ClearField(field)
    assert record == LayerRecord(
        diff_id=unpacked.counts.diff_id,
        size_bytes=unpacked.counts.size_bytes,
        entries=3,
        whiteouts=NONE,
        implicit_directories=[b"d"],
        unset_count=unpacked.record.unset_count,
        unset=unpacked.record.unset,
        stored_bytes=5 * 4096 + 5 * 256 + 2 * (4 + 4 * 12),
        replaced_lost=False,
    )
    assert unpacked.counts.size_bytes == 2 * 1024 + 512 + 1024
    assert os.geteuid() != 0 or unpacked.record.unset_count == 0


@pytest.mark.parametrize(
    ("parts", "blocks", "inodes"),
    [
        ((), 0, 0),
        ((tars.file(b"f", b"x" * 4096), tars.file(b"g", b"x" * 4097), tars.file(b"empty")), 3, 3),
        ((tars.gnu_sparse(b"f", 1 << 20, [(0, 1), (8192, 5000)], b"x" * 5001),), 3, 1),
        ((tars.gnu_sparse(b"f", 1 << 30, [(n << 20, 1) for n in range(340)], b"x" * 340),), 340 + 2, 1),
        ((tars.directory(b"d"), tars.directory(b"d"), tars.directory(b"./"), tars.file(b"e/f/g")), 3, 4),
        ((tars.symlink(b"s", b"t" * 59), tars.symlink(b"u", b"t" * 60)), 1, 2),
        (
            (tars.file(b"f", b"x"), tars.hard_link(b"h", b"f"), tars.header(b"p", tars.FIFO), tars.whiteout(b"w")),
            1,
            3,
        ),
        ((tars.file(b"f", b"x"), tars.file(b"f", b"y"), tars.directory(b"f")), 3, 3),
        ((tars.pax({b"SCHILY.xattr.user.a": b"v" * 40}), tars.file(b"f")), 0, 1),
        ((tars.pax({b"SCHILY.xattr.user.a": b"v" * 90}), tars.file(b"f")), 1, 1),
    ],
)
def test_record_says_what_the_layer_takes_on_disk(unpack, parts, blocks, inodes):
    record = unpack(*parts).record

    assert record.inodes == 1 + inodes  # the root directory is one
    least = (1 + blocks) * 4096 + record.inodes * 256
    assert least <= record.stored_bytes <= least + 2 * 32 * (record.entries + len(record.implicit_directories))


def test_digest_covers_what_lies_behind_the_end_of_the_archive(tmp_path):
    sound = unpack_layer(tars.tar(tars.file(b"f")) + bytes(1_000_000), tmp_path).counts.diff_id

    with pytest.raises(DigestMismatchError) as caught:
        unpack_layer(tars.tar(tars.file(b"f")) + bytes(999_999) + b"!", tmp_path, sound)

    assert caught.value.expected == sound
    assert not (tmp_path / "layer").exists()


def test_unset_is_counted_beyond_what_is_listed(unpack):
    unpacked = unpack(
        *(
            tars.pax({b"SCHILY.xattr.nonsense": b"x"}) + tars.file(b"%d" % n, uid=os.geteuid(), gid=os.getegid())
            for n in range(1001)
        )
    )

    assert (len(unpacked.record.unset), unpacked.record.unset_count) == (1000, 1001)


def test_unpacking_again_replaces_what_an_earlier_try_left(tmp_path):
    unpack_layer(tars.tar(tars.file(b"old/f"), tars.directory(b"locked", mode=0)), tmp_path)

    again = unpack_layer(tars.tar(tars.file(b"new")), tmp_path)

    assert again.kinds == {b"new": "f"}


@pytest.mark.parametrize(
    ("parts", "index", "name"),
    [
        ([tars.file(b"../f")], 0, b"../f"),
        ([tars.file(b"a"), tars.file(b"b"), tars.file(b"/../f")], 2, b"/../f"),
        ([tars.file(b"a"), tars.hard_link(b"l", b"../../etc/passwd")], 1, b"l"),
    ],
)
def test_refusal_names_the_entry_and_its_index(unpack, tmp_path, parts, index, name):
    with pytest.raises(EscapingEntryError) as caught:
        unpack(*parts)

    assert (caught.value.index, caught.value.name, caught.value.layer) == (index, name, "layer.tar")
    assert caught.value.archive == str(tmp_path / "layer.tar")


def test_refusal_of_a_header_names_the_index_it_would_have(unpack):
    for count in range(3):
        with pytest.raises(LayerError) as caught:
            unpack(*[tars.file(b"f", b"x")] * count, b"?" * 512)

        assert (caught.value.index, caught.value.name) == (count, b"")


# -- what is kept open, and in mind


@pytest.fixture
def few_files():
    """Let this process open a hundred files more than it has."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 300, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("few_files")
def test_hard_links_in_one_directory_to_files_in_very_many(unpack):
    files = [tars.file(b"d%d/f" % number, b"x") for number in range(1000)]
    links = [tars.hard_link(b"links/%d" % number, b"d%d/f" % number) for number in range(1000)]

    unpacked = unpack(*files, *links)

    assert len(os.listdir(unpacked.rootfs / "links")) == 1000


@pytest.mark.usefixtures("few_files")
def test_hard_links_in_one_directory_through_very_many_symlinks(unpack):
    symlinks = [tars.file(b"d%d/f" % n) + tars.symlink(b"s%d" % n, b"d%d" % n) for n in range(500)]
    links = [tars.hard_link(b"links/%d" % number, b"s%d/f" % number) for number in range(500)]

    unpacked = unpack(*symlinks, *links)

    assert len(os.listdir(unpacked.rootfs / "links")) == 500


@pytest.mark.parametrize("name", [b"/f", b"/d/."])
def test_paths_through_symlinks_are_not_all_kept_in_mind(tmp_path, name):
    def peak(count):
        paths = [b"/".join(b"s" * 60 + b"%d" % (number >> bit & 1) for bit in range(30)) for number in range(count)]
        ways = tars.symlink(b"s" * 60 + b"0", b".") + tars.symlink(b"s" * 60 + b"1", b".") + tars.file(b"f")
        if name == b"/f":
            entries = [tars.hard_link(b"h%d" % number, path + name) for number, path in enumerate(paths)]
        else:
            entries = [tars.directory(path + name) for path in paths]
        (tmp_path / "layer.tar").write_bytes(tars.tar(ways, *entries))
        layer = blob_at(tmp_path / "layer.tar")
        del paths, entries
        tracemalloc.start()
        untar_layer(UntarLayer(layer, str(tmp_path / "layer")))
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory

    peak(100)

    assert peak(2000) - peak(500) < 1 << 20  # of 1,500 paths with 2 KB each
