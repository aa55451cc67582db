"""Hard links to files of the layers below: kept in the record, with nothing on disk but their parents."""

from __future__ import annotations

import pytest
from support import tars
from support.layers import blob_of, refusal, request_into, unpack_layer, unpack_with_peers
from support.privileges import as_ordinary_user

from pykka_imagestore.core.limits import Limits
from pykka_imagestore.errors import LayerError, LimitError
from pykka_imagestore.jobs.unpack.target import Target
from pykka_imagestore.jobs.unpack_into import unpack_into

LINK = tars.hard_link(b"d/l", b"./usr/bin/../bin/f")


def test_link_to_no_file_of_the_layer_is_kept(unpack):
    unpacked = unpack(LINK)

    assert unpacked.kinds == {b"d": "[d]"}
    assert unpacked.lower_links == {b"d/l": b"usr/bin/f"}
    assert unpacked.check() == unpack().check()


def test_link_to_such_a_link_leads_where_that_does(unpack):
    assert unpack(LINK, tars.hard_link(b"m", b"d/l")).lower_links == {b"d/l": b"usr/bin/f", b"m": b"usr/bin/f"}


def test_symlinks_of_the_layer_are_resolved_as_far_as_they_are_there(unpack):
    unpacked = unpack(
        tars.directory(b"usr/lib"),
        tars.symlink(b"bin", b"usr/bin"),
        tars.symlink(b"lib", b"/usr/lib"),
        tars.hard_link(b"a", b"bin/x/../f"),
        tars.hard_link(b"b", b"lib/f"),
        tars.hard_link(b"c", b"later/f"),
        tars.symlink(b"later", b"usr"),
    )

    assert unpacked.lower_links == {b"a": b"usr/bin/f", b"b": b"usr/lib/f", b"c": b"later/f"}
    assert unpacked.check().faults == ()


REPLACING = {
    "file": tars.file(b"l", b"x"),
    "directory": tars.directory(b"l"),
    "symlink": tars.symlink(b"l", b"x"),
    "fifo": tars.header(b"l", tars.FIFO),
    "hard link": tars.hard_link(b"l", b"g"),
}


@pytest.mark.parametrize("later", REPLACING)
def test_later_entry_replaces_such_a_link(unpack, later):
    unpacked = unpack(tars.file(b"g"), tars.hard_link(b"l", b"f"), REPLACING[later])

    assert unpacked.lower_links == {}
    assert set(unpacked.kinds) == {b"g", b"l"}
    assert unpacked.check().faults == ()


@pytest.mark.parametrize("earlier", REPLACING)
def test_such_a_link_replaces_what_earlier_entries_made(unpack, earlier):
    unpacked = unpack(tars.file(b"g", b"x"), REPLACING[earlier], tars.hard_link(b"l", b"f"))

    assert unpacked.lower_links == {b"l": b"f"}
    assert set(unpacked.kinds) == {b"g"}
    assert unpacked.check().faults == ()
    assert unpacked.check().unchecked == ()


def test_such_a_link_is_replaced_by_another(unpack):
    assert unpack(tars.hard_link(b"l", b"f"), tars.hard_link(b"l", b"g")).lower_links == {b"l": b"g"}


def test_links_below_a_directory_go_with_it(unpack):
    unpacked = unpack(tars.hard_link(b"d/e/l", b"f"), tars.hard_link(b"d/m", b"f"), tars.file(b"d"))

    assert unpacked.lower_links == {}


@pytest.mark.parametrize("hides", [tars.whiteout(b"l"), tars.header(b"l", tars.CHARACTER_DEVICE)])
def test_whiteout_of_such_a_link_speaks_of_lower_layers_only(unpack, hides):
    for parts in ([tars.hard_link(b"l", b"f"), hides], [hides, tars.hard_link(b"l", b"f")]):
        unpacked = unpack(*parts)

        assert unpacked.lower_links == {b"l": b"f"}
        assert unpacked.check() == unpack(hides).check()


def test_such_a_link_is_no_parent(unpack):
    for parts in ([], [tars.whiteout(b"l")]):
        with pytest.raises(LayerError, match=r"'l/x' has a parent 'l' that is no directory"):
            unpack(*parts, tars.hard_link(b"l", b"f"), tars.file(b"l/x"))


def test_links_that_many_peers_help_with_are_the_same(tmp_path):
    parts = [tars.file(b"g%d" % number, b"x" * 100) for number in range(20)]
    parts[10:10] = [tars.hard_link(b"g3", b"f"), tars.hard_link(b"l", b"f"), tars.hard_link(b"m", b"g4")]
    data = tars.tar(*parts, tars.file(b"l", b"y"))

    assert unpack_with_peers(data, tmp_path).record == unpack_layer(data, tmp_path).record


def test_links_take_a_bounded_memory(tmp_path):
    data = tars.tar(*(tars.hard_link(b"l%d" % number, b"f") for number in range(200)))

    with pytest.raises(LimitError, match=r"is one hard link to a lower layer too many") as refused:
        unpack_layer(data, tmp_path, limits=Limits(memory_bytes=50_000))
    assert refused.value.limit == "memory_bytes"
    assert len(unpack_layer(data, tmp_path).lower_links) == 200


def test_links_that_come_and_go_take_no_memory(tmp_path):
    data = tars.tar(*(tars.hard_link(b"d/l", b"f") + tars.file(b"d") + tars.directory(b"d") for _ in range(200)))

    assert unpack_layer(data, tmp_path, limits=Limits(memory_bytes=2000)).lower_links == {}


def test_layer_on_its_own_can_hold_no_such_link(tmp_path):
    with Target(str(tmp_path / "into")) as target:
        request = request_into(target, blob_of(tars.tar(LINK), tmp_path))

        with pytest.raises(LayerError, match=r"is a hard link to './usr/bin/../bin/f', no file of this layer"):
            unpack_into(request)


def test_root_that_an_entry_names_is_not_implied(unpack):
    assert unpack(tars.file(b"f")).record.implicit_root
    assert not unpack(tars.directory(b"./")).record.implicit_root


def test_link_to_a_device_that_could_not_be_made_leads_to_no_lower_layer(users_directory):
    device = tars.header(b"dev", tars.CHARACTER_DEVICE, major=1, minor=3)

    for parts in ([device], [device, tars.file(b"dev", b"x"), device]):
        data = tars.tar(*parts, tars.hard_link(b"l", b"dev"))
        assert "no file of this layer" in as_ordinary_user(refusal, data, str(users_directory), Limits())
    again = tars.tar(device, tars.file(b"dev", b"x"), tars.hard_link(b"l", b"dev"))
    assert as_ordinary_user(refusal, again, str(users_directory), Limits()) == ""
