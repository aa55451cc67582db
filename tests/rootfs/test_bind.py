"""The backend ``bind``: one layer as it lies in the store, which nobody writes to."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import TIMEOUT
from support.rootfs import (
    descriptors_after,
    layer,
    names_in,
    points_below,
    read,
    request,
)

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.errors import RootfsError
from pykka_imagestore.rootfs.bind import Bind

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("mounts")]


@pytest.fixture
def only(tmp_path):
    return layer(tmp_path / "only", {"etc/hosts": "only"})


@pytest.mark.parametrize("place", ["", "rootfs", "target"])
def test_the_layer_is_shown_where_it_is_wanted(tmp_path, only, place):
    (tmp_path / "target").mkdir()
    target = str(tmp_path / "target") if place == "target" else None
    wanted = request(tmp_path / "box", only, read_only=True, attach=bool(place), target=target)

    mounted = Bind().mount(wanted)

    expected = {"": None, "rootfs": f"{tmp_path}/box/rootfs", "target": target}[place]
    assert (mounted.path, points_below(tmp_path)) == (expected, [expected] if place else [])
    assert read(mounted.fd, "etc/hosts") == "only"
    assert Bind().is_attached(wanted) == bool(place)
    os.close(mounted.fd)
    Bind().unmount(wanted)
    Bind().unmount(wanted)
    assert not Bind().is_attached(wanted)
    assert points_below(tmp_path) == []


def test_a_target_is_left_where_the_store_is_on_a_file_system_of_its_own_too(tmp_path):
    """There the root of what is mounted is ``/``, and not a directory as in a container."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True, timeout=TIMEOUT)
    try:
        (place / "target").mkdir()
        only = layer(place / "store" / "layers" / "one", {"etc/hosts": "only"})
        wanted = request(place / "store/containers/box", only, read_only=True, target=str(place / "target"))
        os.close(Bind().mount(wanted).fd)

        assert Bind().is_attached(wanted)
        Bind().unmount(replace(wanted, layers=()))

        assert points_below(place) == []
    finally:
        subprocess.run(["umount", "--recursive", place], check=True, timeout=TIMEOUT)


def test_nobody_writes_to_the_layer(tmp_path, only):
    mounted = Bind().mount(request(tmp_path / "box", only, read_only=True, attach=False))

    for change in (
        lambda: os.open("etc/hosts", os.O_WRONLY, dir_fd=mounted.fd),
        lambda: os.mkdir("new", dir_fd=mounted.fd),
        lambda: os.chmod(f"/proc/self/fd/{mounted.fd}/etc", 0o700),
        lambda: os.utime("etc/hosts", dir_fd=mounted.fd),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            change()
        assert caught.value.errno == errno.EROFS
    os.close(mounted.fd)


@pytest.mark.parametrize("for_runtime", [False, True])
def test_devices_and_set_user_id_have_no_effect_unless_a_runtime_guards_them(tmp_path, only, for_runtime):
    os.mknod(tmp_path / "only/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    wanted = request(tmp_path / "box", only, read_only=True, for_runtime=for_runtime)
    mounted = Bind().mount(wanted)

    guards = os.ST_NOSUID | os.ST_NODEV
    of_the_store = os.statvfs(tmp_path).f_flag & guards
    assert os.statvfs(tmp_path / "box/rootfs").f_flag & guards == (of_the_store if for_runtime else guards)
    os.close(mounted.fd)
    Bind().unmount(wanted)


def test_another_layer_at_the_target_stays(tmp_path, only):
    other = layer(tmp_path / "other", {"etc/hosts": "other"})
    (tmp_path / "target").mkdir()
    wanted, others = (
        request(tmp_path / "box", one, read_only=True, target=str(tmp_path / "target")) for one in (only, other)
    )
    os.close(Bind().mount(wanted).fd)

    Bind().unmount(others)
    assert points_below(tmp_path) == [str(tmp_path / "target")]
    Bind().unmount(wanted)

    assert points_below(tmp_path) == []


def test_without_its_layers_a_request_finds_what_shows_one_of_its_store(tmp_path):
    stored = layer(tmp_path / "store/layers/sha256-1/rootfs", {"etc/hosts": "only"})
    other = layer(tmp_path / "layers/sha256-1/rootfs", {})
    (tmp_path / "target").mkdir()
    for one, is_ours in ((stored, True), (other, False)):
        wanted = request(tmp_path / "store/containers/box", one, read_only=True, target=str(tmp_path / "target"))
        os.close(Bind().mount(wanted).fd)

        assert Bind().is_attached(replace(wanted, layers=())) == is_ours
        Bind().unmount(replace(wanted, layers=()))

        assert (points_below(tmp_path) == []) == is_ours
        Bind().unmount(wanted)


def test_a_mount_may_be_made_again_after_it_was_cut_off(tmp_path, only):
    wanted = request(tmp_path / "box", only, read_only=True)
    os.close(Bind().mount(wanted).fd)

    mounted = Bind().mount(wanted)

    assert points_below(tmp_path) == [f"{tmp_path}/box/rootfs"]
    os.close(mounted.fd)
    Bind().unmount(wanted)


@pytest.mark.parametrize(
    ("fields", "whiteouts", "count", "sentence"),
    [
        ({}, WhiteoutFormat.NONE, 1, "can only be read"),
        ({"read_only": True}, WhiteoutFormat.NONE, 2, "it shows one layer, and these are 2"),
        ({"read_only": True}, WhiteoutFormat.OVERLAY_TRUSTED, 1, "has whiteouts"),
        ({"read_only": True}, WhiteoutFormat.OVERLAY_USER, 1, "has whiteouts"),
        ({"read_only": True}, WhiteoutFormat.FILES, 1, "has whiteouts"),
    ],
)
def test_what_one_layer_cannot_be_is_refused(tmp_path, fields, whiteouts, count, sentence):
    layers = [layer(tmp_path / f"{number}", {}, whiteouts) for number in range(count)]
    wanted = request(tmp_path / "box", *layers, **fields)

    with pytest.raises(RootfsError, match=sentence):
        Bind().mount(wanted)

    assert sentence in str(Bind().refusal(wanted))
    assert os.listdir(tmp_path / "box") == []


def test_nothing_stays_open(tmp_path, only):
    numbers = iter(range(10_000))

    def make_and_remove():
        mounted = Bind().mount(request(tmp_path / f"{next(numbers)}", only, read_only=True, attach=False))
        assert names_in(mounted.fd) == ["etc"]
        os.close(mounted.fd)

    before, after = descriptors_after(200, make_and_remove)

    assert before == after
    assert Path(only.path).is_dir()
