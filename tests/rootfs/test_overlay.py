"""The backend ``overlay``, as root: what its mounts show, what they refuse, and what is left of them."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.attributes import NOBODYS, acl
from support.privileges import ORDINARY_USER, as_ordinary_user, ordinary_users_place
from support.processes import TIMEOUT
from support.rootfs import (
    GONE,
    descriptors_after,
    layer,
    names_in,
    points_below,
    read,
    request,
    write,
)

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import StackLayer
from pykka_imagestore.errors import InvalidInputError, RootfsError
from pykka_imagestore.rootfs.mounts import clone_tree, move_mount
from pykka_imagestore.rootfs.overlay import Overlay, overlay_reads
from pykka_imagestore.rootfs.overlay_ways import WAYS, by_descriptors, by_options, by_paths
from pykka_imagestore.rootfs.place import mount_entries, unmount_listed

pytestmark = [pytest.mark.root, pytest.mark.overlay, pytest.mark.usefixtures("mounts")]
TRUSTED = WhiteoutFormat.OVERLAY_TRUSTED
EACH_WAY = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@pytest.fixture
def layers(tmp_path):
    lower = layer(tmp_path / "lower", {"etc/hosts": "lower", "etc/gone": "", "usr/bin/": None, "kept": "lower"})
    upper = layer(tmp_path / "upper", {"etc/hosts": "upper", "etc/gone": GONE, "new": "upper"}, TRUSTED)
    return lower, upper


@pytest.fixture
def overlay():
    return Overlay()


# -- what is shown


@EACH_WAY
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("attach", [False, True])
def test_the_layers_are_merged_and_whiteouts_hide(tmp_path, layers, way, read_only, attach):
    wanted = request(tmp_path / "box", *layers, read_only=read_only, attach=attach)

    mounted = Overlay([way]).mount(wanted)

    assert names_in(mounted.fd) == ["etc", "kept", "new", "usr"]
    assert names_in(mounted.fd, "etc") == ["hosts"]
    assert (read(mounted.fd, "etc/hosts"), read(mounted.fd, "kept")) == ("upper", "lower")
    assert mounted.path == (f"{wanted.directory}/rootfs" if attach else None)
    assert points_below(tmp_path) == ([mounted.path] if attach else [])
    if attach:
        assert names_in(mounted.fd) == sorted(os.listdir(mounted.path))
    os.close(mounted.fd)
    Overlay([way]).unmount(wanted)


@EACH_WAY
def test_what_is_written_is_in_the_containers_directory_alone(tmp_path, layers, way):
    wanted = request(tmp_path / "box", *layers, attach=False)
    mounted = Overlay([way]).mount(wanted)

    write(mounted.fd, "etc/hosts", "written")
    os.unlink("kept", dir_fd=mounted.fd)

    assert (tmp_path / "box/upper/etc/hosts").read_text() == "written"
    assert stat.S_ISCHR((tmp_path / "box/upper/kept").lstat().st_mode)
    assert (tmp_path / "upper/etc/hosts").read_text() == "upper"
    assert (tmp_path / "lower/kept").read_text() == "lower"
    os.close(mounted.fd)


@EACH_WAY
def test_read_only_takes_no_write(tmp_path, layers, way):
    mounted = Overlay([way]).mount(request(tmp_path / "box", *layers, read_only=True, attach=False))

    with pytest.raises(OSError, match="Read-only") as caught:
        write(mounted.fd, "new", "written")

    assert caught.value.errno == errno.EROFS
    assert sorted(os.listdir(tmp_path / "box")) == ["rootfs"]
    os.close(mounted.fd)


@EACH_WAY
def test_one_layer_is_enough_also_read_only(tmp_path, way):
    only = layer(tmp_path / "only", {"etc/hosts": "only", "gone": GONE}, TRUSTED)
    (tmp_path / "only").chmod(0o1751)

    mounted = Overlay([way]).mount(request(tmp_path / "box", only, read_only=True, attach=False))

    assert names_in(mounted.fd) == ["etc"]
    assert stat.S_IMODE(os.stat(".", dir_fd=mounted.fd).st_mode) == 0o1751
    os.close(mounted.fd)


@pytest.mark.parametrize("read_only", [False, True])
def test_the_root_has_the_attributes_of_the_topmost_layers(tmp_path, layers, overlay, read_only):
    root = layers[-1].path
    access = acl((0x01, 7, NOBODYS), (0x02, 5, 12345), (0x04, 5, NOBODYS), (0x10, 5, NOBODYS), (0x20, 1, NOBODYS))
    os.setxattr(root, b"user.kept", b"value")
    os.setxattr(root, b"trusted.overlay.opaque", b"y")
    os.setxattr(root, b"system.posix_acl_access", access)
    os.setxattr(root, b"system.posix_acl_default", access)
    os.chown(root, 1234, 5678)
    os.chmod(root, 0o3751)
    os.utime(root, ns=(1_000_000_007, 2_000_000_009))

    mounted = overlay.mount(request(tmp_path / "box", *layers, read_only=read_only, attach=False))

    place = f"/proc/self/fd/{mounted.fd}"
    found = os.stat(place)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o3751, 1234, 5678)
    assert found.st_mtime_ns == 2_000_000_009
    assert os.getxattr(place, "user.kept") == b"value"
    assert read_only or "trusted.overlay.opaque" not in os.listxattr(tmp_path / "box/upper")
    assert os.getxattr(place, "system.posix_acl_access") == access
    assert os.getxattr(place, "system.posix_acl_default") == access
    os.close(mounted.fd)


def test_the_upper_directory_inherits_nothing_of_the_containers(tmp_path, layers, overlay):
    box = tmp_path / "box"
    box.mkdir()
    inherited = acl((0x01, 7, NOBODYS), (0x02, 7, 12345), (0x04, 7, NOBODYS), (0x10, 7, NOBODYS), (0x20, 7, NOBODYS))
    os.setxattr(box, b"system.posix_acl_default", inherited)
    box.chmod(0o2700)

    mounted = overlay.mount(request(box, *layers, attach=False))

    assert stat.S_IMODE(os.stat(".", dir_fd=mounted.fd).st_mode) == 0o755
    assert os.listxattr(box / "upper") == []
    os.close(mounted.fd)


# -- options


@pytest.mark.parametrize("read_only", [False, True])
def test_options_are_pinned(tmp_path, layers, overlay, read_only):
    os.close(overlay.mount(request(tmp_path / "box", *layers, read_only=read_only)).fd)

    table = Path("/proc/self/mountinfo").read_text()
    line = next(line for line in table.splitlines() if f"{tmp_path}/box/rootfs" in line)
    options, told = line.split()[5].split(","), line.split()[-1].split(",")
    assert set(options) >= {"nosuid", "nodev", "ro" if read_only else "rw"}
    assert set(told) >= {"redirect_dir=nofollow", "uuid=null"}
    assert {"metacopy=on", "index=on"}.isdisjoint(told)
    assert ("fsync=volatile" in told or "volatile" in told) == (not read_only)
    overlay.unmount(request(tmp_path / "box"))


@pytest.mark.parametrize("read_only", [False, True])
def test_options_are_told_whatever_the_kernel_was_built_with(tmp_path, layers, read_only):
    told = []

    def listen(stack, options):
        told.extend(options)
        return by_descriptors(stack, options)

    os.close(Overlay([listen]).mount(request(tmp_path / "box", *layers, read_only=read_only, attach=False)).fd)

    pinned = ["metacopy=off", "index=off", "redirect_dir=nofollow", "uuid=null"]
    assert told == (pinned if read_only else [*pinned, "volatile"])


@EACH_WAY
def test_for_a_runtime_programs_keep_their_rights(tmp_path, layers, way):
    wanted = request(tmp_path / "box", *layers, for_runtime=True)
    os.close(Overlay([way]).mount(wanted).fd)

    found = os.statvfs(tmp_path / "box/rootfs").f_flag
    assert not found & (os.ST_NOSUID | os.ST_NODEV)
    Overlay([way]).unmount(wanted)


@EACH_WAY
def test_without_a_runtime_devices_and_set_user_id_have_no_effect(tmp_path, layers, way):
    os.mknod(tmp_path / "lower/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    wanted = request(tmp_path / "box", *layers)
    mounted = Overlay([way]).mount(wanted)

    assert os.statvfs(tmp_path / "box/rootfs").f_flag & os.ST_NOSUID
    with pytest.raises(PermissionError):
        read(mounted.fd, "null")
    os.close(mounted.fd)
    Overlay([way]).unmount(wanted)


@EACH_WAY
@pytest.mark.parametrize("prefix", ["trusted.overlay", "user.overlay"])
def test_what_a_layer_plants_is_not_followed(tmp_path, way, prefix):
    secret = layer(tmp_path / "base", {"root/secret": "secret", "usr/": None, "data": "x" * 100})
    hostile = layer(tmp_path / "hostile", {"usr/mine": "mine", "home/mine": "mine", "data": ""})
    os.setxattr(tmp_path / "hostile/home", f"{prefix}.redirect", b"/root")
    os.setxattr(tmp_path / "hostile/usr", f"{prefix}.redirect", b"/root")
    os.setxattr(tmp_path / "hostile/data", f"{prefix}.metacopy", b"")
    os.setxattr(tmp_path / "hostile/data", f"{prefix}.redirect", b"/root/secret")
    os.setxattr(tmp_path / "hostile/home/mine", f"{prefix}.metacopy", b"")
    os.setxattr(tmp_path / "hostile/home/mine", f"{prefix}.redirect", b"/root/secret")

    mounted = Overlay([way]).mount(request(tmp_path / "box", secret, hostile, attach=False))

    looks = (
        lambda: names_in(mounted.fd, "home"),
        lambda: names_in(mounted.fd, "usr"),
        lambda: read(mounted.fd, "data"),
        lambda: read(mounted.fd, "home/mine"),
    )
    if prefix == "trusted.overlay":  # no archive brings any: what has one is refused by the kernel
        for look in looks:
            with pytest.raises(PermissionError):
                look()
    else:
        assert [look() for look in looks] == [["mine"], ["mine"], "", "mine"]
    os.close(mounted.fd)


def test_an_opaque_mark_counts_in_the_form_that_is_told(tmp_path, overlay):
    lower = layer(tmp_path / "lower", {"a/lower": "", "b/lower": ""})
    upper = layer(tmp_path / "upper", {"a/upper": "", "b/upper": ""})
    os.setxattr(tmp_path / "upper/a", "trusted.overlay.opaque", b"y")
    os.setxattr(tmp_path / "upper/b", "user.overlay.opaque", b"y")

    mounted = overlay.mount(request(tmp_path / "box", lower, upper, attach=False))

    assert overlay_reads() == "trusted" == overlay.reads
    assert names_in(mounted.fd, "a") == ["upper"]
    assert names_in(mounted.fd, "b") == ["lower", "upper"]
    os.close(mounted.fd)


# -- how many layers


def many(tmp_path, count):
    return [layer(tmp_path / "layers" / f"{number}", {f"{number}": ""}) for number in range(count)]


@pytest.mark.parametrize("way", [by_descriptors, by_paths])
@pytest.mark.parametrize("read_only", [False, True])
def test_500_layers_mount(tmp_path, way, read_only):
    wanted = request(tmp_path / "box", *many(tmp_path, 500), read_only=read_only, attach=False)

    mounted = Overlay([way]).mount(wanted)

    assert len(names_in(mounted.fd)) == 500
    os.close(mounted.fd)


def test_501_layers_are_refused_in_a_sentence(tmp_path, overlay):
    wanted = request(tmp_path / "box", *many(tmp_path, 501), attach=False)
    sentence = "the kernel merges 500 layers at most, and these are 501"

    with pytest.raises(RootfsError, match=sentence) as caught:
        overlay.mount(wanted)

    assert overlay.refusal(wanted) == sentence
    assert caught.value.reasons == (("overlay", sentence),)
    assert os.listdir(tmp_path / "box") == []


def test_a_page_of_options_takes_150_layers(tmp_path):
    mounted = Overlay([by_options]).mount(request(tmp_path / "box", *many(tmp_path, 150), attach=False))

    assert len(names_in(mounted.fd)) == 150
    os.close(mounted.fd)


def test_more_than_a_page_of_options_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(RootfsError, match=r"the options take .* bytes, and the kernel reads 4095"):
        Overlay([by_options]).mount(request(tmp_path / "box", *many(tmp_path, 500)))


# -- which way


def test_the_way_that_works_is_found_and_remembered(tmp_path, layers):
    tried = []

    def refuse(*_):
        tried.append("refused")
        raise OSError(errno.EINVAL, "not known here")

    overlay = Overlay([refuse, by_paths])

    for number in range(3):
        os.close(overlay.mount(request(tmp_path / f"{number}", *layers, attach=False)).fd)

    assert tried == ["refused"] * 3  # with all options, without one, without both; and never again


def test_an_option_that_is_not_known_is_left_out(tmp_path, layers):
    def refuse_uuid(stack, options):
        if "uuid=null" in options:
            raise OSError(errno.EINVAL, "not known here")
        return by_descriptors(stack, options)

    os.close(Overlay([refuse_uuid]).mount(request(tmp_path / "box", *layers)).fd)

    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{tmp_path}/box" in line)
    assert "uuid=null" not in line
    assert "volatile" in line
    Overlay().unmount(request(tmp_path / "box"))


def test_a_layer_that_is_not_there_is_named(tmp_path, layers, overlay):
    missing = StackLayer(str(tmp_path / "missing"), TRUSTED)
    elsewhere = StackLayer(str(tmp_path / "elsewhere"), TRUSTED)
    (tmp_path / "elsewhere").symlink_to(layers[0].path)

    for one in (missing, elsewhere):
        with pytest.raises(OSError, match=rf"(No such file or directory|Not a directory): '{one.path}'"):
            overlay.mount(request(tmp_path / "box", one, *layers))


def test_what_no_way_takes_is_told_once_in_the_words_of_each_call(tmp_path, layers):
    def refuse(*_):
        raise OSError(errno.EINVAL, "fsopen: Invalid argument")

    def refuse_too(*_):
        raise OSError(errno.ENOSYS, "mount: Function not implemented")

    with pytest.raises(RootfsError) as caught:
        Overlay([refuse, refuse_too]).mount(request(tmp_path / "box", *layers))

    sentence = "the kernel refused. fsopen: Invalid argument; mount: Function not implemented"
    assert caught.value.reasons == (("overlay", sentence),)


@EACH_WAY
def test_a_layer_that_comes_again_counts_where_it_is_topmost(tmp_path, way):
    again = layer(tmp_path / "again", {"a": "again", "b": "again", "c": GONE}, TRUSTED)
    between = layer(tmp_path / "between", {"a": GONE, "b": "between", "c": "between"}, TRUSTED)
    wanted = request(tmp_path / "box", *[again] * 300, between, *[again] * 300, attach=False)

    mounted = Overlay([way]).mount(wanted)

    assert names_in(mounted.fd) == ["a", "b"]
    assert (read(mounted.fd, "a"), read(mounted.fd, "b")) == ("again", "again")
    os.close(mounted.fd)


def test_what_is_not_permitted_is_told():
    place = tempfile.mkdtemp(dir=ordinary_users_place())
    os.chown(place, ORDINARY_USER, ORDINARY_USER)
    try:
        sentence = as_ordinary_user(refused_mount, Path(place))
    finally:
        shutil.rmtree(place)

    assert "the kernel refused. fsopen: Operation not permitted; mount: Operation not permitted" in sentence


def refused_mount(place):
    with pytest.raises(RootfsError) as caught:
        Overlay().mount(request(place / "box", layer(place / "a", {}), layer(place / "b", {})))
    return str(caught.value)


# -- where


def test_a_target_gets_the_mount(tmp_path, layers, overlay):
    target = tmp_path / "target"
    target.mkdir()
    wanted = request(tmp_path / "box", *layers, target=str(target))

    mounted = overlay.mount(wanted)

    assert (mounted.path, points_below(tmp_path)) == (str(target), [str(target)])
    assert overlay.is_attached(wanted)
    os.close(mounted.fd)
    overlay.unmount(wanted)
    assert os.listdir(target) == []
    assert not overlay.is_attached(wanted)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda _: None, "No such file or directory"),
        (lambda target: target.write_text(""), "Not a directory"),
        (lambda target: (target / "file").mkdir(parents=True), "is not empty"),
        (lambda target: (target.mkdir(), os.chown(target, ORDINARY_USER, 0)), f"belongs to user {ORDINARY_USER}"),
        (
            lambda target: (target.symlink_to("/root"), os.chown(target, ORDINARY_USER, 0, follow_symlinks=False)),
            f"is a symlink of user {ORDINARY_USER}",
        ),
    ],
)
def test_a_target_that_is_not_fit_is_refused(tmp_path, layers, overlay, make, sentence):
    make(tmp_path / "target")
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(InvalidInputError, match=sentence):
        overlay.mount(request(tmp_path / "box", *layers, target=str(tmp_path / "target")))

    assert points_below(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_target_that_is_a_symlink_of_this_users_leads_on(tmp_path, layers, overlay):
    (tmp_path / "real").mkdir()
    (tmp_path / "target").symlink_to("real")
    wanted = request(tmp_path / "box", *layers, target=str(tmp_path / "target"))

    os.close(overlay.mount(wanted).fd)

    assert points_below(tmp_path) == [f"{tmp_path}/real"]
    overlay.unmount(wanted)


# -- off again


def test_unmount_is_idempotent_and_fine_where_nothing_ever_was(tmp_path, layers, overlay):
    wanted = request(tmp_path / "box", *layers)
    overlay.unmount(wanted)
    os.close(overlay.mount(wanted).fd)
    assert overlay.is_attached(wanted)

    overlay.unmount(wanted)
    overlay.unmount(wanted)

    assert not overlay.is_attached(wanted)
    os.rmdir(tmp_path / "box/rootfs")
    overlay.unmount(wanted)


@pytest.mark.parametrize("has_target", [False, True])
def test_another_process_unmounts(tmp_path, layers, overlay, has_target):
    (tmp_path / "target").mkdir()
    wanted = request(tmp_path / "box", *layers, target=str(tmp_path / "target") if has_target else None)
    mounted = overlay.mount(wanted)

    unmount_elsewhere(replace(wanted, layers=()))

    assert points_below(tmp_path) == []
    assert read(mounted.fd, "new") == "upper"  # what is open stays usable
    os.close(mounted.fd)


def unmount_elsewhere(wanted):
    script = (
        "import pickle, sys\nsys.path[:] = pickle.load(sys.stdin.buffer)\n"
        "from pykka_imagestore.rootfs.overlay import Overlay\nOverlay().unmount(pickle.load(sys.stdin.buffer))"
    )
    data = pickle.dumps(sys.path) + pickle.dumps(wanted)
    subprocess.run([sys.executable, "-c", script], input=data, timeout=TIMEOUT, check=True)


def stack_on(place: Path, directory: Path) -> None:
    """Mount a directory over whatever is at a place."""
    source, target = (os.open(path, os.O_RDONLY) for path in (directory, place))
    mount = clone_tree(source)
    move_mount(mount, target)
    for descriptor in (mount, source, target):
        os.close(descriptor)


@pytest.mark.parametrize("has_target", [False, True])
def test_what_is_mounted_over_and_in_it_comes_off_with_it(tmp_path, layers, overlay, has_target):
    (tmp_path / "target").mkdir()
    wanted = request(tmp_path / "box", *layers, target=str(tmp_path / "target") if has_target else None)
    mounted = overlay.mount(wanted)
    os.close(mounted.fd)
    stack_on(Path(mounted.path) / "usr", tmp_path / "lower")
    stack_on(Path(mounted.path), tmp_path / "lower")
    stack_on(Path(mounted.path), tmp_path / "upper")
    assert overlay.is_attached(wanted)

    overlay.unmount(wanted)

    assert points_below(tmp_path) == []


def test_what_somebody_else_mounted_at_the_target_stays(tmp_path, layers, overlay):
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "empty").mkdir()
    stack_on(target, tmp_path / "empty")
    wanted = request(tmp_path / "box", *layers, target=str(target))
    other = request(tmp_path / "other", *layers, target=str(target))
    os.close(overlay.mount(wanted).fd)

    overlay.unmount(other)
    assert points_below(tmp_path) == [str(target)] * 2
    overlay.unmount(wanted)
    overlay.unmount(wanted)

    assert points_below(tmp_path) == [str(target)]
    assert [entry.kind for entry in mount_entries().values() if entry.point == str(target)] != ["overlay"]
    subprocess.run(["umount", target], check=True, timeout=TIMEOUT)


def test_a_name_that_the_list_of_mounts_escapes_is_found(tmp_path, layers, overlay):
    target = tmp_path / "a b\\c\nd#é\r-\x0b\x0c,:\"'"
    target.mkdir()
    wanted = request(tmp_path / "a\r b\\,:box", *layers, target=str(target))
    os.close(overlay.mount(wanted).fd)
    assert overlay.is_attached(wanted)

    overlay.unmount(wanted)

    assert points_below(tmp_path) == []


def test_a_mount_that_was_moved_is_not_looked_for_behind_a_symlink(tmp_path):
    places = [tmp_path / name / "b" for name in ("a", "elsewhere")]
    for place in places:
        place.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True, timeout=TIMEOUT)
    (entry,) = (entry for entry in mount_entries().values() if entry.point == str(places[0]))
    (tmp_path / "a").rename(tmp_path / "moved")
    (tmp_path / "a").symlink_to("elsewhere")

    with pytest.raises(OSError, match="a directory"):
        unmount_listed(entry)
    (tmp_path / "a").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        unmount_listed(entry)

    assert sorted(points_below(tmp_path)) == [f"{tmp_path}/a/b", f"{tmp_path}/moved/b"]
    for found in [each for each in mount_entries().values() if each.point.startswith(str(tmp_path))]:
        unmount_listed(found)
    assert points_below(tmp_path) == []


def test_a_long_path_is_no_hindrance(tmp_path, layers, overlay):
    place = tmp_path / Path(*["x" * 200] * 10)
    place.mkdir(parents=True)
    deep = layer(place / "deep", {"deep": ""})
    (place / "target").mkdir()
    for way in WAYS:
        wanted = request(place / way.__name__, *layers, deep, target=str(place / "target"))
        mounted = Overlay([way]).mount(wanted)
        assert "deep" in names_in(mounted.fd)
        os.close(mounted.fd)
        overlay.unmount(wanted)
        assert points_below(tmp_path) == []


# -- cut off, and again


def test_a_mount_may_be_made_again_after_it_was_cut_off_anywhere(tmp_path, layers, overlay):
    (tmp_path / "target").mkdir()
    wanted = request(tmp_path / "box", *layers, target=str(tmp_path / "target"))
    mounted = overlay.mount(wanted)
    write(mounted.fd, "etc/hosts", "of the first")
    os.close(mounted.fd)

    mounted = overlay.mount(wanted)

    assert read(mounted.fd, "etc/hosts") == "upper"
    assert points_below(tmp_path) == [str(tmp_path / "target")]
    os.close(mounted.fd)
    overlay.unmount(wanted)


def test_nothing_stays_open_or_mounted(tmp_path, layers):
    (tmp_path / "target").mkdir()
    ways = [[way] for way in WAYS]
    number = iter(range(10_000))

    def make_and_remove():
        for one in ways:
            for attach in (False, True):
                wanted = request(tmp_path / f"box-{next(number)}", *layers, attach=attach)
                mounted = Overlay(one).mount(wanted)
                os.close(mounted.fd)
                Overlay(one).unmount(wanted)
            with pytest.raises(InvalidInputError):
                Overlay(one).mount(request(tmp_path / f"box-{next(number)}", *layers, target="/etc/passwd"))
        with pytest.raises(FileNotFoundError):
            Overlay().mount(request(tmp_path / f"box-{next(number)}", *layers, missing, *layers))

    missing = StackLayer(str(tmp_path / "missing"), WhiteoutFormat.NONE)

    before, after = descriptors_after(30, make_and_remove)

    assert before == after


def test_threads_may_share_one(tmp_path, layers, overlay):
    def work(name):
        for number in range(20):
            wanted = request(tmp_path / f"{name}-{number}", *layers)
            mounted = overlay.mount(wanted)
            assert read(mounted.fd, "new") == "upper"
            os.close(mounted.fd)
            overlay.unmount(wanted)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, "abcd")) == [None] * 4
