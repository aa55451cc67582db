"""Layers that reach for what lies outside of their directory. The victim's fixture sees that nothing there changed."""

from __future__ import annotations

import os

import pytest
from support import tars

from pykka_imagestore.errors import EscapingEntryError

# -- names


@pytest.mark.parametrize("name", [b"..", b"../", b"../x", b"./..", b"/..", b"a/../..", b"a/../../x", b"a/b/../../../x"])
@pytest.mark.parametrize("make", [tars.file, tars.directory, lambda name: tars.symlink(name, b"target"), tars.whiteout])
def test_name_that_leads_out_by_dots(victim, name, make):
    entry = make(name)
    if b"/.wh..." in b"/" + entry[:100] or b"/.wh.\0" in b"/" + entry[:100]:
        victim.refuse(entry, match=r"is a whiteout of nothing|outside")
    else:
        victim.refuse(entry, match=r"points outside the root file system", error=EscapingEntryError)


def test_name_that_leads_to_the_layers_own_record(victim):
    victim.refuse(tars.file(b"../layer.pb", b"forged"), match=r"points outside", error=EscapingEntryError)


def test_name_that_leads_out_after_good_entries_takes_them_with_it(victim):
    good = [tars.directory(b"d"), tars.file(b"d/f", b"x" * 1000), tars.symlink(b"s", b"d")]

    victim.refuse(*good, tars.file(victim.outside + b"/secret", b"x"), match=r"entry 3 '../../outside/secret' points")


@pytest.mark.parametrize("slashes", [b"", b"/", b"//"])
def test_absolute_name_is_one_below_the_root(victim, slashes):
    name = slashes + victim.absolute + b"/secret"

    unpacked = victim.unpack(tars.pax({b"path": name}), tars.file(b"x", b"changed"))

    assert victim.absolute[1:] + b"/secret" in unpacked.nodes


@pytest.mark.parametrize("kind", [tars.FILE, tars.DIRECTORY, tars.SYMLINK, tars.FIFO])
def test_pax_path_that_leads_out_of_a_harmless_header(victim, kind):
    victim.refuse(
        tars.pax({b"path": victim.outside + b"/secret"}),
        tars.header(b"harmless", kind, link=b"x"),
        match=r"points outside",
        error=EscapingEntryError,
    )


def test_pax_path_that_leads_out_for_all_entries(victim):
    victim.refuse(
        tars.pax({b"path": victim.outside + b"/secret"}, tars.PAX_GLOBAL),
        tars.file(b"harmless"),
        match=r"points outside",
        error=EscapingEntryError,
    )


def test_gnu_long_name_that_leads_out_of_a_harmless_header(victim):
    victim.refuse(
        tars.long_name(victim.outside + b"/secret"),
        tars.file(b"harmless"),
        match=r"points outside",
        error=EscapingEntryError,
    )


def test_ustar_prefix_that_leads_out(victim):
    victim.refuse(
        tars.header(b"secret", prefix=b"a/../../../outside"), match=r"points outside", error=EscapingEntryError
    )


@pytest.mark.parametrize("key", [b"path", b"linkpath"])
def test_nul_byte_in_a_pax_name(victim, key):
    victim.refuse(
        tars.pax({key: b"a\0" + victim.outside}), tars.symlink(b"x", b"y"), match=rf"NUL byte in its pax {key.decode()}"
    )


def test_name_ends_at_its_nul_byte(victim):
    unpacked = victim.unpack(tars.file(b"good\0/../../../x"), tars.long_name(b"fine\0/../../../x"), tars.file(b"x"))

    assert set(unpacked.nodes) == {b"", b"good", b"fine"}


def test_nul_byte_in_an_attributes_name(victim):
    victim.refuse(tars.pax({b"SCHILY.xattr.user.a\0b": b"x"}), tars.file(b"f"), match=r"malformed pax record")


# -- symlinks


def ways_out(victim):
    """Return symlink targets that would lead outside."""
    return [victim.outside, victim.absolute, b"/proc/self/root" + victim.absolute, b"/proc/self/cwd/../../..", b"/"]


@pytest.mark.parametrize("way", range(5))
@pytest.mark.parametrize(
    "entry",
    [
        tars.file(b"s/secret", b"changed"),
        tars.directory(b"s/inner", mode=0o777),
        tars.directory(b"s/new"),
        tars.symlink(b"s/secret", b"x"),
        tars.header(b"s/secret", tars.FIFO),
        tars.whiteout(b"s/secret"),
        tars.whiteout(b"s/inner"),
        tars.opaque(b"s"),
        tars.opaque(b"s/inner"),
        tars.file(b"s/inner/deep/f"),
    ],
    ids=[
        "file",
        "directory",
        "new",
        "symlink",
        "fifo",
        "whiteout",
        "directory whiteout",
        "opaque",
        "inner opaque",
        "deep",
    ],
)
def test_entry_through_a_symlink_stays_inside(victim, way, entry):
    unpacked = victim.unpack(tars.symlink(b"s", ways_out(victim)[way]), entry)

    assert unpacked.nodes[b"s"].kind == "l"


def test_hard_link_through_a_symlink_finds_nothing_outside(victim):
    for way in ways_out(victim):
        unpacked = victim.unpack(tars.symlink(b"s", way), tars.hard_link(b"l", b"s/secret"))

        assert unpacked.kinds == {b"s": "l"}
        assert unpacked.lower_links == {b"l": os.path.normpath(b"/" + way + b"/secret").lstrip(b"/")}


def test_hard_link_into_a_symlinked_directory_stays_inside(victim):
    unpacked = victim.unpack(
        tars.file(b"f", b"x"), tars.symlink(b"s", victim.outside), tars.hard_link(b"s/secret", b"f")
    )

    assert unpacked.nodes[b"outside/secret"].same_as == b"f"


def test_symlinks_in_a_row_that_climb_together_stay_inside(victim):
    unpacked = victim.unpack(
        tars.directory(b"a/b"),
        tars.symlink(b"a/b/up", b".."),
        tars.symlink(b"a/up", b"b/up/.."),
        tars.symlink(b"top", b"a/up/../../../outside"),
        tars.file(b"top/secret", b"changed"),
    )

    assert unpacked.nodes[b"outside/secret"].kind == "f"


@pytest.mark.parametrize("way", range(5))
@pytest.mark.parametrize(
    "entry",
    [
        tars.file(b"s", b"changed", mode=0o777),
        tars.directory(b"s", mode=0o777, uid=5),
        tars.symlink(b"s", b"x"),
        tars.header(b"s", tars.FIFO, mode=0o777),
        tars.whiteout(b"s"),
    ],
    ids=["file", "directory", "symlink", "fifo", "whiteout"],
)
def test_entry_in_place_of_a_symlink_does_not_follow_it(victim, way, entry):
    for target in (ways_out(victim)[way], ways_out(victim)[way] + b"/secret", ways_out(victim)[way] + b"/inner"):
        victim.unpack(tars.symlink(b"s", target), entry)


@pytest.mark.root
def test_metadata_of_a_symlink_is_its_own(victim):
    unpacked = victim.unpack(
        tars.pax({b"mtime": b"5", b"SCHILY.xattr.trusted.a": b"x"}),
        tars.symlink(b"s", victim.absolute + b"/secret", uid=5, mode=0o777),
    )

    assert unpacked.nodes[b"s"].owner == (5, 0)


def test_directory_that_becomes_a_symlink_between_two_entries(victim):
    unpacked = victim.unpack(
        tars.directory(b"d"),
        *(tars.file(b"d/%d" % number) for number in range(5)),
        tars.symlink(b"d", victim.absolute),
        tars.file(b"d/secret", b"changed"),
        tars.directory(b"d/inner", mode=0o777),
    )

    assert unpacked.nodes[b"d"].kind == "l"


def test_directory_above_that_becomes_a_symlink_between_two_entries(victim):
    unpacked = victim.unpack(
        tars.file(b"a/b/c/inner/f"),
        tars.symlink(b"a/b", victim.absolute),
        tars.file(b"a/b/secret", b"changed"),
        tars.file(b"a/b/c/inner/f", b"changed"),
        tars.directory(b"a", mode=0o777),
    )

    assert unpacked.nodes[b"a/b"].kind == "l"


def test_directory_whose_time_is_still_to_be_set_becomes_a_symlink(victim):
    # Directories get mode and time at the end: by then, these are ways out.
    unpacked = victim.unpack(
        tars.directory(b"d", mode=0o777, mtime=7),
        tars.directory(b"d/inner", mode=0o777, mtime=7),
        tars.symlink(b"d", victim.absolute),
    )

    assert set(unpacked.nodes) == {b"", b"d"}


def test_symlink_beside_its_whiteout(victim):
    victim.unpack(tars.symlink(b"s", victim.absolute), tars.whiteout(b"s"), tars.file(b"s/secret", b"changed"))


def test_root_that_would_become_a_symlink(victim):
    for name in (b".", b"./", b"/", b"a/.."):
        victim.refuse(tars.symlink(name, victim.absolute), match=r"would replace the root directory")


def test_symlinks_that_grow_as_they_are_followed_end_soon(victim):
    links = [tars.pax({b"linkpath": b"s%d/" % n * 1300 + b"x"}) + tars.symlink(b"s%d" % n, b"") for n in range(3)]

    victim.refuse(*links, *[tars.file(b"s%d/f" % n) for n in range(3)], match=r"behind more than 40 symlinks")


# -- hard links


@pytest.mark.parametrize("depth", range(1, 6))
def test_hard_link_to_outside_by_dots(victim, depth):
    target = b"../" * depth + b"outside/secret"

    victim.refuse(tars.hard_link(b"l", target), match=r"points outside", error=EscapingEntryError)


def test_hard_link_to_an_absolute_path_finds_nothing_outside(victim):
    for target in (victim.absolute + b"/secret", b"/etc/passwd", b"/proc/self/exe"):
        unpacked = victim.unpack(tars.pax({b"linkpath": target}), tars.hard_link(b"l", b"x"))

        assert unpacked.kinds == {}
        assert unpacked.lower_links == {b"l": target.lstrip(b"/")}


def test_hard_link_to_a_symlink_is_replaced_and_not_written_through(victim):
    unpacked = victim.unpack(
        tars.symlink(b"a", victim.absolute + b"/secret"),
        tars.hard_link(b"b", b"a"),
        tars.file(b"b", b"changed"),
        tars.file(b"a", b"changed"),
    )

    assert unpacked.nodes[b"a"].kind == unpacked.nodes[b"b"].kind == "f"


def test_pax_link_that_leads_out_of_a_harmless_header(victim):
    victim.refuse(
        tars.pax({b"linkpath": victim.outside + b"/secret"}),
        tars.hard_link(b"l", b"harmless"),
        match=r"points outside",
        error=EscapingEntryError,
    )


def test_gnu_long_link_that_leads_out_of_a_harmless_header(victim):
    victim.refuse(
        tars.long_name(victim.outside + b"/secret", tars.GNU_LONG_LINK),
        tars.hard_link(b"l", b"harmless"),
        match=r"points outside",
        error=EscapingEntryError,
    )


def test_hard_link_to_the_root(victim):
    for target in (b"", b".", b"/", b"a/.."):
        victim.refuse(tars.hard_link(b"l", target), match=r"is a hard link to .*, no file of this layer")


# -- whiteouts


@pytest.mark.parametrize(
    "name", [b".wh.", b".wh..", b".wh...", b"d/.wh.", b"d/.wh..", b"d/.wh...", b"./.wh...", b".wh./"]
)
def test_whiteout_of_a_directory_itself_or_the_one_above(victim, name):
    victim.refuse(tars.directory(b"d"), tars.file(name), match=r"is a whiteout of nothing")


@pytest.mark.parametrize("name", [b".wh.x/f", b".wh.../f", b"d/.wh..wh..opq/f", b".wh./secret", b".wh.x/../.wh.y/f"])
def test_entry_below_a_whiteout(victim, name):
    victim.refuse(tars.directory(b"d"), tars.file(name), match=r"lies below a whiteout")


@pytest.mark.parametrize("target", [b".wh.x", b"d/.wh..wh..opq", b"/.wh.x/y", b".wh..wh.plnk"])
def test_symlink_that_leads_below_a_whiteout_makes_none(victim, target):
    victim.refuse(
        tars.directory(b"d"),
        tars.symlink(b"s", target),
        tars.file(b"s/f"),
        match=r"lies below a whiteout|is a whiteout",
    )


def test_whiteouts_of_what_lies_outside_are_names_inside(victim):
    unpacked = victim.unpack(tars.whiteout(victim.absolute + b"/secret"), tars.opaque(victim.absolute))

    assert victim.absolute[1:] in unpacked.nodes


def test_whiteout_of_many_dots_is_a_name(victim):
    unpacked = victim.unpack(tars.file(b".wh...."))

    assert {path.removeprefix(b".wh.") for path in unpacked.nodes} == {b"", b"..."}


# -- attributes


@pytest.mark.parametrize("name", [b"./", b"d", b"f"])
@pytest.mark.parametrize(
    "key",
    [
        b"trusted.overlay.opaque",
        b"trusted.overlay.redirect",
        b"trusted.overlay.metacopy",
        b"trusted.overlay.",
        b"user.overlay.opaque",
        b"user.overlay.whiteout",
    ],
)
def test_overlay_attribute_that_would_show_other_directories(victim, name, key):
    make = tars.file if name == b"f" else tars.directory

    unpacked = victim.unpack(tars.pax({b"SCHILY.xattr." + key: victim.absolute}), make(name))

    assert {node.xattrs for node in unpacked.nodes.values()} == {()}
    assert unpacked.unset


def test_overlay_attribute_for_all_entries(victim):
    unpacked = victim.unpack(
        tars.pax({b"SCHILY.xattr.trusted.overlay.opaque": b"y"}, tars.PAX_GLOBAL),
        tars.directory(b"d"),
        tars.file(b"d/f"),
    )

    assert {node.xattrs for node in unpacked.nodes.values()} == {()}


# -- what waits for ever


def test_fifos_and_devices_are_replaced_and_never_opened(victim):
    unpacked = victim.unpack(
        tars.header(b"p", tars.FIFO), tars.file(b"p", b"x"), tars.header(b"f", tars.FIFO), tars.directory(b"f")
    )

    assert (unpacked.nodes[b"p"].kind, unpacked.nodes[b"f"].kind) == ("f", "d")


def test_fifo_as_a_parent(victim):
    victim.refuse(tars.header(b"p", tars.FIFO), tars.file(b"p/f"), match=r"has a parent 'p' that is no directory")


def test_no_descriptor_stays_open_whatever_happens(victim):
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        deep = [tars.file(b"/".join([b"%d" % number] * 30)) for number in range(20)]
        victim.refuse(*deep, tars.file(b"../x"), match=r"points outside")

    assert len(os.listdir("/proc/self/fd")) == before
