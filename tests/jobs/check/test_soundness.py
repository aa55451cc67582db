"""A sound layer is called sound wherever it lies, whoever put it and whoever looks; what is hidden is unchecked."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import seams, tars
from support.attributes import NOBODYS, acl
from support.changes import ACL, CAPABILITY, roots, xattr
from support.layer_samples import OTHERS, OWNER, PARTS, REPLACED
from support.layers import unpack_layer
from support.privileges import as_ordinary_user, call_each, in_user_namespace, with_capabilities
from support.processes import TIMEOUT

from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.errors import LayerError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.check.findings import LayerCheck
from pykka_imagestore.jobs.check_layer import CheckLayer, check_layer

SOUND = LayerCheck()
OF_AN_OLDER_VERSION = (
    (
        "was put by an older version that recorded less, so its record, its times, and the attributes of what no "
        "entry names cannot be checked"
    ),
)
root = pytest.mark.root


def as_oneself(function, *arguments):
    return function(*arguments)


SOMEBODY: dict[str, Callable[..., Any]] = {
    "root": as_oneself,
    **{
        f"root, {bounds}": partial(with_capabilities, bounds)
        for bounds in ("-all", "-sys_admin", "-fsetid", "-chown", "-dac_override,-dac_read_search")
    },
    "root of a namespace with all users": partial(with_capabilities, "-mknod", mapped=True),
    "nobody of a namespace with all users": partial(with_capabilities, "-all", mapped=True),
    "root of a namespace with nobody else": in_user_namespace,
    "an ordinary user": as_ordinary_user,
}


WITHOUT_LINKED_DEVICE = roots()[:-3]  # a link to a device that could not be made is refused


@pytest.mark.combinations
@root
@pytest.mark.parametrize("who_puts", SOMEBODY)
def test_whoever_looks_finds_no_fault_in_a_layer_whoever_put_it(users_directory, who_puts):
    places = [users_directory / name for name in ("others", "roots")]
    for place in places:
        place.mkdir()
    for place in (users_directory, *places):
        place.chmod(0o777)
    layers = [OTHERS, tars.tar(*WITHOUT_LINKED_DEVICE)]
    unpacked = SOMEBODY[who_puts](call_each, unpack_layer, layers, places)
    requests = [CheckLayer(str(each.target), each.counts.diff_id, deep=True) for each in unpacked]

    found = {who: call(call_each, check_layer, requests) for who, call in SOMEBODY.items()}

    faults = {who: [check.faults for check in checks] for who, checks in found.items()}
    assert faults == {who: [(), ()] for who in SOMEBODY}
    assert who_puts != "root" or [check.unchecked for check in found[who_puts]] == [(), ()]


@root
def test_owner_who_has_no_number_in_a_namespace_is_not_compared(tmp_path):
    unpacked = unpack_layer(tars.tar(tars.file(b"f", uid=70_000, gid=70_000)), tmp_path)
    request = CheckLayer(str(unpacked.target), unpacked.counts.diff_id, deep=True)

    found = with_capabilities("-mknod", check_layer, request, mapped=True)

    assert found == LayerCheck((), ("has owners who have no number in this user namespace",))


@pytest.mark.parametrize("deep", [True, False])
def test_part_that_a_user_may_not_read_is_not_checked(users_directory, deep):
    parts = ["layer.pb", "rootfs", "tar-split.zst", "replaced", "."]

    found = as_ordinary_user(check_hidden, users_directory, parts, deep)

    assert {part: check.faults for part, check in found.items()} == dict.fromkeys(parts, ())
    assert not deep or all(check.unchecked for check in found.values())


def check_hidden(directory, parts, deep):
    return {part: check_without(part, directory, deep) for part in parts}


def check_without(hidden, directory, deep):
    unpacked = unpack_layer(tars.tar(*REPLACED["a file by a file"]), directory)
    (unpacked.target / hidden).chmod(0)
    try:
        return check_layer(CheckLayer(str(unpacked.target), unpacked.counts.diff_id, deep))
    finally:
        (unpacked.target / hidden).chmod(0o700)


# -- extended attributes that depend on one another, and on modes

DEFAULT_ACL = xattr(b"system.posix_acl_default", ACL)
WIDE_ACL = acl((1, 7, NOBODYS), (2, 7, 7), (4, 7, NOBODYS), (0x10, 7, NOBODYS), (0x20, 7, NOBODYS))
PLAIN_ACL = acl((1, 6, NOBODYS), (4, 4, NOBODYS), (0x20, 4, NOBODYS))
WITH_ATTRIBUTES = {
    "a default ACL": (DEFAULT_ACL + tars.directory(b"d", **OWNER), tars.file(b"d/f", b"x", mode=0o666, **OWNER)),
    "a default ACL of the root": (
        DEFAULT_ACL + tars.directory(b".", **OWNER),
        tars.file(b"f", b"x", mode=0o666, **OWNER),
    ),
    "a default ACL of a directory that is named again": (
        DEFAULT_ACL + tars.directory(b"d", **OWNER),
        tars.directory(b"d", mode=0o700, **OWNER),
        tars.directory(b"d/e", mode=0o777, **OWNER),
    ),
    "a default ACL that a directory which is named again loses": (
        DEFAULT_ACL + tars.directory(b"d", **OWNER),
        xattr(b"system.posix_acl_default", b"") + tars.directory(b"d", **OWNER),
    ),
    "an ACL that says something else than the mode": (
        xattr(b"system.posix_acl_access", WIDE_ACL) + tars.file(b"f", b"x", mode=0o640, **OWNER),
        xattr(b"system.posix_acl_access", WIDE_ACL) + tars.directory(b"d", mode=0o755, **OWNER),
        xattr(b"system.posix_acl_access", WIDE_ACL) + tars.header(b"p", tars.FIFO, mode=0o600, **OWNER),
    ),
    "an ACL that says what a mode does": (
        xattr(b"system.posix_acl_access", PLAIN_ACL) + tars.file(b"f", b"x", mode=0o600, **OWNER),
    ),
    "no ACL": (xattr(b"system.posix_acl_access", b"\2\0\0\0") + tars.file(b"f", b"x", mode=0o600, **OWNER),),
    "a directory that gets more and more": (
        xattr(b"user.a", b"1") + tars.directory(b"d", **OWNER),
        xattr(b"user.b", b"2") + tars.directory(b"d", **OWNER),
        xattr(b"user.a", b"3") + tars.directory(b"d", **OWNER),
    ),
    "a directory that is replaced and has none then": (
        xattr(b"user.a", b"1") + tars.directory(b"d", **OWNER),
        tars.directory(b"d", **OWNER),
        tars.file(b"d", b"file", **OWNER),
        tars.directory(b"d", **OWNER),
    ),
    "a root that is named twice": (
        xattr(b"user.a", b"1") + tars.directory(b".", **OWNER),
        xattr(b"user.b", b"2") + tars.directory(b".", **OWNER),
    ),
    "overlayfs' own, which are left out": (xattr(b"user.overlay.opaque", b"y") + tars.directory(b"d", **OWNER),),
}


@pytest.mark.parametrize("case", WITH_ATTRIBUTES)
def test_layer_with_attributes_is_as_its_entries_say(tmp_path, case):
    unpacked = unpack_layer(tars.tar(*WITH_ATTRIBUTES[case]), tmp_path)

    assert unpacked.check() == SOUND


def test_more_attributes_of_directories_than_a_check_remembers_are_not_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.MARKS_BYTES, 10)
    again = [xattr(b"user.%d" % number, b"value") + tars.directory(b"d", **OWNER) for number in range(9)]
    unpacked = unpack_layer(tars.tar(*again, tars.opaque(b"d"), tars.file(b"d/f", b"x", **OWNER)), tmp_path)

    assert unpacked.check() == LayerCheck(
        (), ("gives directories that it names again more attributes than can be remembered",)
    )


def test_more_links_to_what_was_replaced_than_a_check_remembers_are_not_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.LINKS_TO_REPLACED_BYTES, 0)
    parts = (tars.file(b"e", **OWNER), tars.hard_link(b"eh", b"e"), tars.file(b"e", b"new", **OWNER))

    assert unpack_layer(tars.tar(*parts), tmp_path).check() == LayerCheck(
        (), ("has hard links to what it replaced itself, too much to be compared",)
    )


LINKED = [b"l/h%d" % number for number in range(50)]
AROUND = b"x/../" * 50
LEADING_ROUND_AND_ROUND = (
    tars.directory(b"x", **OWNER),
    tars.file(b"l/f", b"x", **OWNER),
    *(tars.hard_link(name, b"l/f") for name in LINKED),
    *(tars.symlink(b"s%d" % number, AROUND + b"s%d" % (number + 1), **OWNER) for number in range(9)),
    tars.symlink(b"l", AROUND + b"s0", **OWNER),
)


def test_layer_whose_directories_take_too_long_to_find_is_not_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.FREE_LOOKUPS_OF_A_CHECK, 1000)
    most = 1000 + 4 * 32 * (len(LINKED) + 12)

    unpacked = unpack_layer(tars.tar(*LEADING_ROUND_AND_ROUND), tmp_path)

    assert unpacked.check() == LayerCheck((), (f"has entries whose directories took more than {most} lookups to find",))


def test_layer_whose_directories_take_as_long_to_find_as_a_layer_may_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.FREE_LOOKUPS, 100)
    monkeypatch.setattr(seams.FREE_LOOKUPS_OF_A_CHECK, 100)
    directories = [b"%d" % number + b"/d" * 18 for number in range(10)]
    parts = (
        tars.file(directory + b"/f%d" % round_, b"x", **OWNER)
        + tars.hard_link(directories[number - 3] + b"/h%d" % round_, directory + b"/f%d" % round_)
        for round_ in range(50)
        for number, directory in enumerate(directories)
    )

    assert unpack_layer(tars.tar(*parts), tmp_path).check() == SOUND


def test_what_is_made_in_a_directory_with_a_default_acl_inherits_nothing(tmp_path):
    unpacked = unpack_layer(tars.tar(*WITH_ATTRIBUTES["a default ACL"]), tmp_path)

    assert unpacked.nodes[b"d/f"].xattrs == ()
    assert unpacked.nodes[b"d/f"].mode == 0o666
    assert [key for key, _ in unpacked.nodes[b"d"].xattrs] == ["system.posix_acl_default"]


@root
def test_capabilities_as_each_user_namespace_shows_them_are_the_same(tmp_path):
    layer = tars.tar(xattr(b"security.capability", CAPABILITY) + tars.file(b"f", b"x", mode=0o755))
    unpacked = with_capabilities("-mknod", unpack_layer, layer, tmp_path, mapped=True)

    assert unpacked.unset == []
    assert unpacked.check() == SOUND


def test_label_that_the_system_changed_is_not_checked(tmp_path):
    unpacked = unpack_layer(tars.tar(xattr(b"security.selinux", b"given\0") + tars.file(b"f", b"x", **OWNER)), tmp_path)
    if unpacked.unset:
        pytest.skip("this process may not set labels")
    os.setxattr(unpacked.rootfs / "f", "security.selinux", b"of the system\0")

    assert unpacked.check() == LayerCheck((), ("has 'f' with another 'security.selinux', which the system may set",))


# -- opaque directories, which entries make, hide and take out

WHITEOUTS = {
    "a directory that is opaque and goes": (
        tars.opaque(b"d"),
        tars.file(b"d", b"file", **OWNER),
        tars.directory(b"d", **OWNER),
    ),
    "a directory that is opaque, and a symlink in its place": (
        tars.directory(b"e", **OWNER),
        tars.opaque(b"d"),
        tars.symlink(b"d", b"e", **OWNER),
    ),
    "a directory in the place of a whiteout": (tars.whiteout(b"d"), tars.directory(b"d", **OWNER)),
    "a directory in the place of a file that a whiteout named": (
        tars.file(b"d", b"1", **OWNER),
        tars.whiteout(b"d"),
        tars.directory(b"d", **OWNER),
    ),
    "a file in the place of a whiteout, and a directory in its": (
        tars.whiteout(b"d"),
        tars.file(b"d", b"1", **OWNER),
        tars.directory(b"d", **OWNER),
    ),
    "an implicit directory in the place of a whiteout": (tars.whiteout(b"d"), tars.file(b"d/e/f", b"1", **OWNER)),
    "a whiteout of a directory that is named again": (
        tars.directory(b"d", **OWNER),
        tars.whiteout(b"d"),
        tars.directory(b"d", mode=0o700, **OWNER),
    ),
    "an opaque root": (tars.opaque(b""), tars.file(b"f", b"1", **OWNER)),
    "whiteouts twice": (tars.whiteout(b"d/f"), tars.whiteout(b"d/f"), tars.opaque(b"d"), tars.opaque(b"d")),
    "an opaque directory below one that goes": (
        tars.opaque(b"a/b"),
        tars.file(b"a", b"1", **OWNER),
        tars.directory(b"a", **OWNER),
        tars.directory(b"a/b", **OWNER),
    ),
}


@pytest.mark.parametrize("case", WHITEOUTS)
def test_opaque_directories_are_those_that_entries_made(tmp_path, case):
    unpacked = unpack_layer(tars.tar(*WHITEOUTS[case]), tmp_path)

    assert unpacked.check() == SOUND


# -- layers that older versions put

NEVER_THERE = {
    "a default ACL of a file": DEFAULT_ACL + tars.file(b"f", b"x", **OWNER),
    "an empty capability": xattr(b"security.capability", b"") + tars.file(b"f", b"x", **OWNER),
}


def unpack_without_a_note(part, place):
    """Unpack a layer whose record says nothing of what could not be set, as before that was known."""
    unpacked = unpack_layer(tars.tar(part), place)
    record = unpacked.record
    record.ClearField("unset")
    record.unset_count = 0
    unpacked.write_record(record)
    return unpacked


@pytest.mark.parametrize("case", NEVER_THERE)
def test_attribute_that_nothing_can_have_is_not_missed(tmp_path, case):
    assert unpack_without_a_note(NEVER_THERE[case], tmp_path).check() == SOUND


@root
def test_empty_capability_that_an_older_version_set_is_no_fault_and_another_is(tmp_path):
    unpacked = unpack_without_a_note(NEVER_THERE["an empty capability"], tmp_path)
    os.setxattr(unpacked.rootfs / "f", "security.capability", b"")
    found = unpacked.check()
    os.setxattr(unpacked.rootfs / "f", "security.capability", CAPABILITY)

    assert found == SOUND
    assert unpacked.check() == LayerCheck(("has 'f' with another extended attribute 'security.capability'",))


OLD = {
    **{case: tars.tar(*parts) for cases in (REPLACED, WHITEOUTS) for case, parts in cases.items()},
    "parts": tars.tar(*PARTS),
    "others": OTHERS,
}


@pytest.mark.parametrize("case", OLD)
def test_layer_that_an_older_version_put_has_no_fault_and_says_what_cannot_be_checked(tmp_path, case):
    unpacked = unpack_layer(OLD[case], tmp_path)
    unpacked.forget_what_is_new()
    os.utime(unpacked.rootfs, (1, 1))

    quick = check_layer(CheckLayer(str(unpacked.target), unpacked.counts.diff_id))

    assert (quick, unpacked.check()) == (SOUND, LayerCheck((), OF_AN_OLDER_VERSION))


# -- file systems

TIMES = tars.tar(
    *(
        tars.pax({b"mtime": mtime}) + tars.file(b"f%d" % number, b"x", **OWNER)
        for number, mtime in enumerate((b"1.5", b"-1.25", b"2147483648.5", b"1e12", b"-3000000000", b"15032385536"))
    )
)


@root
@pytest.mark.parametrize("options", [["-I", "128"], ["-I", "256"]])
def test_times_that_a_file_system_rounds_are_no_faults(tmp_path, options):
    image, directory = tmp_path / "image", tmp_path / "mounted"
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    commands = ["mkfs.ext4", "-q", "-F", *options, image], ["mount", "-o", "loop", image, directory]
    if shutil.which("mkfs.ext4") is None or any(_fails(command) for command in commands):
        pytest.skip("this machine has no mkfs.ext4, or does not let us mount a file system")
    try:
        unpacked = unpack_layer(TIMES, directory)
        assert unpacked.check() == SOUND
        os.utime(unpacked.rootfs / "f0", (3, 3))

        assert unpacked.check() == LayerCheck((f"has 'f0' of time 3, not {1 if options[1] == '128' else 1.5}",))
    finally:
        subprocess.run(["umount", directory], check=True, timeout=TIMEOUT)


def _fails(command):
    return subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).returncode != 0


def test_copy_made_of_hard_links_is_sound_and_so_is_the_original(tmp_path):
    unpacked = unpack_layer(tars.tar(*PARTS), tmp_path)
    subprocess.run(["cp", "-al", unpacked.target, tmp_path / "copy"], check=True, timeout=TIMEOUT)

    copied = check_layer(CheckLayer(str(tmp_path / "copy"), unpacked.counts.diff_id, deep=True))

    assert (unpacked.check(), copied) == (SOUND, SOUND)


def test_file_made_one_with_another_is_found_in_a_copy_made_of_hard_links_too(tmp_path):
    parts = [tars.file(name, b"same", **OWNER) for name in (b"a", b"b", b"c")]
    unpacked = unpack_layer(tars.tar(*parts), tmp_path)
    subprocess.run(["cp", "-al", unpacked.target, tmp_path / "copy"], check=True, timeout=TIMEOUT)
    (unpacked.rootfs / "b").unlink()
    os.link(unpacked.rootfs / "a", unpacked.rootfs / "b")
    os.utime(unpacked.rootfs, (0, 0))

    assert unpacked.check() == LayerCheck(("has 1 files that are hard links to others, though no entry links them",))


# -- at random

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"d/a", b"d/b", b"d/e", b"d/e/a", b"e/a"])
MODES = st.sampled_from([0o644, 0o755, 0o4711, 0o1777])
BODIES = st.sampled_from([b"", b"x", b"y" * 700])
ENTRIES = (
    st.builds(lambda name, body, mode: tars.file(name, body, mode=mode, mtime=7, **OWNER), NAMES, BODIES, MODES)
    | st.builds(lambda name, mode: tars.directory(name, mode=mode | 0o700, mtime=8, **OWNER), NAMES, MODES)
    | st.builds(lambda name, target: tars.symlink(name, target, mtime=9, **OWNER), NAMES, NAMES)
    | st.builds(tars.hard_link, NAMES, NAMES)
    | st.builds(lambda name: tars.header(name, tars.FIFO, mtime=5, **OWNER), NAMES)
    | st.builds(tars.whiteout, NAMES)
    | st.builds(tars.opaque, st.sampled_from([b"", b"d", b"d/e", b"e"]))
    | st.builds(lambda name: xattr(b"user.k", b"v") + tars.file(name, b"z", mtime=6, **OWNER), NAMES)
    | st.builds(lambda name: xattr(b"user.k", b"v") + tars.directory(name, mtime=6, **OWNER), NAMES)
)
LAYERS = st.lists(ENTRIES, max_size=9)


def unpacked_or_none(entries, place):
    try:
        return unpack_layer(tars.tar(*entries), place)
    except (LayerError, TarError):
        return None  # an entry that is refused


@settings(max_examples=150)
@given(LAYERS)
def test_any_layer_is_sound_as_it_was_put(entries):
    with tempfile.TemporaryDirectory() as place:
        unpacked = unpacked_or_none(entries, place)
        if unpacked is not None:
            found = unpacked.check()
            assert found == SOUND or found.unchecked[0].startswith("replaces its own files in a way")
            remove_tree(str(unpacked.target))


def is_whiteout(path):
    return path.name.startswith(".wh.") or (path.is_char_device() and not path.is_symlink())


def change_mode(path, number):
    if path.is_symlink():
        return False
    path.chmod(path.stat().st_mode & 0o7777 ^ (1 << number % 12))
    return True


def change_time(path, number):
    before = path.lstat().st_mtime_ns
    os.utime(path, ns=(0, before + number + 1), follow_symlinks=False)
    return not is_whiteout(path)


def change_content(path, number):
    if path.is_symlink() or not path.is_file():
        return False
    data, before = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    if data and number % 3:
        data[number % len(data)] ^= 1 << number % 8
    else:
        data.append(number % 256)
    path.write_bytes(data)
    os.utime(path, ns=(before, before))
    return True


def change_attributes(path, number):
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        return False
    found = os.listxattr(path)
    if found and number % 2:
        os.removexattr(path, found[number % len(found)])
    else:
        os.setxattr(path, "user.more", b"%d" % number)
    return True


def change_names(path, number):
    if path.name in ("rootfs", "layer"):
        return False
    above, before = path.parent, path.parent.stat().st_mtime_ns
    if number % 3 == 0:
        path.rename(path.with_name(f"other{number}"))
    elif number % 3 == 1:
        path.with_name(f"more{number}").touch()
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    os.utime(above, ns=(before, before))
    return True


CHANGES = st.sampled_from([change_mode, change_time, change_content, change_attributes, change_names])


def nodes_of(unpacked):
    """Return all of a layer of which something is recorded besides its content, sorted."""
    below = [unpacked.rootfs, *unpacked.rootfs.rglob("*")]
    return [*sorted(below), *sorted(path for path in (unpacked.target / "replaced").glob("[0-9]*"))]


@settings(max_examples=300)
@given(LAYERS, CHANGES, st.integers(0, 10_000), st.integers(0, 1000))
def test_any_change_of_any_layer_is_found(entries, change, which, number):
    with tempfile.TemporaryDirectory() as place:
        unpacked = unpacked_or_none(entries, place)
        if unpacked is None:
            return
        nodes, is_whole = nodes_of(unpacked), unpacked.check() == SOUND
        if change(nodes[which % len(nodes)], number) and is_whole:
            assert unpacked.check().faults != ()
        remove_tree(str(unpacked.target))


@settings(max_examples=100)
@given(LAYERS, st.sampled_from(["layer.pb", "tar-split.zst", "replaced/paths"]), st.integers(0, 10_000))
def test_any_bit_beside_the_tree_that_changes_is_found(entries, part, number):
    with tempfile.TemporaryDirectory() as place:
        unpacked = unpacked_or_none(entries, place)
        if unpacked is None or not (unpacked.target / part).exists() or unpacked.check() != SOUND:
            return
        path = unpacked.target / part
        data = bytearray(path.read_bytes())
        data[number // 8 % len(data)] ^= 1 << number % 8
        path.write_bytes(data)

        assert unpacked.check().faults != ()
