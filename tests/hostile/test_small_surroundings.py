"""Limits of this machine, not of the image: each is one sentence with figures, and never called the image's fault."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import pytest
from support import seams, tars
from support.images import docker_save, layer
from support.layers import blob_of
from support.privileges import on_file_system
from support.processes import TIMEOUT
from support.rootfs import request

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.process_limit import explain_if_at_limit
from pykka_imagestore.errors import FileTooLargeError, InvalidInputError, NoSpaceError, ProcUnavailableError
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.mounts import mount
from pykka_imagestore.rootfs.overlay import Overlay
from pykka_imagestore.runtime import WorkerStartError

MIB = 1 << 20


@contextmanager
def files_of_at_most(size_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "entry",
    [
        tars.file(b"f", os.urandom(2 * MIB)),
        tars.gnu_sparse(b"f", 2 * MIB, [], b""),
        tars.file(b".wh..wh.plnk/f", bytes(2 * MIB)),
    ],
)
def test_file_larger_than_this_process_may_make_is_no_fault_of_the_image(tmp_path, entry):
    data = tars.tar(tars.file(b"small", b"x"), entry)

    with pytest.raises(FileTooLargeError) as caught:
        unpack_with_small_files(data, tmp_path)

    assert str(caught.value).startswith(f"{tmp_path}/layer.tar: layer layer.tar: entry 1 '")
    assert "has 2097152 bytes or more, and no file of this process may have more than 1048576. " in str(caught.value)
    assert (caught.value.errno, caught.value.limit_bytes) == (errno.EFBIG, MIB)
    assert not (tmp_path / "layer").exists()


def unpack_with_small_files(data, directory):
    request = UntarLayer(blob_of(data, directory), str(directory / "layer"))
    with files_of_at_most(MIB):
        untar_layer(request)


def test_archive_whose_copy_is_larger_than_this_process_may_make(tmp_path):
    archive = compressed_archive(tmp_path)

    with files_of_at_most(MIB), pytest.raises(FileTooLargeError) as caught:
        untar_image(UntarImage(str(archive), str(tmp_path / "copy")))

    assert str(caught.value).startswith(f"{archive}: its copy that is a tar has 1310720 bytes or more, and no file of ")


def test_layer_of_files_that_are_small_enough_is_unpacked(tmp_path):
    unpack_with_small_files(tars.tar(*(tars.file(b"%d" % number, bytes(MIB)) for number in range(3))), tmp_path)

    assert len(os.listdir(tmp_path / "layer" / "rootfs")) == 3


@pytest.mark.root
def test_disk_that_is_full_while_an_archive_is_inflated_is_told_with_figures(tmp_path):
    archive, disk = compressed_archive(tmp_path), tmp_path / "disk"
    disk.mkdir()

    with pytest.raises(NoSpaceError, match=r"copy: \d+ bytes are left, and at least 262144 are needed") as caught:
        on_file_system("tmpfs", "size=1m", str(disk), untar_image, UntarImage(str(archive), str(disk / "copy")))

    assert caught.value.errno == errno.ENOSPC


def compressed_archive(directory):
    archive = docker_save(directory / "app.tar", {"app": [layer({"f": os.urandom(4 * MIB)})]})
    stored = directory / "app.tar.gz"
    stored.write_bytes(gzip.compress(archive.read_bytes(), 1))
    return stored


@pytest.mark.root
def test_machine_without_proc_is_told_so(tmp_path):
    untar = UntarLayer(blob_of(tars.tar(tars.file(b"f")), tmp_path), str(tmp_path / "layer"))

    with pytest.raises(ProcUnavailableError, match=r"/proc/self/status: No such file .* and unpacking, .* need /proc"):
        on_file_system("tmpfs", "size=1m", "/proc", untar_layer, untar)


@pytest.mark.root
@pytest.mark.parametrize("backend", [Copy(), Overlay()], ids=["copy", "overlay"])
def test_without_proc_no_root_file_system_is_taken_for_gone(tmp_path, backend):
    (tmp_path / "box/rootfs").mkdir(parents=True)
    without_proc = partial(on_file_system, "tmpfs", "size=1m", "/proc")
    wanted = request(tmp_path / "box")

    with pytest.raises(ProcUnavailableError, match="mounting and unmounting need /proc"):
        without_proc(call_when_mounted, backend.unmount, wanted)
    assert without_proc(call_when_mounted, backend.is_attached, wanted)
    assert not without_proc(backend.is_attached, wanted)


def call_when_mounted(function, wanted):
    mount("none", f"{wanted.directory}/rootfs", "tmpfs", 0, "")
    return function(wanted)


@pytest.mark.root
@pytest.mark.parametrize("backend", [Copy(), Overlay()], ids=["copy", "overlay"])
def test_without_proc_a_kernel_that_tells_no_mounts_number_is_no_reason_to_take_a_root_file_system_for_gone(
    tmp_path, backend
):
    (tmp_path / "box/rootfs").mkdir(parents=True)

    for look in (backend.is_attached, backend.unmount):
        with pytest.raises(ProcUnavailableError, match="mounting and unmounting need /proc"):
            on_file_system("tmpfs", "size=1m", "/proc", call_on_old_kernel, look, request(tmp_path / "box"))


def call_on_old_kernel(function, wanted):
    with patch(seams.MOUNT_NUMBER, lambda *_: None):
        return function(wanted)


def test_user_without_a_home_directory_is_told_to_name_the_store(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)

    with pytest.raises(InvalidInputError, match=r"user 4000000001 has no home directory, and HOME is not set.*--store"):
        store_directory(None, {})
    assert str(store_directory(None, {"IMAGESTORE_DIR": "/s"})) == "/s"
    assert str(store_directory(None, {"XDG_DATA_HOME": "/d"})) == "/d/imagestore"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        WorkerStartError("untar_image", f"[Errno 11] {os.strerror(errno.EAGAIN)}"),
        WorkerStartError("untar_image", "can't start new thread"),
    ],
)
def test_user_who_may_start_no_more_processes_is_told_how_many(monkeypatch, error):
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (7, 7) if limit == resource.RLIMIT_NPROC else (0, 0))

    sentence = explain_if_at_limit(error)

    assert sentence is not None
    assert f"user {os.getuid()} may have 7 at a time; raise that limit (ulimit -u" in sentence
    assert explain_if_at_limit(RuntimeError("something else")) is None


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_program_whose_threads_gevent_replaced_puts_images(tmp_path):
    archive = docker_save(tmp_path / "app.tar", {"app": [layer({"f": b"x"})]})
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "from pykka_imagestore import LocalStore\n"
        f"with LocalStore.start({str(tmp_path / 'store')!r}) as store:\n"
        f"    print(store.load({str(archive)!r}).get(timeout={TIMEOUT})[0].name)\n"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT, check=False)

    assert (ran.stdout, ran.returncode) == (b"app:latest\n", 0)
