"""The merged tree as a tar: what other tools, and a put, make of it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support import seams
from support.layers import unpack_layer
from support.leases import leased
from support.processes import TIMEOUT
from support.rootfs import layer, no_mounts_left, request, require_mounts
from support.stack_samples import HOLES, SAMPLES
from support.stacked import made, stacked
from support.trees import describe

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import Reads, StackLayer
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.export_tar import ExportedTar, ExportTar, export_tar
from pykka_imagestore.rootfs.overlay import Overlay

GNU_TAR = ["tar", "--extract", "--preserve-permissions", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
BSDTAR = ["bsdtar", "-x", "-p", "--numeric-owner", "--same-owner"]
ACLS = ("system.posix_acl_access", "system.posix_acl_default")


def exported(layers, directory, **fields):
    """Return a tar as bytes, and what is said of it."""
    target = directory / "exported.tar"
    said = export_tar(ExportTar(tuple(layers), str(target), **fields))
    data = target.read_bytes()
    target.unlink()
    assert said.size_bytes == len(data)
    return data, said


def extracted(command, data, directory):
    directory.mkdir()
    subprocess.run(command, input=data, cwd=directory, check=True, timeout=TIMEOUT)
    return describe(directory)


@pytest.mark.root
@pytest.mark.parametrize("name", SAMPLES)
def test_what_was_exported_is_put_as_the_same_tree(tmp_path, name):
    data, said = exported(stacked(SAMPLES[name].tars, tmp_path), tmp_path)

    assert unpack_layer(data, tmp_path).nodes == SAMPLES[name].tree
    assert said == ExportedTar(len(SAMPLES[name].tree), len(data), (), 0)


@pytest.mark.root
@pytest.mark.parametrize("name", SAMPLES)
def test_gnu_tar_reads_the_same_tree(tmp_path, name):
    data, _ = exported(stacked(SAMPLES[name].tars, tmp_path), tmp_path)

    assert extracted([*GNU_TAR, "--file=-"], data, tmp_path / "out") == SAMPLES[name].tree


@pytest.mark.root
@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar is not here")
@pytest.mark.parametrize("name", SAMPLES)
def test_bsdtar_reads_the_same_tree_but_for_what_it_has_its_own_way_with(tmp_path, name):
    data, _ = exported(stacked(SAMPLES[name].tars, tmp_path), tmp_path)

    found = extracted([*BSDTAR, "-f", "-"], data, tmp_path / "out")
    assert as_bsdtar_has_it(found) == as_bsdtar_has_it(SAMPLES[name].tree)


def as_bsdtar_has_it(tree):
    """Leave out ACLs, which it knows in another form, the root's time, and fractions of a second before 1970."""
    kept = {
        path: replace(node, xattrs=tuple(pair for pair in node.xattrs if pair[0] not in ACLS))
        for path, node in tree.items()
    }
    return kept | {path: replace(kept[path], mtime_ns=0) for path in (b"", b"before") if path in kept}


@pytest.mark.root
@pytest.mark.parametrize("name", ["attributes", "hard links", "many files"])
def test_the_same_layers_give_the_same_bytes(tmp_path, name):
    layers = stacked(SAMPLES[name].tars, tmp_path)

    assert exported(layers, tmp_path) == exported(layers, tmp_path)


def test_entries_come_in_order(tmp_path):
    files: dict[str, object] = {"b/y": "", "b/x": "", "b/c/z": "", "a/1": "", "z": "", "B": ""}
    data, _ = exported([layer(tmp_path / "layer", files)], tmp_path)

    (tmp_path / "t").write_bytes(data)
    with tarfile.open(tmp_path / "t") as tar:
        assert tar.getnames() == [".", "B", "z", "a", "a/1", "b", "b/x", "b/y", "b/c", "b/c/z"]


def test_holes_are_not_written(tmp_path):
    data, _ = exported(stacked(SAMPLES["holes"].tars, tmp_path), tmp_path)

    assert len(data) < len(HOLES) / 10


def test_a_file_of_nothing_but_a_hole(tmp_path):
    only = layer(tmp_path / "layer", {"a": ""})
    os.truncate(tmp_path / "layer/a", 64 << 20)
    data, _ = exported([only], tmp_path)

    (tmp_path / "out").mkdir()
    subprocess.run([*GNU_TAR, "--file=-"], input=data, cwd=tmp_path / "out", check=True, timeout=TIMEOUT)
    assert (tmp_path / "out/a").stat().st_size == 64 << 20
    assert (tmp_path / "out/a").stat().st_blocks == 0


@pytest.mark.root
def test_a_containers_tree_is_that_of_its_mount(tmp_path):
    require_mounts()
    layers = stacked(SAMPLES["one kind over another, and back"].tars, tmp_path, Reads.TRUSTED)
    with no_mounts_left(tmp_path), made(Overlay(), request(tmp_path / "box", *layers)) as mounted:
        root = Path(f"/proc/self/fd/{mounted.fd}")
        shutil.rmtree(root / "a")
        (root / "a").mkdir(0o700)
        (root / "a/written").write_text("by the container")
        (root / "c/in").unlink()
        os.chmod(root / "c", 0o1777)
        os.link(root / "a/written", root / "linked")
        os.setxattr(root / "linked", "user.a", b"b")
        upper = StackLayer(str(tmp_path / "box/upper"), WhiteoutFormat.OVERLAY_TRUSTED)

        data, said = exported([*layers, upper], tmp_path, may_change=True)

        assert unpack_layer(data, tmp_path).nodes == describe(f"{root}/.")
        assert said.left_out == ()


def test_what_a_tar_cannot_hold_is_told(tmp_path):
    only = layer(tmp_path / "layer", {"a": "a"})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "layer/s"))
    os.setxattr(tmp_path / "layer/a", "user.x=y", b"z")

    data, said = exported([only], tmp_path)

    assert said == ExportedTar(2, len(data), ((b"a", "xattr user.x=y"), (b"s", "socket")), 2)


def swapped_when_opened(monkeypatch, name, swap):
    """Have a change made just before a name is opened for the first time."""
    real, left = os.open, [swap]

    def opening(path, *arguments, **named):
        if path == name and left:
            left.pop()()
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", opening)


@pytest.mark.parametrize("kind", ["fifo", "symlink", "directory", "nothing", "file"])
def test_what_a_container_puts_in_a_files_place_is_neither_followed_nor_waited_for(tmp_path, monkeypatch, kind):
    upper = layer(tmp_path / "upper", {"a": "a", "b": "b"})
    (tmp_path / "secret").write_text("secret")
    place = tmp_path / "upper/a"

    def swap():
        place.unlink()
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "symlink":
            place.symlink_to(tmp_path / "secret")
        elif kind == "directory":
            place.mkdir()
        elif kind == "file":
            place.write_text("other")

    swapped_when_opened(monkeypatch, b"a", swap)
    data, said = exported([upper], tmp_path, may_change=True)

    assert b"secret" not in data
    assert said.left_out == (() if kind == "file" else ((b"a", "changed meanwhile"),))
    assert unpack_layer(data, tmp_path).kinds == {b"b": "f"} | ({b"a": "f"} if kind == "file" else {})


@pytest.mark.root
def test_a_device_that_a_container_puts_in_a_files_place_is_not_used(tmp_path, monkeypatch):
    upper = layer(tmp_path / "upper", {"a": "a"})
    used = []
    real = os.open

    def opening(path, flags, *arguments, **named):
        if path == b"a":
            (tmp_path / "upper/a").unlink()
            os.mknod(tmp_path / "upper/a", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        file = real(path, flags, *arguments, **named)
        if stat.S_ISCHR(os.fstat(file).st_mode) and not flags & os.O_PATH:
            used.append(path)
        return file

    monkeypatch.setattr(os, "open", opening)
    _, said = exported([upper], tmp_path, may_change=True)

    assert said.left_out == ((b"a", "changed meanwhile"),)
    assert used == []


@pytest.mark.parametrize("kind", ["symlink", "nothing", "file"])
def test_a_directory_that_is_gone_when_it_is_its_turn_is_left_out(tmp_path, monkeypatch, kind):
    upper = layer(tmp_path / "upper", {"d/a": "a", "e/b": "b"})
    layer(tmp_path / "elsewhere", {"secret": "secret"})

    def swap():
        shutil.rmtree(tmp_path / "upper/d")
        if kind == "symlink":
            (tmp_path / "upper/d").symlink_to(tmp_path / "elsewhere")
        elif kind == "file":
            (tmp_path / "upper/d").touch()

    swapped_when_opened(monkeypatch, b"d", swap)
    data, _ = exported([upper], tmp_path, may_change=True)

    assert unpack_layer(data, tmp_path).kinds == {b"e": "d", b"e/b": "f"}


def test_the_rest_of_a_file_that_shrank_is_zeros(tmp_path, monkeypatch):
    upper = layer(tmp_path / "upper", {"a": "a" * 5000, "b": "b"})
    real = os.pread

    def pread(file, *arguments):
        os.truncate(tmp_path / "upper/a", 3000)
        return real(file, *arguments)

    monkeypatch.setattr(os, "pread", pread)
    data, said = exported([upper], tmp_path, may_change=True)
    monkeypatch.undo()

    assert said.left_out == ((b"a", "changed meanwhile"),)
    unpacked = unpack_layer(data, tmp_path)
    assert (unpacked.rootfs / "a").read_bytes() == b"a" * 3000 + bytes(2000)
    assert (unpacked.rootfs / "b").read_bytes() == b"b"


@pytest.mark.parametrize("name", [".wh.a", ".wh..wh..opq", ".wh.", ".wh..", ".wh.d/b"])
def test_what_has_a_whiteouts_name_is_left_out(tmp_path, name):
    lower, upper = layer(tmp_path / "lower", {"a": "a"}), layer(tmp_path / "upper", {name: "", "b": "b"})

    data, said = exported([lower, upper], tmp_path, may_change=True)

    assert said.left_out == ((name.partition("/")[0].encode(), "a whiteout's name"),)
    assert unpack_layer(data, tmp_path).kinds == {b"a": "f", b"b": "f"}


def test_what_lies_too_deep_is_left_out_and_takes_no_room(tmp_path):
    upper, name = layer(tmp_path / "upper", {"a": "a"}), "d" * 250
    above = os.open(upper.path, os.O_RDONLY)
    for _ in range(40):
        os.mkdir(name, dir_fd=above)
        below = os.open(name, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)

    data, said = exported([upper], tmp_path, may_change=True)

    assert said.left_out == (("/".join([name] * 17).encode(), "too long a path"),)
    assert len(data) < 100_000
    remove_tree(upper.path)


def test_a_file_of_more_holes_than_a_tar_can_tell_has_zeros_in_the_small_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.SEGMENTS_OF_AN_EXPORT, 10)
    upper = layer(tmp_path / "upper", {"small": "", "large": ""})
    for size, name in ((64 << 10, "small"), (1 << 40, "large")):
        with open(tmp_path / "upper" / name, "wb") as file:
            for number in range(12):
                os.pwrite(file.fileno(), b"data", number * size)

    data, said = exported([upper], tmp_path, may_change=True)

    assert said.left_out == ((b"large", "too many holes"),)
    assert (unpack_layer(data, tmp_path).rootfs / "small").read_bytes() == (tmp_path / "upper/small").read_bytes()


def test_a_file_that_grows_while_its_holes_are_looked_for_is_as_it_was(tmp_path, monkeypatch):
    upper = layer(tmp_path / "upper", {"a": "", "b": "b"})
    place = tmp_path / "upper/a"
    os.truncate(place, 1 << 20)
    real = os.lseek

    def lseek(*arguments):
        with open(place, "r+b") as file:
            os.pwrite(file.fileno(), b"more", 8 << 20)
        return real(*arguments)

    monkeypatch.setattr(os, "lseek", lseek)
    data, _ = exported([upper], tmp_path, may_change=True)
    monkeypatch.undo()

    unpacked = unpack_layer(data, tmp_path)
    assert (unpacked.rootfs / "a").read_bytes() == bytes(1 << 20)
    assert (unpacked.rootfs / "b").read_bytes() == b"b"


def test_a_symlink_that_is_another_thing_when_it_is_read_is_left_out(tmp_path, monkeypatch):
    upper = layer(tmp_path / "upper", {"b": "b"})
    (tmp_path / "upper/a").symlink_to("b")
    real = os.readlink

    def readlink(*arguments, **named):
        (tmp_path / "upper/a").unlink()
        (tmp_path / "upper/a").touch()
        return real(*arguments, **named)

    monkeypatch.setattr(os, "readlink", readlink)
    data, said = exported([upper], tmp_path, may_change=True)
    monkeypatch.undo()

    assert said.left_out == ((b"a", "changed meanwhile"),)
    assert unpack_layer(data, tmp_path).kinds == {b"b": "f"}


def test_more_hard_links_than_are_remembered_are_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.NAMES_OF_AN_EXPORT, 100)
    upper = layer(tmp_path / "upper", {"a": "a", "b": "b"})
    for name in "ab":
        os.link(tmp_path / "upper" / name, tmp_path / "upper" / f"{name}2")

    data, said = exported([upper], tmp_path, may_change=True)

    assert said.left_out == ((b"b", "hard link"), (b"b2", "hard link"))
    assert unpack_layer(data, tmp_path).kinds == {b"a": "f", b"a2": "f", b"b": "f", b"b2": "f"}


def test_a_file_of_which_somebody_has_a_lease_is_left_out(tmp_path):
    upper = layer(tmp_path / "upper", {"a": "a", "b": "b"})

    with leased(tmp_path / "upper/a"):
        data, said = exported([upper], tmp_path, may_change=True)

    assert said.left_out == ((b"a", "in use"),)
    assert unpack_layer(data, tmp_path).kinds == {b"b": "f"}


def test_a_layer_that_changes_is_an_error(tmp_path, monkeypatch):
    only = layer(tmp_path / "layer", {"a": "a"})
    swapped_when_opened(monkeypatch, b"a", (tmp_path / "layer/a").unlink)

    with pytest.raises(FileNotFoundError):
        exported([only], tmp_path)

    assert os.listdir(tmp_path) == ["layer"]


def test_a_tar_goes_into_a_pipe(tmp_path):
    only = layer(tmp_path / "layer", {"a": "a" * 3_000_000})
    reading, writing = os.pipe()
    chunks = []

    def read():
        with open(reading, "rb") as pipe:
            chunks.append(pipe.read())

    reader = threading.Thread(target=read)
    reader.start()
    said = export_tar(ExportTar((only,), writing))
    os.close(writing)
    reader.join(TIMEOUT)

    assert [said.size_bytes] == [len(chunk) for chunk in chunks]
    assert unpack_layer(chunks[0], tmp_path).kinds == {b"a": "f"}


def test_a_file_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "there").write_text("mine")

    with pytest.raises(FileExistsError):
        export_tar(ExportTar((layer(tmp_path / "layer", {}),), str(tmp_path / "there")))

    assert (tmp_path / "there").read_text() == "mine"


def test_a_full_disk_is_an_error(tmp_path):
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space left") as caught:
            export_tar(ExportTar((layer(tmp_path / "layer", {}),), full))
    finally:
        os.close(full)

    assert caught.value.errno == errno.ENOSPC
