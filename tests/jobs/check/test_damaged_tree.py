"""Each damage to a layer's tree is found, and nothing else is called damage."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from support import tars
from support.damage import faults, flip, replace_by_symlink
from support.layer_samples import OWNER
from support.layers import unpack_layer

from pykka_imagestore.jobs.check.findings import MAX_FAULTS, LayerCheck

root = pytest.mark.root
SOUND = LayerCheck()


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
