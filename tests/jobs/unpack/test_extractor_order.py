from __future__ import annotations

import itertools

import pytest
from support import tars
from support.trees import Node

from pykka_imagestore.errors import LayerError

root = pytest.mark.root
TRUSTED_OPAQUE = ("trusted.overlay.opaque", b"y")


# -- the last one wins


PAIRED = {
    "file": tars.file(b"x", b"body", mode=0o604, mtime=1),
    "directory": tars.directory(b"x", mode=0o705, mtime=2) + tars.file(b"x/below", b"y"),
    "implicit directory": tars.file(b"x/beneath", b"z"),
    "symlink": tars.symlink(b"x", b"target", mtime=3),
    "symlink to a directory": tars.symlink(b"x", b"other", mtime=3),
    "symlink to itself": tars.symlink(b"x", b"x", mtime=3),
    "hard link": tars.hard_link(b"x", b"target"),
    "fifo": tars.header(b"x", tars.FIFO, mode=0o640, mtime=4),
    "device": tars.header(b"x", tars.CHARACTER_DEVICE, mode=0o640, mtime=5, major=1, minor=3),
    "whiteout": tars.whiteout(b"x"),
}
DIRECTORIES = ("directory", "implicit directory")
AROUND = tars.file(b"target", b"t", mtime=6) + tars.directory(b"other", mtime=7)


def at_x(unpacked):
    """Return what is at ``x``, and below; not the time of what has none of its own."""
    implicit = set(unpacked.record.implicit_directories)
    return {
        path: Node(
            node.kind,
            node.mode,
            node.owner,
            0 if path in implicit or (node.kind, node.content) == ("c", b"0:0") else node.mtime_ns,
            node.content,
            node.xattrs,
            node.same_as,
        )
        for path, node in unpacked.nodes.items()
        if path == b"x" or path.startswith(b"x/")
    }


@root
@pytest.mark.parametrize(("first", "second"), [*itertools.product(PAIRED, PAIRED)])
def test_last_of_two_entries_of_one_name_wins(unpack, first, second):
    if second == "implicit directory" and first not in (*DIRECTORIES, "whiteout", "symlink to a directory"):
        with pytest.raises(LayerError, match=r"entry 3 'x/beneath' has a parent"):
            unpack(AROUND, PAIRED[first], PAIRED[second])
        return
    # A whiteout speaks of lower layers only, wherever it stands: it hides what is there, unless this layer has it too.
    winner = first if second == "whiteout" else second
    alone = at_x(unpack(AROUND, PAIRED[winner]))

    found = at_x(unpack(AROUND, PAIRED[first], PAIRED[second]))

    if first in DIRECTORIES and second in DIRECTORIES:
        assert found == at_x(unpack(AROUND, PAIRED[first])) | (alone if second == "directory" else {}) | {
            path: node for path, node in alone.items() if path != b"x"
        }
    elif (first, second) == ("symlink to a directory", "implicit directory"):
        assert found == at_x(unpack(AROUND, PAIRED[first]))
    elif "whiteout" in (first, second) and winner in DIRECTORIES:
        assert found[b"x"].xattrs == (TRUSTED_OPAQUE,)
        assert {**found, b"x": alone[b"x"]} == alone
    else:
        assert found == alone


def test_directory_named_again_keeps_what_is_in_it_and_takes_the_new_metadata(unpack):
    unpacked = unpack(
        tars.directory(b"d", mode=0o700, mtime=1), tars.file(b"d/f"), tars.directory(b"d/", mode=0o755, mtime=2)
    )

    assert (unpacked.nodes[b"d"].mode, unpacked.nodes[b"d"].mtime_ns) == (0o755, 2 * 10**9)
    assert unpacked.kinds == {b"d": "d", b"d/f": "f"}


def test_file_that_replaces_one_with_hard_links_leaves_them_alone(unpack):
    unpacked = unpack(tars.file(b"a", b"old"), tars.hard_link(b"b", b"a"), tars.file(b"a", b"new"))

    assert (unpacked.rootfs / "a").read_bytes() == b"new"
    assert (unpacked.rootfs / "b").read_bytes() == b"old"


def test_file_that_replaces_a_read_only_file_or_a_fifo_is_a_new_file(unpack):
    unpacked = unpack(
        tars.file(b"a", b"old", mode=0),
        tars.file(b"a", b"new"),
        tars.header(b"p", tars.FIFO),
        tars.file(b"p", b"new"),
    )

    assert (unpacked.rootfs / "a").read_bytes() == (unpacked.rootfs / "p").read_bytes() == b"new"


def test_entries_below_a_directory_that_was_replaced_go_into_the_new_one(unpack):
    unpacked = unpack(
        tars.directory(b"a/b/c"),
        tars.file(b"a/b/c/old"),
        tars.file(b"a/b", b"file"),
        tars.directory(b"a/b"),
        tars.file(b"a/b/c/new"),
    )

    assert unpacked.kinds == {b"a": "[d]", b"a/b": "d", b"a/b/c": "[d]", b"a/b/c/new": "f"}


def test_directory_that_was_replaced_and_made_again_has_the_later_times(unpack):
    unpacked = unpack(
        tars.directory(b"d", mtime=1),
        tars.directory(b"d/e", mtime=2),
        tars.file(b"d"),
        tars.file(b"e/f"),
        tars.directory(b"e"),
    )

    assert unpacked.kinds == {b"d": "f", b"e": "d", b"e/f": "f"}


# -- parents


def test_missing_parents_are_made_and_recorded(unpack):
    unpacked = unpack(
        tars.file(b"a/b/f"), tars.directory(b"a/c"), tars.symlink(b"d/s", b"x"), tars.hard_link(b"e/l", b"a/b/f")
    )

    assert unpacked.kinds == {
        b"a": "[d]",
        b"a/b": "[d]",
        b"a/b/f": "f",
        b"a/c": "d",
        b"d": "[d]",
        b"d/s": "l",
        b"e": "[d]",
        b"e/l": "f",
    }
    assert {unpacked.nodes[path].mode for path in (b"a", b"a/b", b"d", b"e")} == {0o755}
    assert {unpacked.nodes[path].mtime_ns for path in (b"a", b"a/b", b"d", b"e")} == {0}


def test_parent_whose_entry_comes_late_is_no_missing_one(unpack):
    unpacked = unpack(tars.file(b"a/b/f"), tars.directory(b"a/b", mode=0o711, mtime=5), tars.directory(b"a", mtime=6))

    assert unpacked.kinds == {b"a": "d", b"a/b": "d", b"a/b/f": "f"}
    assert (unpacked.nodes[b"a/b"].mode, unpacked.nodes[b"a/b"].mtime_ns) == (0o711, 5 * 10**9)


@pytest.mark.parametrize(
    "parent", [tars.file(b"p"), tars.hard_link(b"p", b"f"), tars.header(b"p", tars.FIFO), tars.symlink(b"p", b"f")]
)
def test_parent_that_is_no_directory_is_refused(unpack, parent):
    with pytest.raises(LayerError, match=r"entry 2 'p/below' has a parent '[pf]' that is no directory"):
        unpack(tars.file(b"f"), parent, tars.file(b"p/below"))


@pytest.mark.parametrize(
    ("link", "target"),
    [
        (b"s", b"real"),
        (b"s", b"./real/"),
        (b"s", b"/real"),
        (b"s", b"//real/."),
        (b"s", b"../real"),
        (b"s", b"../../../../../real"),
        (b"s", b"/../../real"),
        (b"s", b"d/../real"),
        (b"s", b"missing/../real"),
        (b"d/s", b"../real"),
        (b"d/s", b"/real"),
        (b"d/s", b"../../../real"),
        (b"d/s", b"../d/../real"),
    ],
)
def test_parent_that_is_a_symlink_leads_to_a_directory_of_the_layer(unpack, link, target):
    unpacked = unpack(
        tars.directory(b"d"), tars.directory(b"real"), tars.symlink(link, target), tars.file(link + b"/f", b"x")
    )

    assert unpacked.kinds == {b"d": "d", b"real": "d", link: "l", b"real/f": "f"}


def test_parents_may_be_chains_of_symlinks(unpack):
    unpacked = unpack(
        tars.directory(b"a/b"),
        tars.symlink(b"one", b"/a"),
        tars.symlink(b"two", b"one/b"),
        tars.symlink(b"a/b/three", b"../../two"),
        tars.symlink(b"four", b"two/three/three"),
        tars.file(b"four/f"),
        tars.directory(b"two/three/g"),
    )

    assert unpacked.kinds[b"a/b/f"] == "f"
    assert unpacked.kinds[b"a/b/g"] == "d"
    assert unpacked.record.implicit_directories == [b"a"]


def test_forty_symlinks_are_followed_and_not_one_more(unpack):
    chain = [tars.symlink(b"s%d" % number, b"s%d" % (number + 1)) for number in range(40)]

    unpacked = unpack(*chain, tars.file(b"s0/f"))

    assert unpacked.kinds[b"s40/f"] == "f"
    with pytest.raises(LayerError, match=r"entry 41 's0/f' has a parent behind more than 40 symlinks"):
        unpack(*chain, tars.symlink(b"s40", b"s41"), tars.file(b"s0/f"))


@pytest.mark.parametrize(
    "links",
    [
        [tars.symlink(b"a", b"a")],
        [tars.symlink(b"a", b"/a/b")],
        [tars.symlink(b"a", b"b"), tars.symlink(b"b", b"a")],
        [tars.symlink(b"a", b"b/c"), tars.symlink(b"b", b"a/c")],
        [tars.symlink(b"a", b"a/../a")],
    ],
)
def test_loop_of_symlinks_is_refused(unpack, links):
    with pytest.raises(LayerError, match=r"'a/f' has a parent behind more than 40 symlinks"):
        unpack(*links, tars.file(b"a/f"))


def test_symlink_that_leads_nowhere_makes_the_directory_it_leads_to(unpack):
    unpacked = unpack(tars.symlink(b"s", b"a/b"), tars.file(b"s/f"))

    assert unpacked.kinds == {b"s": "l", b"a": "[d]", b"a/b": "[d]", b"a/b/f": "f"}


def test_hard_link_finds_its_target_through_a_symlink(unpack):
    unpacked = unpack(
        tars.file(b"real/f", b"x"),
        tars.symlink(b"s", b"/real"),
        tars.hard_link(b"l", b"s/f"),
        tars.hard_link(b"s/g", b"l"),
    )

    assert {unpacked.nodes[path].same_as for path in (b"l", b"real/f", b"real/g")} == {b"l"}


def test_symlink_that_is_replaced_leads_where_the_new_one_does(unpack):
    unpacked = unpack(
        tars.symlink(b"s", b"a"),
        tars.file(b"s/f"),
        tars.symlink(b"s", b"b"),
        tars.file(b"s/g"),
        tars.directory(b"s"),
        tars.file(b"s/h"),
    )

    assert unpacked.kinds == {b"a": "[d]", b"a/f": "f", b"b": "[d]", b"b/g": "f", b"s": "d", b"s/h": "f"}


def test_directory_on_the_way_that_is_replaced_by_a_symlink_is_not_remembered(unpack):
    unpacked = unpack(
        tars.file(b"a/b/c/f"),
        tars.symlink(b"t", b"a/b"),
        tars.file(b"t/c/g"),
        tars.symlink(b"a", b"z"),
        tars.file(b"t/c/h"),
        tars.file(b"a/b/i"),
    )

    assert unpacked.kinds == {
        b"a": "l",
        b"t": "l",
        b"z": "[d]",
        b"z/b": "[d]",
        b"z/b/c": "[d]",
        b"z/b/c/h": "f",
        b"z/b/i": "f",
    }


def test_dots_in_a_name_are_taken_by_the_letter(unpack):
    # As Go's path.Clean does, on which docker and containerd rely: "s/.." is here, wherever s leads.
    unpacked = unpack(
        tars.directory(b"a/b"), tars.symlink(b"s", b"a/b"), tars.file(b"s/../f"), tars.file(b"./x/../g/./h")
    )

    assert unpacked.kinds == {b"a": "[d]", b"a/b": "d", b"s": "l", b"f": "f", b"g": "[d]", b"g/h": "f"}


def test_one_parent_in_many_spellings_is_one_parent(unpack):
    spellings = [b"d/", b"./d/", b"/d/", b"d//", b"d/./", b"x/../d/", b"d/e/../"]

    unpacked = unpack(*(tars.file(spelling + b"%d" % number) for number, spelling in enumerate(spellings)))

    assert unpacked.kinds == {b"d": "[d]"} | {b"d/%d" % number: "f" for number in range(len(spellings))}
