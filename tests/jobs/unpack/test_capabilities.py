"""A layer is unpacked by a root who has some privileges and lacks others: what he may not set the record says."""

from __future__ import annotations

import os

import pytest
from support import tars
from support.layer_samples import OTHERS
from support.layers import request_into, unpack_layer, unpack_with_peers
from support.privileges import with_capabilities, with_groups

from pykka_imagestore.errors import LayerError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.archive.layer_file import layer_file
from pykka_imagestore.jobs.check_layer import CheckLayer, check_layer
from pykka_imagestore.jobs.unpack.target import Target
from pykka_imagestore.jobs.unpack_into import unpack_into

pytestmark = pytest.mark.root

CAPABILITIES = ["chown", "fowner", "dac_override", "dac_read_search", "mknod", "sys_admin", "setfcap", "fsetid"]
NO_DAC = "-dac_override,-dac_read_search"
BOUNDS = [
    "-all",
    NO_DAC,
    f"{NO_DAC},-fowner",
    f"{NO_DAC},-fowner,-fsetid",
    *(f"-{capability}" for capability in CAPABILITIES),
    *(f"-all,+{capability}" for capability in CAPABILITIES),
]
IN_NAMESPACES = ["-all", NO_DAC, f"{NO_DAC},-fowner", "-chown", "-setfcap", "-mknod", "-all,+chown"]
WHITEOUT = b"0:0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return what the layer is for a root who may do anything."""
    unpacked = unpack_layer(OTHERS, tmp_path_factory.mktemp("whole"))
    assert unpacked.unset == []
    return unpacked.nodes


def differences(whole, unpacked):
    """Return what of a layer is not as it should be, as its record should say it."""
    found, lacks = unpacked.nodes, []
    for path, want in whole.items():
        node = found.get(path)
        if node is None:
            lacks.append((path, "device"))
            continue
        assert (node.kind, node.content, node.same_as) == (want.kind, want.content, want.same_as)
        if node.same_as != path or node.content == WHITEOUT:
            continue  # the first one tells
        assert node.mtime_ns == want.mtime_ns
        if node.owner != want.owner:
            lacks.append((path, "owner"))
        if node.mode != want.mode:
            assert node.mode == want.mode & ~0o6000
            lacks.append((path, "mode"))
        missing = {key for key, value in want.xattrs if (key, value) not in node.xattrs}
        lacks += [(path, f"xattr {key}") for key in missing - {"trusted.overlay.opaque"}]
    return sorted(lacks)


@pytest.mark.parametrize(
    ("bounds", "mapped"), [*((bounds, False) for bounds in BOUNDS), *((bounds, True) for bounds in IN_NAMESPACES)]
)
def test_root_with_some_capabilities_unpacks_checks_and_removes(tmp_path, whole, bounds, mapped):
    unpacked = with_capabilities(bounds, unpack_layer, OTHERS, tmp_path, mapped=mapped)

    told = {(path, what) for path, what in unpacked.unset if path in whole}  # of replaced ones, too
    assert differences(whole, unpacked) == sorted(told)
    assert unpacked.check().faults == ()

    with_capabilities(bounds, remove_tree, str(unpacked.target), mapped=mapped)

    assert os.listdir(tmp_path) == ["layer.tar"]


def unpack_and_undo(layer: str, refused: str, existing: str, new: str) -> str:
    """Unpack into two directories and undo that, as upon a late stop; return why a third layer is refused there."""
    for directory in (existing, new):
        with Target(directory) as target:
            unpack_into(request_into(target, layer_file(layer)))
            target.undo()
    with Target(existing) as target:
        try:
            unpack_into(request_into(target, layer_file(refused)))
        except LayerError as error:
            target.undo()
            return str(error)
    return ""


@pytest.mark.parametrize("bounds", BOUNDS)
def test_root_with_some_capabilities_leaves_directories_as_they_were(tmp_path, bounds):
    layer, refused, existing, new = (tmp_path / name for name in ("layer.tar", "refused.tar", "existing", "new"))
    layer.write_bytes(OTHERS)
    refused.write_bytes(OTHERS[:-1024] + tars.tar(tars.file(b"../f")))
    existing.mkdir(mode=0o750)

    refusal = with_capabilities(bounds, unpack_and_undo, *map(str, (layer, refused, existing, new)))

    assert "'../f' points outside" in refusal
    assert not new.exists()
    assert os.listdir(existing) == []
    assert (existing.stat().st_mode & 0o7777, existing.stat().st_uid) == (0o750, 0)


@pytest.mark.parametrize("bounds", [f"{NO_DAC},-fowner", "-all", "-all,+chown", "-setfcap"])
def test_peers_leave_unset_what_their_leader_would(tmp_path, bounds):
    alone = with_capabilities(bounds, unpack_layer, OTHERS, tmp_path)
    nodes, unset = alone.nodes, alone.unset

    helped = with_capabilities(bounds, unpack_with_peers, OTHERS, tmp_path)

    assert {path: node.owner for path, node in helped.nodes.items()} == {
        path: node.owner for path, node in nodes.items()
    }
    assert sorted(set(helped.unset)) == sorted(set(unset))


TRUSTED = tars.tar(
    tars.pax({b"SCHILY.xattr.trusted.a": b"1"}),
    tars.file(b"f", b"x"),
    tars.opaque(b"d"),
)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("bounds", ["-sys_admin", "-all"])
def test_who_is_not_shown_trusted_attributes_finds_no_fault(tmp_path, bounds, mapped):
    unpacked = unpack_layer(TRUSTED, tmp_path)
    assert unpacked.nodes[b"f"].xattrs == (("trusted.a", b"1"),)
    assert unpacked.nodes[b"d"].xattrs == (("trusted.overlay.opaque", b"y"),)
    request = CheckLayer(str(unpacked.target), unpacked.counts.diff_id, deep=True)

    check = with_capabilities(bounds, check_layer, request, mapped=mapped)

    assert check.faults == ()


def test_lost_trusted_attribute_is_a_fault_for_who_is_shown_it(tmp_path):
    unpacked = unpack_layer(TRUSTED, tmp_path)
    os.removexattr(unpacked.rootfs / "f", "trusted.a")
    os.removexattr(unpacked.rootfs / "d", "trusted.overlay.opaque")

    assert unpacked.check().faults == (
        "has 'f' with another extended attribute 'trusted.a'",
        "lacks the whiteout 'd/.wh..wh..opq'",
    )


def test_member_of_a_group_gives_files_to_it(users_directory):
    # Which is no privilege, but what the kernel answers.
    os.chown(users_directory, 65534, 5)
    layer = tars.tar(tars.file(b"f", b"x", uid=65534, gid=5), tars.file(b"g", b"x", uid=65534, gid=6))

    unpacked = with_groups([5], unpack_layer, layer, users_directory)

    assert {path: node.owner for path, node in unpacked.nodes.items()} == {
        b"": (65534, 65534),
        b"f": (65534, 5),
        b"g": (65534, 65534),
    }
    assert unpacked.unset == [(b"g", "owner")]
