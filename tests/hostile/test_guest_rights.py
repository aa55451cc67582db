"""What other users get of set-user-ID programs in images, and children of descriptors: nothing."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from threading import Thread

import pytest
from support import tars
from support.guests import BACKENDS, guests_in
from support.privileges import ORDINARY_USER, as_ordinary_user, ordinary_users_place
from support.processes import TIMEOUT
from support.rootfs import require_mounts

from pykka_imagestore.fs.remove_tree import remove_tree

pytestmark = [pytest.mark.root, pytest.mark.overlay]

ID = Path(shutil.which("id") or "/usr/bin/id")
PROGRAM = tars.file(b"bin/id", ID.read_bytes(), mode=0o6755)
ZERO = tars.header(b"zero", tars.CHARACTER_DEVICE, major=1, minor=5, mode=0o666)


@pytest.fixture
def guests():
    """Lend a store in a directory that every user may pass."""
    require_mounts()
    directory = Path(tempfile.mkdtemp(prefix="imagestore-test-", dir=ordinary_users_place()))
    directory.chmod(0o755)
    try:
        with guests_in(directory) as guests:
            yield guests
    finally:
        remove_tree(str(directory))


WAYS = [("overlay", False), ("copy", False), *((backend, True) for backend in BACKENDS)]


def may_be_reached(paths):
    """Return which of some paths this process finds anything at."""
    return [path for path in paths if os.path.lexists(path)]


def test_programs_of_layers_and_mounts_are_out_of_other_users_reach(guests):
    rootfs = guests.provision([PROGRAM])
    store = guests.store
    (layer,) = (store / "layers").iterdir()
    container = store / "containers" / rootfs.container_id
    (container / "upper" / "id").write_bytes(b"copied up")
    paths = [layer / "rootfs/bin/id", container / "rootfs/bin/id", container / "upper/id", container / "upper"]
    assert may_be_reached(paths) == paths

    assert as_ordinary_user(may_be_reached, paths) == []
    assert as_ordinary_user(may_be_reached, [guests.outside]) == [guests.outside]


@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_container_directories_are_closed_whatever_the_store_is(guests, backend):
    rootfs = guests.provision([PROGRAM], backend=backend)
    guests.store.chmod(0o755)  # as one that is shared may be

    container = guests.store / "containers" / rootfs.container_id

    assert stat.S_IMODE(container.stat().st_mode) == 0o700
    assert as_ordinary_user(may_be_reached, [container / "rootfs", container / "upper"]) == []


def may_gain_rights():
    return "NoNewPrivs:\t0" in Path("/proc/self/status").read_text()


def effective_user(program, *descriptors):
    """Return whom an ordinary user's program runs as."""
    done = subprocess.run(
        [program, "-u"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
        user=ORDINARY_USER,
        group=ORDINARY_USER,
        extra_groups=[],
        pass_fds=descriptors,
    )
    return int(done.stdout)


@pytest.mark.parametrize(("backend", "read_only"), WAYS)
def test_set_user_id_program_run_through_a_mount_runs_as_its_caller(guests, backend, read_only):
    target = guests.outside.parent / "target"
    target.mkdir(mode=0o755)
    rootfs = guests.provision([PROGRAM], backend=backend, read_only=read_only, target=target)
    detached = guests.provision([PROGRAM], backend=backend, read_only=read_only, attach=False)
    inside = guests.provision([PROGRAM], backend=backend, read_only=read_only)
    assert stat.S_IMODE((target / "bin" / "id").stat().st_mode) == 0o6755

    assert effective_user(target / "bin" / "id") == ORDINARY_USER
    for fd in (rootfs.fd, detached.fd, inside.fd):
        assert effective_user(f"/proc/self/fd/{fd}/bin/id", fd) == ORDINARY_USER
        assert os.fstatvfs(fd).f_flag & os.ST_NOSUID
    if may_gain_rights():  # or no program could, and this test would show nothing
        plain = target.with_name("plain")
        shutil.copy(ID, plain)
        plain.chmod(0o6755)
        is_guarded = os.statvfs(plain).f_flag & os.ST_NOSUID
        assert effective_user(plain) == (ORDINARY_USER if is_guarded else 0)


@pytest.mark.parametrize("attach", [True, False])
@pytest.mark.parametrize(("backend", "read_only"), WAYS)
def test_set_user_id_programs_and_devices_work_only_where_a_runtime_is_to_follow(guests, backend, read_only, attach):
    around = 0 if backend == "overlay" else os.statvfs(guests.outside).f_flag
    is_plain = backend == "copy" and not read_only
    for for_runtime in (True, False):
        rootfs = guests.provision(
            [PROGRAM, ZERO], backend=backend, read_only=read_only, attach=attach, for_runtime=for_runtime
        )
        has_no_ids, has_no_devices = (not for_runtime or bool(around & flag) for flag in (os.ST_NOSUID, os.ST_NODEV))

        flags = os.fstatvfs(rootfs.fd).f_flag
        assert (bool(flags & os.ST_NOSUID), bool(flags & os.ST_NODEV)) == (has_no_ids, has_no_devices)
        assert is_readable(f"/proc/self/fd/{rootfs.fd}/zero") != has_no_devices
        if may_gain_rights():
            runs_as = effective_user(f"/proc/self/fd/{rootfs.fd}/bin/id", rootfs.fd)
            # Where a mount is not attached yet the kernel ignores set-user-ID bits, whatever the mount is.
            assert runs_as == (0 if not has_no_ids and (attach or is_plain) else ORDINARY_USER)


def is_readable(device):
    try:
        with open(device, "rb") as file:
            return file.read(1) == b"\0"
    except PermissionError:
        return False


def test_set_user_id_program_that_is_written_to_stays_powerless(guests):
    """A program is copied up as it is, with its rights (CVE-2021-3847, CVE-2023-0386): the mount takes them."""
    rootfs = guests.provision([PROGRAM])
    path = f"{rootfs.path}/bin/id"

    os.chown(path, 0, 0)  # copies it up, and clears the bits
    os.chmod(path, 0o6755)

    copied = guests.store / "containers" / rootfs.container_id / "upper/bin/id"
    assert stat.S_IMODE(copied.stat().st_mode) == 0o6755
    assert effective_user(f"/proc/self/fd/{rootfs.fd}/bin/id", rootfs.fd) == ORDINARY_USER


# -- descriptors


def held_by_a_child():
    """Return what a child that closes nothing has open, and nobody gave it."""
    listing = ["ls", "-l", "/proc/self/fd"]
    done = subprocess.run(
        listing, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False, close_fds=False
    )
    return {line.partition(" -> ")[2] for line in done.stdout.splitlines()} - {"", "/dev/null"}


def of_itself(target):
    """Tell whether a child has that open by itself: its output, and the list of what it has open."""
    return target.startswith(("pipe:", "/proc/"))


def test_no_child_that_starts_meanwhile_gets_a_descriptor(guests):
    image = guests.put([PROGRAM])
    before, held = held_by_a_child(), set()

    def provision_and_destroy():
        for number in range(200):
            rootfs = guests.provision_image(image, attach=number % 2 == 0)
            rootfs.find_user("7:8")
            os.close(rootfs.open("bin/id"))
            guests.destroy(rootfs)

    kept = guests.provision([PROGRAM])
    working = Thread(target=provision_and_destroy)
    working.start()
    while working.is_alive():
        held |= held_by_a_child()
    working.join()

    assert {target for target in held - before if not of_itself(target)} == set()
    assert not os.get_inheritable(kept.fd)
