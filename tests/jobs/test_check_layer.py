"""A check of a layer as a task: a sound layer is sound for every user; it reports, stops, and leaves no trace."""

from __future__ import annotations

import os
import pkgutil
import resource
import shutil
from pathlib import Path

import pytest
from support import seams, tars
from support.compressions import COMPRESS
from support.hosts import Host
from support.layer_samples import OWNER, PARTS
from support.layers import (
    Unpacked,
    unpack_and_check,
    unpack_change_mode_and_check,
    unpack_layer,
    unpack_with_peers,
)
from support.privileges import as_ordinary_user, in_user_namespace, with_umask

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.jobs.check.findings import LayerCheck
from pykka_imagestore.jobs.check_layer import CheckCounts, CheckLayer, check_layer
from pykka_imagestore.runtime.errors import DiscardedError
from pykka_imagestore.runtime.worker import run_hosted

root = pytest.mark.root
SOUND = LayerCheck()


def test_sound_layer_has_no_faults_deep_or_not(layer):
    quick = check_layer(CheckLayer(str(layer.target), layer.counts.diff_id))

    assert (layer.check(), quick) == (SOUND, SOUND)


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_layer_is_checked_by_its_uncompressed_bytes(tmp_path, compression):
    assert unpack_layer(COMPRESS[compression](tars.tar(*PARTS)), tmp_path).check() == SOUND


def test_layer_that_peers_helped_with_is_sound(tmp_path):
    assert unpack_with_peers(tars.tar(*PARTS, tars.file(b"d/f", b"new", **OWNER)), tmp_path).check() == SOUND


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
