"""Layers as they are stored, and what may happen to them: each damage is found, and nothing else is called damage."""

from __future__ import annotations

import errno
import os
import pkgutil
import resource
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from support import seams, tars
from support.compressions import COMPRESS
from support.hosts import Host
from support.layer_samples import NEW, OLD, OWNER, PARTS, REPLACED, UNCHECKABLE
from support.layers import Unpacked, unpack_and_check, unpack_change_mode_and_check, unpack_layer, unpack_with_help
from support.privileges import as_ordinary_user, in_user_namespace, with_umask

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.jobs.check.findings import MAX_FAULTS, Findings, LayerCheck
from pykka_imagestore.jobs.check_layer import CheckCounts, CheckLayer, check_layer
from pykka_imagestore.runtime.errors import DiscardedError
from pykka_imagestore.runtime.worker import run_hosted

root = pytest.mark.root
SOUND = LayerCheck()


@pytest.fixture
def layer(tmp_path):
    return unpack_layer(tars.tar(*PARTS) + b"what follows", tmp_path)


def faults(unpacked):
    """Return what a deep check finds, but that directories have another time since; all of it could be checked."""
    found = unpacked.check()
    assert found.unchecked == ()
    return tuple(fault for fault in found.faults if " of time " not in fault)


def test_sound_layer_has_no_faults_deep_or_not(layer):
    quick = check_layer(CheckLayer(str(layer.target), layer.counts.diff_id))

    assert (layer.check(), quick) == (SOUND, SOUND)


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_layer_is_checked_by_its_uncompressed_bytes(tmp_path, compression):
    assert unpack_layer(COMPRESS[compression](tars.tar(*PARTS)), tmp_path).check() == SOUND


def test_layer_that_helpers_helped_with_is_sound(tmp_path):
    assert unpack_with_help(tars.tar(*PARTS, tars.file(b"d/f", b"new", **OWNER)), tmp_path).check() == SOUND


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(10_000) + b"rest", tars.file(b"no end blocks", b"x")])
def test_odd_layers_are_sound(tmp_path, data):
    assert unpack_layer(data, tmp_path).check() == SOUND


def test_bodies_that_make_no_file_are_kept(tmp_path):
    unpacked = unpack_layer(
        tars.tar(
            tars.file(b".wh.gone", b"a whiteout's body"),
            tars.file(b".wh..wh.plnk/x", b"aufs' own"),
            tars.header(b"directory/", size=700) + tars.padded(b"x" * 700),
            tars.file(b"f", b"y" * 700),
        ),
        tmp_path,
    )

    assert unpacked.check() == SOUND


# -- damage to the tree


def flip(path, position):
    """Change a byte of a file, and its size and times not at all."""
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_symlink(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def unlink_and(make, path):
    path.unlink()
    make(path)


def change_link(path):
    path.unlink()
    path.symlink_to("large")


DAMAGE = {
    "a byte of a file": (lambda r: flip(r / "d/f", 4999), "has other bytes than it was put with, in a file"),
    "a byte of a large file": (lambda r: flip(r / "d/large", 300_000), "has other bytes than it was put with"),
    "a byte of a sparse file": (lambda r: flip(r / "holes", 100_001), "has other bytes than it was put with"),
    "a byte in a hole": (lambda r: flip(r / "holes", 60_000), "has 'holes' with bytes where it should have a hole"),
    "a byte in the last hole": (lambda r: flip(r / "holes", 199_999), "has 'holes' with bytes where it should have"),
    "a file cut off": (lambda r: os.truncate(r / "d/f", 4999), "has 'd/f' of 4999 bytes, not 5000"),
    "a longer file": (lambda r: os.truncate(r / "d/f", 5001), "has 'd/f' of 5001 bytes, not 5000"),
    "a sparse file cut off": (lambda r: os.truncate(r / "holes", 199_999), "has 'holes' of 199999 bytes, not 200000"),
    "bytes in an empty file": (lambda r: os.truncate(r / "empty", 1), "has 'empty' of 1 bytes, not 0"),
    "no file": (lambda r: os.unlink(r / "d/f"), "lacks 'd/f'"),
    "no empty file": (lambda r: os.unlink(r / "empty"), "lacks 'empty'"),
    "no symlink": (lambda r: os.unlink(r / "d/s"), "lacks 'd/s'"),
    "no hard link": (lambda r: os.unlink(r / "h"), "lacks 'h'"),
    "no fifo": (lambda r: os.unlink(r / "p"), "lacks 'p'"),
    "no implicit directory": (lambda r: shutil.rmtree(r / "implicit"), "lacks 'implicit'"),
    "no directory": (lambda r: shutil.rmtree(r / "d"), "lacks 'd'"),
    "one more file": (lambda r: (r / "d" / "more").touch(), "has 'd/more', which no entry made"),
    "one more symlink": (lambda r: (r / "more").symlink_to("d"), "has 'more', which no entry made"),
    "one more directory": (lambda r: (r / "implicit" / "more").mkdir(), "has 'implicit/more', which no entry made"),
    "two more files": (
        lambda r: ((r / "1").touch(), (r / "d" / "2").touch()),
        "has 2 files or directories that no entry made",
    ),
    "another name": (lambda r: os.rename(r / "empty", r / "full"), "lacks 'empty'"),
    "the mode of a file": (lambda r: (r / "d/f").chmod(0o641), "has 'd/f' with mode 0641, not 0640"),
    "a set-user-ID bit": (lambda r: (r / "d/f").chmod(0o4640), "has 'd/f' with mode 4640, not 0640"),
    "the mode of a directory": (lambda r: (r / "d").chmod(0o777), "has 'd' with mode 0777, not 0750"),
    "the mode of the root": (lambda r: r.chmod(0o700), "has '' with mode 0700, not 0755"),
    "the mode of a fifo": (lambda r: (r / "p").chmod(0o666), "has 'p' with mode 0666, not 0600"),
    "the mode of an implicit directory": (
        lambda r: (r / "implicit").chmod(0o700),
        "has 'implicit' with mode 0700, not 0755",
    ),
    "the target of a symlink": (lambda r: change_link(r / "d/s"), "has a symlink 'd/s' to 'large', not to 'f'"),
    "a file for a symlink": (lambda r: unlink_and(Path.touch, r / "d/s"), "has 'd/s' that is no symlink"),
    "a symlink for a file": (lambda r: replace_by_symlink(r / "empty"), "has 'empty' that is no file"),
    "a symlink for a directory": (lambda r: replace_by_symlink(r / "d"), "has 'd' that is no directory"),
    "a directory for a file": (lambda r: unlink_and(Path.mkdir, r / "empty"), "has 'empty' that is no file"),
    "a fifo for a file": (lambda r: unlink_and(os.mkfifo, r / "d/f"), "has 'd/f' that is no file"),
    "a file for an implicit directory": (
        lambda r: (shutil.rmtree(r / "implicit"), (r / "implicit").touch()),
        "lacks 'implicit'",
    ),
    "a copy for a hard link": (
        lambda r: unlink_and(lambda path: shutil.copy2(r / "d/f", path), r / "h"),
        "has 'h' that is no hard link to 'd/f'",
    ),
    "an extended attribute": (
        lambda r: os.setxattr(r / "x", "user.a", b"c"),
        "has 'x' with another extended attribute 'user.a'",
    ),
    "no extended attribute": (
        lambda r: os.removexattr(r / "x", "user.a"),
        "has 'x' with another extended attribute 'user.a'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tree_is_found_and_said(layer, damage):
    do, said = DAMAGE[damage]
    do(layer.rootfs)

    found = faults(layer)

    assert any(fault.startswith(said) for fault in found), found
    assert all(fault.isprintable() for fault in found)


@root
@pytest.mark.parametrize(("path", "said"), [("d/f", "'d/f'"), ("d/s", "'d/s'"), ("d", "'d'"), ("p", "'p'"), ("", "''")])
def test_another_owner_is_found(layer, path, said):
    os.chown(layer.rootfs / path, 7, 8, follow_symlinks=False)

    assert faults(layer) == (f"has {said} owned by 7:8, not 0:0",)


@root
def test_attributes_that_the_kernel_rewrites_are_not_compared(tmp_path):
    key, capability = b"security.capability", bytes.fromhex("0000000200040000000000000000000000000000")
    parts = tars.pax({b"SCHILY.xattr." + key: capability}) + tars.file(b"f", b"x")
    unpacked = unpack_layer(tars.tar(parts), tmp_path)
    os.setxattr(unpacked.rootfs / "f", key, bytes.fromhex("000000030004000000000000000000000000000000000000"))

    assert unpacked.check() == SOUND


@root
def test_another_device_is_found(tmp_path):
    unpacked = unpack_layer(tars.tar(tars.header(b"null", tars.CHARACTER_DEVICE, major=1, minor=3)), tmp_path)
    (unpacked.rootfs / "null").unlink()
    os.mknod(unpacked.rootfs / "null", stat.S_IFCHR | 0o644, os.makedev(1, 5))

    assert faults(unpacked) == ("has 'null' for device 1:5, not 1:3",)


@root
@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda r: (r / "d" / "gone").unlink(), "lacks the whiteout 'd/.wh.gone'"),
        (lambda r: unlink_and(Path.touch, r / "d" / "gone"), "lacks the whiteout 'd/.wh.gone'"),
        (lambda r: os.removexattr(r / "d", "trusted.overlay.opaque"), "lacks the whiteout 'd/.wh..wh..opq'"),
        (lambda r: os.mknod(r / "more", stat.S_IFCHR, os.makedev(0, 0)), "has 'more', which no entry made"),
    ],
)
def test_whiteouts_that_are_lost_or_too_many_are_found(layer, do, said):
    do(layer.rootfs)

    assert faults(layer) == (said,)


@pytest.mark.parametrize("position", [4095, 900_000, 2_999_999])
def test_byte_in_a_large_hole_is_found(tmp_path, position):
    sparse = tars.gnu_sparse(b"f", 3_000_000, [(4096, 10), (1_000_000, 2)], b"a" * 12, **OWNER)
    unpacked = unpack_layer(tars.tar(sparse), tmp_path)
    flip(unpacked.rootfs / "f", position)

    assert faults(unpacked) == ("has 'f' with bytes where it should have a hole",)


def test_zeros_in_a_hole_are_as_good(tmp_path):
    unpacked = unpack_layer(tars.tar(tars.gnu_sparse(b"f", 3_000_000, [(0, 1)], b"a", **OWNER)), tmp_path)
    with open(unpacked.rootfs / "f", "r+b") as file:
        file.seek(1_000_000)
        file.write(bytes(1_000_000))
    os.utime(unpacked.rootfs / "f", (0, 0))

    assert unpacked.check() == SOUND


def test_file_that_the_disk_cannot_read_is_a_fault(layer, monkeypatch):
    def pread(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", pread)

    found = faults(layer)

    assert found[0] == "has 'd/f', which cannot be read: Input/output error"


@pytest.mark.parametrize("path", ["d/f", "d", "", "d/s", "p", "implicit", "holes"])
def test_another_time_is_found(layer, path):
    os.utime(layer.rootfs / path, ns=(0, 10**9 + 5), follow_symlinks=False)

    assert layer.check() == LayerCheck((f"has {path!r} of time 1.000000005, not 0",))


@pytest.mark.parametrize("mtime", [-(2**40), -1, 2**40, 2**62])
def test_time_that_the_file_system_does_not_keep_is_no_fault(tmp_path, mtime):
    for directory in (tmp_path, Path("/var/tmp")):
        with tempfile.TemporaryDirectory(dir=directory) as place:
            assert unpack_layer(tars.tar(tars.file(b"d/f", mtime=mtime, **OWNER)), place).check() == SOUND


def test_directory_that_is_missing_is_said_once(layer):
    shutil.rmtree(layer.rootfs / "d")

    assert faults(layer).count("lacks 'd'") == 1


def test_many_faults_are_counted(tmp_path):
    unpacked = unpack_layer(tars.tar(*(tars.file(b"f%d" % number, **OWNER) for number in range(100))), tmp_path)
    for number in range(MAX_FAULTS + 5):
        (unpacked.rootfs / f"f{number}").unlink()
    os.utime(unpacked.rootfs, (0, 0))

    assert faults(unpacked)[-2:] == (f"lacks 'f{MAX_FAULTS - 1}'", "has 5 more faults")


# -- damage to what lies beside the tree


def test_damage_to_the_split_is_a_sentence(layer):
    split = layer.target / "tar-split.zst"
    sound = split.read_bytes()
    for position in range(len(sound)):
        split.write_bytes(sound[:position] + bytes([sound[position] ^ 0x41]) + sound[position + 1 :])

        found = faults(layer)

        assert found[0].startswith(("has a damaged tar-split.zst: ", "has other bytes than it was put with")), position
        assert all(fault.isprintable() for fault in found)


@pytest.mark.parametrize("left", [0, 3, 100, -1])
def test_split_that_is_cut_off_is_damaged(layer, left):
    split = layer.target / "tar-split.zst"
    split.write_bytes(split.read_bytes()[:left])

    assert faults(layer) != ()


def test_split_of_another_layer_is_found(layer, tmp_path):
    (tmp_path / "other").mkdir()
    other = unpack_layer(tars.tar(*PARTS), tmp_path / "other")
    shutil.copy(other.target / "tar-split.zst", layer.target)
    record = layer.record
    record.split_bytes = other.record.split_bytes
    layer.write_record(record)

    (found,) = faults(layer)

    assert found.endswith(f"together they are {other.counts.diff_id}")


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda t: (t / "layer.pb").unlink(), "has no sound record layer.pb: it cannot be read: No such file"),
        (lambda t: (t / "layer.pb").write_bytes(b"?"), "has no sound record layer.pb: it is no LayerRecord"),
        (lambda t: shutil.rmtree(t / "rootfs"), "lacks its directory rootfs"),
        (lambda t: replace_by_symlink(t / "rootfs"), "has a rootfs that is no directory"),
        (lambda t: (t / "tar-split.zst").unlink(), "lacks its file tar-split.zst"),
        (lambda t: replace_by_symlink(t / "tar-split.zst"), "has a tar-split.zst that is no file"),
    ],
)
def test_missing_part_is_found_deep_or_not(layer, do, said, deep):
    do(layer.target)

    found, *_ = check_layer(CheckLayer(str(layer.target), layer.counts.diff_id, deep)).faults

    assert found.startswith(said)


@pytest.mark.parametrize("deep", [True, False])
def test_layer_that_is_another_is_found(layer, deep):
    other = DiffID("sha256:" + "0" * 64)

    found = check_layer(CheckLayer(str(layer.target), other, deep))

    assert found.faults == (f"has the record of another, {layer.counts.diff_id}",)


@pytest.mark.parametrize(("field", "said"), [("entries", "entries, not 99"), ("size_bytes", "bytes, not 99")])
def test_record_that_says_something_else_is_found(layer, field, said):
    record = layer.record
    setattr(record, field, 99)
    layer.write_record(record)

    (found,) = faults(layer)

    assert f"{said} as its record says" in found


def test_layer_of_an_older_version_is_unchecked_and_not_bad(layer):
    record = layer.record
    record.ClearField("stored_bytes")
    layer.write_record(record)
    layer.forget_what_is_new()
    (layer.target / "tar-split.zst").unlink()

    quick = check_layer(CheckLayer(str(layer.target), layer.counts.diff_id))

    assert quick == SOUND
    assert layer.check() == LayerCheck(
        (), ("was put by a version that kept no tar-split.zst, so its bytes cannot be checked",)
    )


# -- what later entries replaced


@pytest.mark.parametrize("unpack", [unpack_layer, unpack_with_help])
@pytest.mark.parametrize("case", REPLACED)
def test_layer_that_replaces_its_own_files_is_checked_whole(tmp_path, case, unpack):
    unpacked = unpack(tars.tar(*REPLACED[case]), tmp_path)

    assert unpacked.check() == SOUND


@pytest.mark.parametrize("unpack", [unpack_layer, unpack_with_help])
def test_damage_to_what_was_replaced_is_found(tmp_path, unpack):
    unpacked = unpack(tars.tar(OLD, NEW), tmp_path)
    flip(unpacked.target / "replaced" / "0", 7)

    (found,) = faults(unpacked)

    assert found.startswith("has other bytes than it was put with")


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda directory: (directory / "0").unlink(), "lacks 'replaced/0'"),
        (lambda directory: (directory / "paths").unlink(), "has a directory replaced that cannot be read"),
        (lambda directory: (directory / "paths").write_bytes(b""), "has 'd/f' of 3 bytes, not 3000"),
        (shutil.rmtree, "has 'd/f' of 3 bytes, not 3000"),
        (
            lambda directory: (shutil.rmtree(directory), directory.symlink_to("rootfs")),
            "has a directory replaced that cannot be",
        ),
    ],
)
def test_loss_of_what_was_replaced_is_found(tmp_path, do, said):
    unpacked = unpack_layer(tars.tar(OLD, NEW), tmp_path)
    do(unpacked.target / "replaced")

    assert faults(unpacked)[0].startswith(said)


def test_file_beside_one_that_is_linked_to_itself_is_found(tmp_path):
    unpacked = unpack_layer(tars.tar(tars.file(b"f", b"1", **OWNER), tars.hard_link(b"f", b"./f")), tmp_path)
    (unpacked.rootfs / "g").touch()

    assert faults(unpacked) == ("has 'g', which no entry made",)


def test_empty_file_that_was_replaced_is_not_kept(tmp_path):
    unpacked = unpack_layer(tars.tar(tars.file(b"d/f", **OWNER), NEW), tmp_path)

    assert os.listdir(unpacked.target / "replaced") == ["paths"]


def test_nothing_is_kept_where_nothing_was_replaced(layer):
    assert sorted(os.listdir(layer.target)) == ["layer.pb", "rootfs", "tar-split.zst"]


@pytest.mark.parametrize("limit", [seams.REPLACED_FILES, seams.REPLACED_PATHS_BYTES])
def test_layer_that_replaces_too_much_is_unchecked_and_not_bad(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(limit, 8)
    parts = [tars.file(b"f", b"%d" % number, **OWNER) for number in range(20)]

    unpacked = unpack_layer(tars.tar(*parts), tmp_path)

    assert unpacked.check() == LayerCheck(
        (), ("replaces its own files in a way that was not kept, so its bytes cannot be checked",)
    )
    assert len(os.listdir(unpacked.target / "replaced")) < 10


def test_symlink_on_the_way_that_is_replaced_leaves_the_layer_unchecked(tmp_path):
    unpacked = unpack_layer(UNCHECKABLE, tmp_path)

    assert unpacked.check().faults == ()
    assert unpacked.check().unchecked != ()


def test_files_behind_symlinks_are_found(tmp_path):
    parts = (
        tars.directory(b"usr/lib", **OWNER),
        tars.symlink(b"lib", b"usr/lib", **OWNER),
        tars.symlink(b"usr/up", b"../lib/../../lib", **OWNER),
        tars.file(b"lib/a", b"old", **OWNER),
        tars.file(b"usr/up/a", b"new", **OWNER),
        tars.hard_link(b"lib/b", b"usr/up/a"),
        tars.file(b"lib/c/d", b"1", **OWNER),
    )
    unpacked = unpack_layer(tars.tar(*parts), tmp_path)
    assert unpacked.check() == SOUND
    (unpacked.rootfs / "usr/lib/b").unlink()

    assert faults(unpacked) == ("lacks 'usr/lib/b'",)


@pytest.mark.parametrize("target", ["lib", "s", "nowhere", "f", "s/.."])
def test_symlink_that_leads_elsewhere_now_is_found(tmp_path, target):
    parts = (
        tars.file(b"f", **OWNER),
        tars.symlink(b"s", b"lib", **OWNER),
        tars.symlink(b"lib", b"usr/lib", **OWNER),
        tars.file(b"lib/a", b"1", **OWNER),
    )
    unpacked = unpack_layer(tars.tar(*parts), tmp_path)
    (unpacked.rootfs / "lib").unlink()
    (unpacked.rootfs / "lib").symlink_to(target)

    assert faults(unpacked)[0] == f"has a symlink 'lib' to '{target}', not to 'usr/lib'"


# -- as somebody else


ANYBODYS = (
    tars.directory(b"d", mode=0o2755, uid=5, gid=6),
    tars.file(b"d/f", b"x", mode=0o4755, uid=5, gid=6),
    tars.file(b"d/f", b"new", mode=0o2750, uid=6, gid=5),
    tars.symlink(b"d/s", b"f", uid=5, gid=6),
    tars.header(b"null", tars.CHARACTER_DEVICE, major=1, minor=3),
    tars.pax({b"SCHILY.xattr.trusted.a": b"b", b"SCHILY.xattr.user.b": b"c"}) + tars.file(b"x", b"z"),
    tars.whiteout(b"gone"),
    tars.opaque(b"d"),
)


def test_what_an_ordinary_user_could_not_set_is_no_fault(users_directory):
    found, record = as_ordinary_user(unpack_and_check, tars.tar(*ANYBODYS), str(users_directory))

    assert found == SOUND
    assert LayerRecord.FromString(record).unset_count > 5


def test_what_could_not_be_set_in_a_user_namespace_is_no_fault(tmp_path):
    found, record = in_user_namespace(unpack_and_check, tars.tar(*ANYBODYS), str(tmp_path))

    assert found == SOUND
    assert LayerRecord.FromString(record).unset_count > 5


@pytest.mark.parametrize("umask", [0, 0o077, pytest.param(0o777, marks=pytest.mark.root)])
def test_umask_is_no_fault(users_directory, umask):
    found, _ = with_umask(umask, unpack_and_check, tars.tar(*PARTS), str(users_directory))

    assert found == SOUND


def test_more_unset_than_the_record_lists_is_no_fault(users_directory):
    parts = (tars.file(b"f%d" % number, uid=1, mode=0o4755) for number in range(1100))

    found, _ = as_ordinary_user(unpack_and_check, tars.tar(*parts), str(users_directory))

    assert found == SOUND


def test_ordinary_user_finds_another_mode(users_directory):
    found = as_ordinary_user(unpack_change_mode_and_check, tars.tar(*ANYBODYS), str(users_directory), b"d/f", 0o700)

    assert found.faults == ("has 'd/f' with mode 0700, not 2750",)


@pytest.mark.parametrize("parts", [(tars.file(b"f", b"x", mode=0),), (tars.directory(b"f", mode=0), tars.file(b"f/g"))])
def test_what_a_user_may_not_read_is_unchecked_and_not_bad(users_directory, parts):
    found, _ = as_ordinary_user(unpack_and_check, tars.tar(*parts), str(users_directory))

    assert found == LayerCheck((), ("has 'f', which cannot be read: Permission denied",))


# -- while it is checked


def test_layer_that_was_never_there_is_missing(tmp_path):
    assert check_layer(CheckLayer(str(tmp_path / "layer"), DiffID("sha256:1"))) == LayerCheck(("is missing",))


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/")])
def test_what_is_no_directory_is_no_layer(tmp_path, make):
    make(tmp_path / "layer")

    assert check_layer(CheckLayer(str(tmp_path / "layer"), DiffID("sha256:1"))) == LayerCheck(("is no directory",))


@pytest.mark.parametrize("remove", [shutil.rmtree, lambda path: path.rename(path.with_name("gc"))])
@pytest.mark.parametrize("step", seams.CHECK_STEPS)
def test_layer_that_is_removed_meanwhile_is_gone_and_not_bad(layer, monkeypatch, remove, step):
    then = pkgutil.resolve_name(step)

    def removed_before(*arguments):
        if layer.target.exists():
            remove(layer.target)
        return then(*arguments)

    monkeypatch.setattr(step, removed_before)

    assert layer.check() == LayerCheck((), ("was removed while it was checked",))


def test_layer_that_is_removed_in_the_middle_of_a_deep_check_is_gone(layer):
    host = Host(lambda _: shutil.rmtree(layer.target, ignore_errors=True))

    assert run_hosted(host, Unpacked.check, layer) == LayerCheck((), ("was removed while it was checked",))


def test_deep_check_says_how_far_it_is(tmp_path, monkeypatch):
    unpacked = unpack_layer(tars.tar(tars.file(b"f", bytes(2_000_000), **OWNER)), tmp_path)
    monkeypatch.setattr(seams.REPORT_INTERVAL, 0)
    reported = []

    run_hosted(Host(reported.append), Unpacked.check, unpacked)

    assert {counts.size_bytes for counts in reported} == {unpacked.counts.size_bytes}
    assert len(reported) > 5
    assert reported == sorted(reported, key=lambda counts: counts.checked_bytes)
    assert isinstance(reported[0], CheckCounts)


def test_deep_check_stops_when_it_is_discarded(layer):
    with pytest.raises(DiscardedError):
        run_hosted(Host(looks_before_discard=1), Unpacked.check, layer)


def test_layer_past_a_limit_that_was_lowered_is_unchecked_and_not_bad(layer):
    found = layer.check(Limits(entries=3))

    said = "has an entry 3 that is one more than 3 entries, the limit; its bytes cannot be checked"
    assert found == LayerCheck((), (said,))


def test_nothing_stays_open(tmp_path):
    behind = (tars.directory(b"d/e/f"), tars.symlink(b"s", b"d"), tars.file(b"s/e/f/g"), tars.file(b"d/e/f/h"))
    layer = unpack_layer(tars.tar(*PARTS, *behind), tmp_path)
    layer.check()
    before = sorted(os.listdir("/proc/self/fd"))

    layer.check()
    (layer.target / "tar-split.zst").write_bytes(b"?")
    layer.check()

    assert sorted(os.listdir("/proc/self/fd")) == before


@root
def test_checked_layer_is_left_as_it_is(layer):
    before = layer.nodes

    layer.check()

    assert layer.nodes == before


def test_descriptors_do_not_grow_with_the_layer(tmp_path):
    parts = [tars.file(b"d%d/" % number + b"e/" * (number % 100) + b"f", b"x", **OWNER) for number in range(300)]
    unpacked = unpack_layer(tars.tar(*parts), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        found = unpacked.check()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert found == SOUND


def test_findings_say_whose_fault_an_error_is():
    findings = Findings()
    for number in (2, 5, 13, 24):
        findings.add_error(b"\xff", OSError(number, os.strerror(number)))

    assert findings.result() == LayerCheck(
        ("lacks '\\\\xff'", "has '\\\\xff', which cannot be read: Input/output error"),
        (
            "has '\\\\xff', which cannot be read: Permission denied",
            "has '\\\\xff', which cannot be read: Too many open files",
        ),
    )
