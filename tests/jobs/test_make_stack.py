from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import replace

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from support import tars
from support.attributes import MAY_BIND_LOW_PORTS, NOBODYS, acl
from support.layers import Unpacked
from support.merged import (
    layers_of,
    layers_of_tars,
    merged,
    overlay_of_ordinary_user,
    put_layer,
    put_stack,
    through_overlay,
)
from support.privileges import ORDINARY_USER, ordinary_users_place, with_capabilities, with_own_mounts
from support.processes import TIMEOUT
from support.tar_model import Item, Layer, RefusedError, Step, apply_all, forms, seen, stacks
from support.trees import describe

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import Reads
from pykka_imagestore.durable.stacks import stack_layers
from pykka_imagestore.errors import StackError, StateError
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts

root = pytest.mark.root
SET_ID = 0o6000
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # a process for each example would take minutes


ACL = acl((1, 7, NOBODYS), (4, 5, NOBODYS), (32, 5, NOBODYS))


def meaning(layers):
    try:
        return apply_all(layers)
    except RefusedError:
        return None


def tars_and_forms(layers, forms):
    return [(layer.tar(), form) for layer, form in zip(layers, forms, strict=False)]


REPLACES_ITS_OWN_WAY = Layer.of(
    [Step("symlink", b"s", b"/t"), Step("symlink", b"t", b".."), Step("hard_link", b"t", b"s/s")]
)


@root
@settings(max_examples=100)
@example([REPLACES_ITS_OWN_WAY], [WhiteoutFormat.OVERLAY_TRUSTED] * 4, Reads.TRUSTED)
@given(stacks, st.lists(forms, min_size=4, max_size=4), st.sampled_from(Reads))
def test_directories_merged_with_the_fix_ups_are_the_tars_one_after_the_other(layers, forms, reads):
    meant = meaning(layers)
    with tempfile.TemporaryDirectory() as directory:
        if meant is None:
            with pytest.raises(StackError):
                layers_of(directory, tars_and_forms(layers, forms), reads)
            return
        found = layers_of(directory, tars_and_forms(layers, forms), reads)

        assert seen(merged(found, reads)) == seen(meant)


@root
@settings(max_examples=25)
@given(
    stacks.filter(meaning),
    st.lists(forms, min_size=4, max_size=4),
    st.sampled_from([Reads.TRUSTED, Reads.USER]),
)
def test_overlay_with_the_fix_ups_shows_the_tars_one_after_the_other(layers, forms, reads):
    with tempfile.TemporaryDirectory() as directory:
        found = layers_of(directory, tars_and_forms(layers, forms), reads)

        assert seen(through_overlay(found, reads)) == seen(meaning(layers))


@root
@settings(max_examples=10, phases=NO_SHRINKING)
@given(stacks.filter(meaning))
def test_overlay_of_an_ordinary_user_shows_the_tars_one_after_the_other(layers):
    with tempfile.TemporaryDirectory(dir=ordinary_users_place()) as directory:
        os.chown(directory, ORDINARY_USER, ORDINARY_USER)
        shown = overlay_of_ordinary_user(directory, [layer.tar() for layer in layers])

    assert seen(shown) == seen({path: owned_by_user(item) for path, item in meaning(layers).items()})


def owned_by_user(item):
    """Return what becomes of a file whose owner an ordinary user cannot set, who is root in his namespace."""
    return replace(item, owner=(0, 0), mode=item.mode & ~SET_ID)


# -- what the plan is for, through the real extractor and a real overlay


def put_and_look(directory, *layers, reads=Reads.TRUSTED, forms=()):
    """Return what an overlay of layers shows, each given by its entries."""
    chosen = [*forms, *[WhiteoutFormat.OVERLAY_TRUSTED] * len(layers)]
    data = [(tars.tar(*parts), form) for parts, form in zip(layers, chosen, strict=False)]
    found = layers_of(directory, data, reads)
    return through_overlay(found, reads)


@root
def test_tmp_stays_open_to_all_under_a_layer_that_only_has_a_file_in_it(tmp_path):
    shown = put_and_look(
        tmp_path, [tars.directory(b"tmp", mode=0o1777, uid=7, gid=8, mtime=9)], [tars.file(b"tmp/x", b"x")]
    )

    assert shown[b"tmp"] == Item("d", 0o1777, (7, 8), 9)
    assert shown[b"tmp/x"].content == b"x"


@root
def test_what_an_ordinary_user_put_deletes_what_root_put_and_the_other_way_round(tmp_path):
    layers = [
        [tars.file(b"d/old"), tars.file(b"gone"), tars.file(b"e/old")],
        [tars.opaque(b"d"), tars.file(b"d/new"), tars.whiteout(b"gone")],
        [tars.opaque(b"e"), tars.file(b"e/new")],
    ]
    by_root_and_user = (WhiteoutFormat.NONE, WhiteoutFormat.OVERLAY_USER, WhiteoutFormat.OVERLAY_TRUSTED)
    by_files = (WhiteoutFormat.NONE, WhiteoutFormat.FILES, WhiteoutFormat.OVERLAY_USER)

    for number, chosen in enumerate((by_root_and_user, by_files)):
        for reads in (Reads.TRUSTED, Reads.USER):
            place = tmp_path / f"{number}-{reads}"
            place.mkdir()
            assert set(put_and_look(place, *layers, reads=reads, forms=chosen)) == {b"", b"d", b"d/new", b"e", b"e/new"}


@root
def test_hard_link_to_a_lower_file_is_that_file(tmp_path):
    xattrs = {b"SCHILY.xattr.user.k": b"v", b"SCHILY.xattr.security.capability": MAY_BIND_LOW_PORTS}
    lower = [
        tars.pax(xattrs),
        tars.file(b"bin/f", b"body", mode=0o4755, uid=3, gid=4, mtime=5),
        tars.symlink(b"s", b"x"),
    ]

    upper = [tars.hard_link(b"l", b"bin/f"), tars.hard_link(b"t", b"s")]
    layers = layers_of(tmp_path, [(tars.tar(*parts), None) for parts in (lower, upper)], Reads.TRUSTED)
    shown = through_overlay(layers, Reads.TRUSTED)

    assert seen(shown)[b"l"] == seen(shown)[b"bin/f"] == ("f", 0o4755, (3, 4), 5, b"body", b"bin/f")
    assert seen(shown)[b"s"][-1] == seen(shown)[b"t"][-1] == b"s"
    copied = os.path.join(layers[-1].path, "l")
    assert os.getxattr(copied, "user.k") == b"v"
    assert os.getxattr(copied, "security.capability") == MAY_BIND_LOW_PORTS
    assert os.lstat(copied).st_nlink == 2


@root
def test_linked_fifos_and_devices_are_what_they_were(tmp_path):
    lower = [
        tars.header(b"fifo", tars.FIFO, mode=0o640, mtime=3),
        tars.header(b"null", tars.CHARACTER_DEVICE, mode=0o666, major=1, minor=3),
    ]
    upper = [tars.hard_link(b"fifo2", b"fifo"), tars.hard_link(b"null2", b"null")]

    top = layers_of(tmp_path, [(tars.tar(*parts), None) for parts in (lower, upper)], Reads.TRUSTED)[-1]

    nodes = describe(top.path)
    assert (nodes[b"fifo2"].kind, nodes[b"fifo2"].mode, nodes[b"fifo2"].mtime_ns) == ("p", 0o640, 3 * 10**9)
    assert (nodes[b"null2"].kind, nodes[b"null2"].content, nodes[b"null2"].same_as) == ("c", b"1:3", b"null")


def test_holes_of_a_linked_file_stay_holes(tmp_path):
    lower = tars.tar(tars.gnu_sparse(b"f", 1 << 30, [(0, 4096), ((1 << 30) - 4096, 4096)], b"x" * 8192))

    top = layers_of(tmp_path, [(lower, None), (tars.tar(tars.hard_link(b"l", b"f")), None)], Reads.ANY)[-1]

    status = os.stat(os.path.join(top.path, "l"))
    assert (status.st_size, status.st_blocks * 512 < 1 << 20) == (1 << 30, True)


@root
def test_directories_keep_lists_of_access_and_attributes(tmp_path):
    lower = tars.tar(
        tars.pax({b"SCHILY.xattr.user.k": b"v", b"SCHILY.xattr.system.posix_acl_default": ACL}),
        tars.directory(b"d", mode=0o2770, uid=3, gid=4, mtime=5),
    )

    top = layers_of(tmp_path, [(lower, None), (tars.tar(tars.file(b"d/f")), None)], Reads.TRUSTED)[-1]

    node = describe(top.path)[b"d"]
    assert (node.mode, node.owner, node.mtime_ns) == (0o2770, (3, 4), 5 * 10**9)
    assert dict(node.xattrs) == {"user.k": b"v", "system.posix_acl_default": ACL}


@root
def test_whiteouts_are_files_where_devices_are_not_permitted(tmp_path):
    data = [tars.tar(tars.file(b"d/f")), tars.tar(tars.opaque(b"d"), tars.file(b"d/g"))]

    forms, shown = with_own_mounts(put_on_an_overlay, str(tmp_path), data)

    assert forms == [WhiteoutFormat.NONE, WhiteoutFormat.FILES, WhiteoutFormat.FILES]
    assert set(shown) == {b"", b"d", b"d/g"}


def put_on_an_overlay(directory, data):
    """Put layers where the store itself lies on an overlay, which takes no whiteouts as files of its own."""
    place = {name: os.path.join(directory, name) for name in ("lower", "upper", "work", "store")}
    for each in place.values():
        os.mkdir(each)
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**place)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place["store"]], check=True, timeout=TIMEOUT)
    layers = layers_of_tars(place["store"], data, Reads.TRUSTED)
    return [layer.whiteouts for layer in layers], merged(layers, Reads.ANY)


# -- layers that older versions put


@root
@pytest.mark.parametrize("reads", [Reads.TRUSTED, Reads.USER])
def test_layers_of_older_versions_are_looked_at(tmp_path, reads):
    paths = StorePaths(tmp_path)
    parts = [tars.directory(b"./", mode=0o711), tars.file(b"d/f")], [tars.opaque(b"d"), tars.file(b"d/g")]
    layer_ids = [put_layer(paths, tars.tar(*each), WhiteoutFormat.OVERLAY_TRUSTED) for each in parts]
    for layer in layer_ids:
        Unpacked(paths.layer(layer), LayerCounts(0, 0, 0, layer)).forget_what_is_new()

    layers = stack_layers(paths, put_stack(paths, layer_ids, reads))

    shown = through_overlay(layers, reads)
    assert set(shown) == {b"", b"d", b"d/g"}
    assert shown[b""].mode == 0o711


@root
@pytest.mark.parametrize("reads", [Reads.TRUSTED, Reads.USER])
def test_layers_of_older_versions_are_looked_at_for_what_hides_something_where_nothing_is_merged(tmp_path, reads):
    paths = StorePaths(tmp_path)
    data = tars.tar(tars.header(b"d/null", tars.FIFO), tars.symlink(b"d/s", b"/"), tars.whiteout(b"d/e/f"))
    layer = put_layer(paths, data, WhiteoutFormat.OVERLAY_TRUSTED)
    Unpacked(paths.layer(layer), LayerCounts(0, 0, 0, layer)).forget_what_is_new()

    put_stack(paths, [layer], reads)

    assert set(describe(paths.stacks / os.listdir(paths.stacks)[0] / "rootfs")) == {b"", b"d", b"d/e"}


@root
def test_layers_of_older_versions_whose_marks_are_not_shown_are_refused(tmp_path):
    data = [tars.tar(tars.file(b"d/f")), tars.tar(tars.opaque(b"d"), tars.file(b"d/g"))]
    paths = StorePaths(tmp_path)
    layer_ids = [put_layer(paths, each, WhiteoutFormat.OVERLAY_TRUSTED) for each in data]
    with_capabilities("-sys_admin", put_stack, paths, layer_ids, Reads.USER)  # newer records tell which are opaque
    for layer in layer_ids:
        Unpacked(paths.layer(layer), LayerCounts(0, 0, 0, layer)).forget_what_is_new()

    with pytest.raises(StateError, match="is shown to processes with CAP_SYS_ADMIN only"):
        with_capabilities("-sys_admin", put_stack, paths, layer_ids, Reads.ANY)
