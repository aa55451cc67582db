"""Overlay attributes that images plant, looked at through the mount: none means anything there."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from support import tars
from support.guests import guests_in, nodes_in
from support.privileges import in_own_namespaces
from support.rootfs import require_mounts

pytestmark = [pytest.mark.root, pytest.mark.overlay]

LOWER = [
    tars.file(b"secret/key", b"key", mode=0o600),
    tars.file(b"d/below", b"below"),
    tars.file(b"f", b"the lower one"),
    tars.file(b"shadow", b"root:*:", mode=0o600),
]
# What overlayfs keeps for itself (overlayfs.rst). Values as it writes them, and what would be gained by them.
PLANTED = {
    "redirect to another directory": (b"redirect", b"/secret"),
    "redirect to a name beside it": (b"redirect", b"secret"),
    "opaque": (b"opaque", b"y"),
    "opaque for whiteouts": (b"opaque", b"x"),
    "whiteout": (b"whiteout", b""),
    "metacopy": (b"metacopy", b""),
    "metacopy of a digest": (b"metacopy", b"\0\x24\0\1" + bytes(32)),
    "origin": (b"origin", b"\0\xfb\x1d\0\x01" + bytes(24)),
    "links": (b"nlink", b"U+7"),
    "upper": (b"upper", b"\0\xfb\x1d\0\x01" + bytes(24)),
    "impure": (b"impure", b"y"),
    "protected attributes": (b"protattr", b"i,a"),
}
FORMS = [b"trusted.overlay.", b"user.overlay.", b"trusted.overlay.overlay.", b"user.overlay.overlay."]


@pytest.fixture
def guests(tmp_path):
    require_mounts()
    with guests_in(tmp_path) as guests:
        yield guests


def planted(form, what):
    key, value = PLANTED[what]
    return tars.pax({b"SCHILY.xattr." + form + key: value})


def upper(attack=b""):
    """Return a layer whose directory and files carry an attack."""
    return [
        attack + tars.directory(b"d", mode=0o755),
        attack + tars.file(b"f", b"the upper one"),
        attack + tars.file(b"shadow", b""),
        tars.file(b"w", b""),
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", PLANTED)
def test_attribute_that_an_image_plants_means_nothing_through_the_mount(guests, form, what):
    honest = guests.provision(LOWER, upper())
    attacked = guests.provision(LOWER, upper(planted(form, what)))

    assert contents(attacked) == contents(honest)
    assert contents(attacked)["f"] == b"the upper one"
    assert contents(attacked)["shadow"] == b""
    assert contents(attacked)["d/below"] == b"below"
    assert overlay_attributes(attacked) == []


@pytest.mark.parametrize("form", FORMS)
def test_attributes_for_all_entries_mean_nothing_either(guests, form):
    records = {b"SCHILY.xattr." + form + key: value for key, value in PLANTED.values()}
    attacked = guests.provision(LOWER, [tars.pax(records, tars.PAX_GLOBAL), *upper()])

    assert contents(attacked) == contents(guests.provision(LOWER, upper()))
    assert overlay_attributes(attacked) == []


@pytest.mark.parametrize("form", FORMS)
def test_what_is_planted_means_nothing_once_it_was_copied_up_and_changed(guests, form):
    attacked = guests.provision(LOWER, upper(planted(form, "metacopy")))
    for path in ("f", "d/below", "shadow"):
        with open(f"{attacked.path}/{path}", "a") as file:
            file.write("+")

    assert contents(attacked)["f"] == b"the upper one+"
    assert contents(attacked)["shadow"] == b"+"
    assert overlay_attributes(attacked) == []


@pytest.mark.parametrize("key", ["redirect", "opaque", "metacopy", "overlay.redirect"])
def test_who_runs_in_the_tree_plants_nothing_that_an_overlay_reads(guests, key):
    rootfs = guests.provision(LOWER, upper())

    # The kernel escapes it, so that it means something to an overlay of this one; one before 6.7 refuses it.
    with suppress(OSError):
        os.setxattr(f"{rootfs.path}/d", f"trusted.overlay.{key}", b"/secret")

    directory = guests.store / "containers" / rootfs.container_id / "upper" / "d"
    live = {name for name in os.listxattr(directory) if not name.startswith("trusted.overlay.overlay.")}
    assert live <= {"trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.uuid"}
    assert contents(rootfs)["d/below"] == b"below"


def look_at_all(directory):
    """Return what an image shows that plants nothing, and what those show that plant something."""
    with guests_in(directory) as guests:
        honest = contents(guests.provision(LOWER, upper()))
        return honest, {
            (form, what): (contents(attacked), overlay_attributes(attacked))
            for form in FORMS
            for what in PLANTED
            for attacked in [guests.provision(LOWER, upper(planted(form, what)))]
        }


def test_in_a_user_namespace_whose_overlays_read_other_attributes_none_means_anything_either(tmp_path):
    honest, attacked = in_own_namespaces(look_at_all, tmp_path)

    assert honest["f"] == b"the upper one"
    assert honest["d/below"] == b"below"
    assert len(attacked) == len(FORMS) * len(PLANTED)
    assert {case: seen for case, seen in attacked.items() if seen != (honest, [])} == {}


def contents(rootfs):
    """Return what is read at each path; a directory gives None."""
    found: dict[str, bytes | None] = {}
    for path, node in nodes_in(rootfs).items():
        name = os.fsdecode(path)
        found[name] = None
        if node.kind == "f":
            file = os.open(name, os.O_RDONLY, dir_fd=rootfs.fd)
            found[name] = os.read(file, 100)
            os.close(file)
    return found


def overlay_attributes(rootfs):
    return [
        (path, key)
        for path in nodes_in(rootfs)
        for key in os.listxattr(f"/proc/self/fd/{rootfs.fd}/./{os.fsdecode(path)}", follow_symlinks=False)
        if "overlay" in key
    ]
