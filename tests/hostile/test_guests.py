"""Images whose trees lay traps for whoever provisions, enters or runs them. What is outside is compared at the end."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import pytest
from support import tars
from support.guests import BACKENDS, guests_in, kind_in, nodes_in
from support.rootfs import require_mounts

from pykka_imagestore import ImageUserError, RootfsError, StoreError

pytestmark = [pytest.mark.root, pytest.mark.overlay]

# What runtimes mount over, write to or read (runc, CVE-2019-16884, CVE-2023-27561, CVE-2025-31133, CVE-2026-41579).
PLACES = [
    "dev",
    "dev/null",
    "dev/console",
    "dev/pts",
    "proc",
    "proc/self",
    "sys",
    "etc",
    "etc/passwd",
    "etc/group",
    "etc/resolv.conf",
    "app",
]
SYMLINKS = [
    "{outside}",
    "../../../../../..{outside}/secret",
    "/proc/self/fd/7",
    "/proc/1/root",
    "/",
    ".",
    "{self}",
    "/no",
]
OTHERS = {
    "-": lambda name: tars.file(name, b"in the image"),
    "p": lambda name: tars.header(name, tars.FIFO),
    "c": lambda name: tars.header(name, tars.CHARACTER_DEVICE, major=1, minor=5),
    "b": lambda name: tars.header(name, tars.BLOCK_DEVICE, major=7, minor=0),
}
BASE = [tars.file(b"bin/program", b"#!", mode=0o755), tars.directory(b"tmp", mode=0o1777)]


@pytest.fixture
def guests(tmp_path):
    require_mounts()
    with guests_in(tmp_path) as guests:
        yield guests


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_symlink_where_a_runtime_looks_is_given_as_it_is(guests, backend, place):
    for unsafe_target in SYMLINKS:
        target = unsafe_target.format(outside=guests.outside, self=os.path.basename(place))
        rootfs = guests.provision(
            [*BASE, tars.symlink(place.encode(), target.encode())], backend=backend, read_only=True
        )

        assert kind_in(rootfs, place) == ("l", target)
        assert nodes_in(rootfs).keys() == below(place) | {b"bin", b"bin/program", b"tmp"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_file_fifo_or_device_where_a_runtime_looks_is_given_as_it_is(guests, backend, place):
    for kind, make in OTHERS.items():
        rootfs = guests.provision([*BASE, make(place.encode())], backend=backend, read_only=True)

        assert kind_in(rootfs, place) == (kind, "")
        assert nodes_in(rootfs).keys() == below(place) | {b"bin", b"bin/program", b"tmp"}


def below(place):
    """Return the paths of a place and of the directories above it, the root among them."""
    parts = place.split("/")
    return {"/".join(parts[:depth]).encode() for depth in range(len(parts) + 1)}


@pytest.mark.parametrize("place", PLACES)
def test_provisioning_writes_nothing_into_a_tree(guests, place):
    rootfs = guests.provision([*BASE, tars.symlink(place.encode(), os.fsencode(guests.outside))])

    upper = guests.store / "containers" / rootfs.container_id / "upper"
    assert os.listdir(upper) == []


# -- who runs it, and where


@pytest.mark.parametrize("place", ["etc", "etc/passwd"])
@pytest.mark.parametrize(
    "target", ["{outside}", "{outside}/passwd", "../../../../../../..{outside}/passwd", "{outside}/fifo"]
)
def test_user_is_never_looked_up_outside(guests, place, target):
    target = target.format(outside=guests.outside)
    rootfs = guests.provision([*BASE, tars.symlink(place.encode(), target.encode())], config={"User": "app"})

    with pytest.raises(ImageUserError, match="/etc/passwd has no user 'app'"):
        rootfs.find_user()


@pytest.mark.parametrize("place", ["etc/passwd", "etc/group"])
@pytest.mark.parametrize("kind", "pcb")
def test_user_behind_a_trap_is_told_and_nothing_waits(guests, place, kind):
    rootfs = guests.provision([*BASE, OTHERS[kind](place.encode())], config={"User": "7:8"})

    with pytest.raises(ImageUserError, match=f"/{place} cannot be read: it is a (fifo|device)"):
        rootfs.find_user()


def test_user_is_found_where_the_image_links_to_its_own_accounts(guests):
    accounts = tars.file(b"usr/lib/passwd", b"app:x:7:8::/srv:\n")
    for target in (b"/usr/lib/passwd", b"../usr/lib/passwd", b"../../../usr/lib/passwd"):
        rootfs = guests.provision([*BASE, accounts, tars.symlink(b"etc/passwd", target)], config={"User": "app"})

        assert rootfs.find_user().uid == 7


@pytest.mark.parametrize("directory", ["/proc/self/fd/7", "/proc", "/../proc/self/fd/8", "relative"])
def test_working_directory_that_leads_out_is_refused_before_anything_is_made(guests, directory):
    with pytest.raises(RootfsError, match="the image's config: config, WorkingDir should be"):
        guests.provision(BASE, config={"WorkingDir": directory})

    assert guests.containers() == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("{outside}", "No such file"),
        ("../../../../../../..{outside}", "No such file"),
        ("/proc/self/fd/7", "No such file"),
        ("app", "symlinks"),
    ],
)
def test_working_directory_that_leads_nowhere_inside_is_told(guests, target, reason):
    link = tars.symlink(b"app", target.format(outside=guests.outside).encode())
    rootfs = guests.provision([*BASE, link], config={"WorkingDir": "/app"})

    with pytest.raises(OSError, match=reason):
        rootfs.open(rootfs.config.working_directory)


@pytest.mark.parametrize(("kind", "reason"), [("p", "it is a fifo"), ("c", "it is a device"), ("b", "it is a device")])
def test_working_directory_that_is_a_trap_is_told(guests, kind, reason):
    rootfs = guests.provision([*BASE, OTHERS[kind](b"app")], config={"WorkingDir": "/app"})

    with pytest.raises(OSError, match=reason):
        rootfs.open(rootfs.config.working_directory)


def test_working_directory_is_the_images_own_whatever_leads_there(guests):
    layer = [*BASE, tars.file(b"srv/app/file"), tars.symlink(b"app", b"/../../srv/./app")]
    rootfs = guests.provision(layer, config={"WorkingDir": "/app"})

    directory = rootfs.open(rootfs.config.working_directory)

    assert os.listdir(directory) == ["file"]
    os.close(directory)


# -- what lower layers plant

ATTACKS = {
    "a file": [tars.file(b"data/new", b"upper")],
    "a directory": [tars.directory(b"data/inner/new", mode=0o777)],
    "a whiteout": [tars.whiteout(b"data/secret")],
    "an opaque whiteout": [tars.opaque(b"data")],
    "a directory's attributes": [tars.directory(b"data", mode=0o777, uid=1, gid=1)],
    "a hard link": [tars.file(b"data/new", b"x"), tars.hard_link(b"link", b"data/new")],
    "a symlink": [tars.symlink(b"data/secret", b"x")],
    "a device": [tars.header(b"data/fifo", tars.CHARACTER_DEVICE, major=1, minor=5)],
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("absolute", [True, False])
def test_symlink_of_a_lower_layer_is_never_followed_by_an_upper_one(guests, attack, absolute):
    outside = os.fsencode(guests.outside)
    planted = tars.symlink(b"data", outside if absolute else b"../../../../../../../../.." + outside)

    rootfs = guests.provision([*BASE, planted], ATTACKS[attack])

    assert kind_in(rootfs, "data") == ("d", "")
    assert not has(rootfs, "data/passwd")
    assert not has(rootfs, "data/secret") or kind_in(rootfs, "data/secret") == ("l", "x")
    write_below(rootfs, "data/written")
    assert not (guests.outside / "written").exists()


@pytest.mark.parametrize("below", [[], [tars.file(b"data/secret")]])
def test_whiteout_is_not_listed_where_nothing_is_merged(guests, below):
    rootfs = guests.provision(
        [*BASE, *below], [tars.directory(b"data"), tars.opaque(b"data"), tars.whiteout(b"data/secret")]
    )

    directory = rootfs.open("data")
    names = os.listdir(directory)
    os.close(directory)

    assert names == []


@pytest.mark.parametrize(
    "hides",
    [tars.whiteout(b"tmp/x"), tars.whiteout(b"x"), tars.opaque(b"tmp"), tars.header(b"x", tars.CHARACTER_DEVICE)],
)
def test_one_layer_that_hides_something_is_not_shown_as_it_lies_in_the_store(guests, hides):
    name = guests.put([*BASE, hides])

    with pytest.raises(RootfsError, match="bind: the layer has whiteouts, which would be seen"):
        guests.provision_image(name, backend="bind", read_only=True)
    rootfs = guests.provision_image(name, read_only=True)

    assert rootfs.backend == "overlay"
    assert nodes_in(rootfs).keys() == {b"", b"bin", b"bin/program", b"tmp"}


def has(rootfs, path):
    return os.path.lexists(f"/proc/self/fd/{rootfs.fd}/{path}")


def write_below(rootfs, path):
    with open(f"/proc/self/fd/{rootfs.fd}/{path}", "w") as file:
        file.write("written")


def test_hard_link_through_a_lower_layers_symlink_never_gets_what_is_outside(guests):
    planted = tars.symlink(b"data", os.fsencode(guests.outside))

    with suppress(StoreError):
        rootfs = guests.provision([*BASE, planted], [tars.hard_link(b"stolen", b"data/secret")])
        assert not has(rootfs, "stolen")
        guests.destroy(rootfs)
    assert guests.containers() == []


def test_what_is_written_through_a_planted_symlink_stays_inside(guests):
    planted = [tars.symlink(b"data", os.fsencode(guests.outside)), tars.directory(os.fsencode(guests.outside)[1:])]
    rootfs = guests.provision([*BASE, *planted])

    directory = rootfs.open("data")
    with open("written", "w", opener=lambda name, flags: os.open(name, flags, 0o644, dir_fd=directory)) as file:
        file.write("inside")
    os.close(directory)

    upper = guests.store / "containers" / rootfs.container_id / "upper"
    assert (upper / str(guests.outside)[1:] / "written").read_text() == "inside"


# -- what a mount gives away


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("attach", [True, False])
def test_device_of_an_image_cannot_be_used_through_its_mount(guests, backend, attach):
    layer = [*BASE, tars.header(b"dev/zero", tars.CHARACTER_DEVICE, major=1, minor=5, mode=0o666)]
    rootfs = guests.provision(layer, backend=backend, read_only=True, attach=attach)

    with pytest.raises(PermissionError):
        os.open("dev/zero", os.O_RDONLY, dir_fd=rootfs.fd)
    assert stat.S_ISCHR(os.stat("dev/zero", dir_fd=rootfs.fd).st_mode)
