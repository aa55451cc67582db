"""The backends ``copy`` and ``link``: shares of the work that may be cut off, and what of the layers is touched."""

from __future__ import annotations

import errno
import os
import pkgutil
import re
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from support import seams, tars
from support.layers import unpack_layer
from support.privileges import as_ordinary_user, in_own_namespaces, ordinary_users_place
from support.processes import TIMEOUT
from support.rootfs import layer, points_below, read, write
from support.stack_samples import DEFAULT_ACL, HOLES, SAMPLES
from support.stacked import made, made_tree, stacked
from support.trees import describe

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import FillPart, RootfsRequest, StackLayer
from pykka_imagestore.errors import RootfsError
from pykka_imagestore.jobs.fill_rootfs import fill_rootfs
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.link import Link

RICH = ["attributes", "hard links", "devices and fifos", "whiteouts"]


class CutError(Exception):
    """Stands for the kill of a worker."""


@pytest.fixture(params=[1000, 1], ids=["whole directories", "pieces"])
def _pieces(monkeypatch, request):
    monkeypatch.setattr(seams.ENTRIES_OF_A_PIECE, request.param)


def filled(request, backend=None, workers=2):
    """Fill a container's directory, and return what is in it."""
    Path(request.directory).mkdir(exist_ok=True)
    for part in (backend or Copy()).parts(request, workers):
        fill_rootfs(part)
    return describe(Path(request.directory) / "rootfs")


def cut_before(monkeypatch, calls):
    """Have what makes a file, directory, node or link raise before one of its calls."""
    numbers = count()

    def cutting(real):
        def call(*arguments, **named):
            if next(numbers) == calls:
                raise CutError
            return real(*arguments, **named)

        return call

    for step in seams.COPYING_STEPS:
        monkeypatch.setattr(step, cutting(pkgutil.resolve_name(step)))


@pytest.mark.root
@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("then", [(0, 1), (1, 0), (0,)], ids=["at once", "at the end", "alone"])
@pytest.mark.parametrize("name", RICH)
def test_a_share_that_was_cut_off_anywhere_is_done_again(tmp_path, name, then):
    layers = stacked(SAMPLES[name].tars, tmp_path)
    cuts = 0
    for calls in count():
        request = RootfsRequest(layers, str(tmp_path / f"box{calls}"))
        (tmp_path / f"box{calls}").mkdir()
        parts = Copy().parts(request, 2)
        with pytest.MonkeyPatch.context() as patch:
            cut_before(patch, calls)
            try:
                fill_rootfs(parts[0])
            except CutError:
                cuts += 1
            else:
                break
        for number in then:
            fill_rootfs(parts[number])
        assert describe(tmp_path / f"box{calls}/rootfs") == SAMPLES[name].tree

    assert cuts >= 4


@pytest.mark.root
@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("name", RICH)
def test_what_was_cut_off_is_begun_anew(tmp_path, name):
    request = RootfsRequest(stacked(SAMPLES[name].tars, tmp_path), str(tmp_path / "box"))
    (tmp_path / "box").mkdir()
    for calls in (1, 3):
        last = Copy().parts(request, 2)[1]
        with pytest.MonkeyPatch.context() as patch:
            cut_before(patch, calls)
            with pytest.raises(CutError):
                fill_rootfs(last)

    assert filled(request, workers=1) == SAMPLES[name].tree


@pytest.mark.root
@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("name", RICH)
def test_each_share_may_be_done_twice_in_any_order(tmp_path, name):
    request = RootfsRequest(stacked(SAMPLES[name].tars, tmp_path), str(tmp_path / "box"))
    (tmp_path / "box").mkdir()
    parts = Copy().parts(request, 3)

    for part in (*reversed(parts), *parts, parts[1]):
        fill_rootfs(part)

    assert describe(tmp_path / "box/rootfs") == SAMPLES[name].tree


@pytest.mark.root
@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("name", [*RICH, "many files", "deep and long names"])
def test_shares_are_done_side_by_side(tmp_path, name):
    request = RootfsRequest(stacked(SAMPLES[name].tars, tmp_path), str(tmp_path / "box"))
    (tmp_path / "box").mkdir()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fill_rootfs, Copy().parts(request, 4), timeout=TIMEOUT))

    assert describe(tmp_path / "box/rootfs") == SAMPLES[name].tree


@pytest.mark.root
@pytest.mark.usefixtures("_pieces")
def test_another_share_may_be_quicker_to_make_a_name_of_the_same_file(tmp_path, monkeypatch):
    request = RootfsRequest(stacked(SAMPLES["hard links"].tars, tmp_path), str(tmp_path / "box"))
    (tmp_path / "box").mkdir()
    real, others = pkgutil.resolve_name(seams.LINK_FILE), list(Copy().parts(request, 4))
    first = others.pop(2)

    def link(self, target, target_directory, name, directory):
        if re.fullmatch(rb"\d+-\d+", name):
            while others:
                fill_rootfs(others.pop())
        return real(self, target, target_directory, name, directory)

    monkeypatch.setattr(seams.LINK_FILE, link)
    fill_rootfs(first)

    assert others == []
    assert describe(tmp_path / "box/rootfs") == SAMPLES["hard links"].tree


@pytest.mark.root
@pytest.mark.usefixtures("_pieces")
def test_no_directory_is_made_by_two_shares(tmp_path, monkeypatch):
    files: dict[str, object] = {f"d{number}/{name}": "x" for number in range(30) for name in range(10)}
    request = RootfsRequest((layer(tmp_path / "layer", files),), str(tmp_path / "box"))
    (tmp_path / "box").mkdir()
    made = []
    real = os.open

    def opening(path, flags, *arguments, **named):
        if flags & os.O_EXCL:
            made.append((threading.get_ident(), path))
        return real(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", opening)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(fill_rootfs, Copy().parts(request, 3), timeout=TIMEOUT))

    assert len(made) == len(files)


@pytest.mark.root
def test_nothing_but_the_root_file_system_is_left_of_it(tmp_path):
    request = RootfsRequest(stacked(SAMPLES["hard links"].tars, tmp_path), str(tmp_path / "box"))

    with made(Copy(), request) as mounted:
        assert mounted.path == str(tmp_path / "box/rootfs")
        assert os.listdir(tmp_path / "box") == ["rootfs"]

    assert {node.same_as for node in describe(tmp_path / "box/rootfs").values()} == {
        node.same_as for node in SAMPLES["hard links"].tree.values()
    }


def test_holes_stay_holes(tmp_path):
    request = RootfsRequest(stacked(SAMPLES["holes"].tars, tmp_path), str(tmp_path / "box"))

    filled(request)

    copied = tmp_path / "box/rootfs/holes"
    assert copied.read_bytes() == HOLES
    assert copied.stat().st_blocks * 512 == 8192


def test_the_layers_are_left_as_they_are(tmp_path):
    lower = layer(tmp_path / "layer", {"a/b": "b", "c": "c"})
    os.utime(tmp_path / "layer/c", ns=(5, 5))
    before = [path.stat() for path in (tmp_path / "layer", tmp_path / "layer/a/b", tmp_path / "layer/c")]

    filled(RootfsRequest((lower,), str(tmp_path / "box")))

    assert [path.stat() for path in (tmp_path / "layer", tmp_path / "layer/a/b", tmp_path / "layer/c")] == before


@pytest.mark.root
def test_what_the_containers_directory_hands_on_reaches_no_file(tmp_path):
    (tmp_path / "box").mkdir()
    os.chown(tmp_path / "box", -1, 7)
    (tmp_path / "box").chmod(0o2755)
    os.setxattr(tmp_path / "box", "system.posix_acl_default", DEFAULT_ACL)
    request = RootfsRequest((layer(tmp_path / "layer", {"a/b": "b"}),), str(tmp_path / "box"))

    tree = filled(request)

    assert tree == describe(tmp_path / "layer")


def test_a_copy_that_cannot_be_made_names_the_place():
    place = Path(tempfile.mkdtemp(dir=ordinary_users_place()))
    try:
        place.chmod(0o777)
        with pytest.raises(PermissionError, match=re.escape(str(place / "layer/closed"))):
            as_ordinary_user(fill_closed, place)
    finally:
        shutil.rmtree(place)


def test_a_full_disk_is_told_with_the_place_that_was_to_be_filled(tmp_path, monkeypatch):
    request = RootfsRequest((layer(tmp_path / "layer", {"a/b": "b"}),), str(tmp_path / "box"))

    def copy(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", copy)
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path}/box/rootfs/a'")):
        filled(request)


def fill_closed(place):
    lower = layer(place / "layer", {"closed/f": "f"})
    (place / "layer/closed").chmod(0)
    filled(RootfsRequest((lower,), str(place / "box")))


@pytest.mark.root
@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize("backend", [Copy(), Link()], ids=["copy", "link"])
@pytest.mark.parametrize("place", ["", "rootfs", "target"])
def test_a_read_only_one_is_a_mount(tmp_path, backend, place):
    (tmp_path / "target").mkdir()
    target = str(tmp_path / "target") if place == "target" else None
    layers = (layer(tmp_path / "layer", {"etc/hosts": "x"}),)
    request = RootfsRequest(layers, str(tmp_path / "box"), read_only=True, attach=bool(place), target=target)

    with made(backend, request) as mounted:
        assert mounted.path == {"": None, "rootfs": f"{tmp_path}/box/rootfs", "target": target}[place]
        assert read(mounted.fd, "etc/hosts") == "x"
        assert backend.is_attached(request) == bool(place)
        assert points_below(tmp_path) == ([mounted.path] if place else [])
        with pytest.raises(OSError, match="Read-only"):
            os.open("etc/hosts", os.O_WRONLY, dir_fd=mounted.fd)

    assert not backend.is_attached(request)


@pytest.mark.root
@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize("attach", [False, True])
def test_a_copy_is_guarded_by_a_mount_of_itself_and_is_written_to(tmp_path, attach):
    layers = (layer(tmp_path / "layer", {"etc/hosts": "x"}),)
    request = RootfsRequest(layers, str(tmp_path / "box"), attach=attach)

    with made(Copy(), request) as mounted:
        guards = os.ST_NOSUID | os.ST_NODEV
        assert os.fstatvfs(mounted.fd).f_flag & guards == guards
        assert mounted.path == (f"{tmp_path}/box/rootfs" if attach else None)
        assert Copy().is_attached(request) == attach
        assert points_below(tmp_path) == ([mounted.path] if attach else [])
        write(mounted.fd, "etc/hosts", "y")

    assert points_below(tmp_path) == []
    assert (tmp_path / "box/rootfs/etc/hosts").read_text() == "y"


def test_where_other_mounts_cannot_be_shown_again_copies_can(tmp_path):
    assert in_own_namespaces(look_at_copies, tmp_path) == [os.ST_NOSUID | os.ST_NODEV] * 3


def look_at_copies(place):
    """Return the guards of copies of one who is root in a user namespace, where it may not show / without all below."""
    lower, guards = layer(place / "layer", {"a": "a"}), os.ST_NOSUID | os.ST_NODEV
    found = []
    for number, (backend, read_only) in enumerate([(Copy(), False), (Copy(), True), (Link(), True)]):
        request = RootfsRequest((lower,), str(place / f"box{number}"), read_only=read_only)
        with made(backend, request) as mounted:
            found.append(os.fstatvfs(mounted.fd).f_flag & guards)
    return found


@pytest.mark.root
@pytest.mark.usefixtures("mounts")
def test_a_copy_that_a_runtime_guards_is_no_mount(tmp_path):
    request = RootfsRequest((layer(tmp_path / "layer", {"a": "a"}),), str(tmp_path / "box"), for_runtime=True)

    with made(Copy(), request) as mounted:
        assert mounted.path == f"{tmp_path}/box/rootfs"
        assert points_below(tmp_path) == []
        assert os.fstatvfs(mounted.fd).f_flag == os.statvfs(tmp_path).f_flag


@pytest.mark.root
@pytest.mark.usefixtures("mounts")
def test_a_copy_is_written_to_where_it_is_attached(tmp_path):
    (tmp_path / "target").mkdir()
    layers = (layer(tmp_path / "layer", {"etc/hosts": "x"}),)
    request = RootfsRequest(layers, str(tmp_path / "box"), target=str(tmp_path / "target"))

    with made(Copy(), request):
        (tmp_path / "target/etc/hosts").write_text("y")
        (tmp_path / "target/new").touch()

    assert (tmp_path / "layer/etc/hosts").read_text() == "x"
    assert (tmp_path / "box/rootfs/etc/hosts").read_text() == "y"


@pytest.mark.root
@pytest.mark.usefixtures("mounts")
def test_what_is_mounted_at_the_target_before_anything_is_made_stays(tmp_path):
    (tmp_path / "target").mkdir()
    lower = layer(tmp_path / "layer", {"etc/hosts": "x"})
    other, wanted = (
        RootfsRequest((lower,), str(tmp_path / name), target=str(tmp_path / "target")) for name in ("other", "box")
    )
    (tmp_path / "box").mkdir()

    with made(Copy(), other):
        Copy().unmount(wanted)

        assert not Copy().is_attached(wanted)
        assert points_below(tmp_path) == [str(tmp_path / "target")]


@pytest.mark.root
@pytest.mark.usefixtures("mounts")
def test_linked_files_are_the_layers(tmp_path):
    layers = (layer(tmp_path / "layer", {"a/b": "b"}),)
    os.symlink("a", tmp_path / "layer/s")
    request = RootfsRequest(layers, str(tmp_path / "box"), read_only=True)
    before = describe(tmp_path / "layer")

    with made(Link(), request) as mounted:
        for name in ("a/b", "s"):
            found = os.stat(name, dir_fd=mounted.fd, follow_symlinks=False)
            assert os.path.samestat(found, (tmp_path / "layer" / name).lstat())
    shutil.rmtree(tmp_path / "box")

    assert describe(tmp_path / "layer") == before
    assert (tmp_path / "layer/a/b").stat().st_nlink == 1


@pytest.mark.root
def test_a_layer_that_is_linked_is_still_whole_to_a_check_and_copied_as_it_is(tmp_path):
    unpacked = unpack_layer(SAMPLES["hard links"].tars[0], tmp_path)
    stack = (StackLayer(str(unpacked.rootfs), WhiteoutFormat.NONE),)
    filled(RootfsRequest(stack, str(tmp_path / "linked"), read_only=True), Link())

    assert unpacked.check().faults == ()
    assert filled(RootfsRequest(stack, str(tmp_path / "copied"))) == unpacked.nodes


@pytest.mark.root
@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize("number", [errno.EMLINK, errno.EXDEV])
def test_what_cannot_be_linked_is_copied(tmp_path, monkeypatch, number):
    layers = stacked(SAMPLES["hard links"].tars, tmp_path)
    real = os.link

    def link(*arguments, **named):
        if "src_dir_fd" in named and arguments[0] == arguments[1]:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    monkeypatch.setattr(os, "link", link)
    tree = made_tree(Link(), RootfsRequest(layers, str(tmp_path / "box"), read_only=True))

    assert tree == SAMPLES["hard links"].tree


def test_a_file_with_too_many_links_is_copied_anew(tmp_path, monkeypatch):
    lower = layer(tmp_path / "layer", {"a": "a"})
    for name in "bcde":
        os.link(tmp_path / "layer/a", tmp_path / "layer" / name)
    real = os.link

    def link(target, *arguments, **named):
        if os.stat(target, dir_fd=named["src_dir_fd"]).st_nlink == 3:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        return real(target, *arguments, **named)

    monkeypatch.setattr(os, "link", link)
    tree = filled(RootfsRequest((lower,), str(tmp_path / "box")))

    assert [node.content for node in tree.values() if node.kind == "f"] == [tree[b"a"].content] * 5


@pytest.mark.parametrize(
    ("backend", "fields", "sentence"),
    [
        (Link(), {}, "its files are the layers', which a write would change"),
        (Copy(), {"read_only": True}, "it would have to be mounted to be read only, and the kernel refused. open_tree"),
        (Copy(), {"target": "/nowhere"}, "it would have to be mounted to be attached elsewhere, and the kernel"),
        (Link(), {"read_only": True}, "it would have to be mounted to be read only, and the kernel refused."),
    ],
)
def test_refusals_are_sentences(backend, fields, sentence):
    place = Path(tempfile.mkdtemp(dir=ordinary_users_place()))
    try:
        place.chmod(0o755)
        request = RootfsRequest((layer(place / "layer", {}),), str(place / "box"), **fields)

        assert as_ordinary_user(refusal, backend, request).startswith(sentence)
        with pytest.raises(RootfsError, match=re.escape(sentence)):
            as_ordinary_user(backend.mount, request)
    finally:
        shutil.rmtree(place)


def refusal(backend, request):
    return backend.refusal(request)


@pytest.mark.root
def test_layers_whose_deletions_are_not_shown_are_refused(tmp_path):
    hidden = layer(tmp_path / "layer", {}, WhiteoutFormat.OVERLAY_TRUSTED)
    request = RootfsRequest((hidden,), str(tmp_path / "box"))

    sentence = "it keeps deletions in trusted.overlay.opaque, which is shown with CAP_SYS_ADMIN only"
    assert as_ordinary_user(refusal, Copy(), request) == f"{tmp_path}/layer cannot be read by this user: {sentence}"


def test_what_an_ordinary_user_has_to_hide_is_read_by_his_copies():
    place = Path(tempfile.mkdtemp(dir=ordinary_users_place()))
    try:
        place.chmod(0o777)
        assert as_ordinary_user(copy_with_whiteouts, place) == {b"", b"file", b"replaced", b"replaced/upper"}
    finally:
        shutil.rmtree(place)


def copy_with_whiteouts(place):
    """Copy a stack whose fix-ups have a whiteout: a link is what hides the lowest directory, and it is gone itself."""
    lowest = tars.tar(tars.file(b"file"), tars.file(b"replaced/lower"))
    layers = stacked(
        [lowest, tars.tar(tars.hard_link(b"replaced", b"file")), tars.tar(tars.file(b"replaced/upper"))], place
    )
    request = RootfsRequest(layers, str(place / "box"))
    assert Copy().refusal(request) is None
    return set(filled(request))


def test_what_takes_the_place_of_a_directory_in_between_is_not_followed(tmp_path):
    lower = layer(tmp_path / "layer", {"a/b/c": "c"})
    (tmp_path / "elsewhere").mkdir()
    for name in ("rootfs", "fill"):
        (tmp_path / "box" / name).mkdir(parents=True)
    (tmp_path / "box/rootfs/a").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="Not a directory"):
        fill_rootfs(FillPart((lower,), str(tmp_path / "box/rootfs"), str(tmp_path / "box/fill")))

    assert os.listdir(tmp_path / "elsewhere") == []
