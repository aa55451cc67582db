"""Provisioners of an ordinary user: what is mounted for them is mounted by a process that holds namespaces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, repeat
from pathlib import Path

import pytest
from support import tars
from support.guests import guests_in
from support.images import docker_save
from support.privileges import ORDINARY_USER, ordinary_users_place
from support.processes import TIMEOUT
from support.rootfs import names_in, read, write
from support.stores import opened

from pykka_imagestore import Provisioner, RootfsError
from pykka_imagestore.provision.provisioned import ContainerRecovery

pytestmark = [pytest.mark.root, pytest.mark.overlay]

LOWER = [tars.file(b"etc/name", b"lower"), tars.file(b"etc/gone", b"")]
UPPER = [tars.file(b"etc/name", b"upper"), tars.whiteout(b"etc/gone")]


# Run where nothing of this process is left: the Python, the package and the tests in use may be in directories that
# only root may enter, and what is imported late would not be found.
RUN = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])  # before what this Python has, which may be older
from pathlib import Path
import test_ordinary_user
name, place, *arguments = json.loads(sys.argv[2])
print(json.dumps([sys.implementation.cache_tag, getattr(test_ordinary_user, name)(Path(place), *arguments)]))
"""


@pytest.fixture(scope="module")
def run(package_for_all):
    """Call a function of this module with a directory of an ordinary user's, as he, with a Python and copies of his."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a user namespace")
    above = Path(tempfile.mkdtemp(dir=ordinary_users_place()))
    try:
        above.chmod(0o755)
        shutil.copytree(
            Path(__file__).with_name("support"), above / "tests/support", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(__file__, above / "tests")
        for copied in (above / "tests", above / "tests/support"):
            os.chown(copied, ORDINARY_USER, ORDINARY_USER)  # whose Python keeps there what it compiles
        paths = [str(package_for_all), str(above / "tests"), *filter(is_of_packages, sys.path)]
        yield partial(call, find_python(above, paths), paths, map("{}/{}".format, repeat(above), count()))
    finally:
        shutil.rmtree(above)


def is_of_packages(path: str) -> bool:
    return path.endswith("site-packages")


def find_python(above: Path, paths: list[str]) -> str:
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        done = start(candidate, paths, ["do_nothing", str(above)])
        if done is not None and done.returncode == 0 and json.loads(done.stdout)[0] == sys.implementation.cache_tag:
            return candidate
    pytest.skip("an ordinary user may start no Python like this one")


def call(python: str, paths: list[str], places: Iterator[str], function: Callable[..., object], *arguments: object):
    place = Path(next(places))
    place.mkdir()
    os.chown(place, ORDINARY_USER, ORDINARY_USER)
    done = start(python, paths, [function.__name__, str(place), *arguments])
    assert done is not None
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[1]


def start(python: str, paths: list[str], arguments: list[object]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            [python, "-c", RUN, json.dumps(paths), json.dumps(arguments)],
            cwd="/",
            env={"PATH": os.environ["PATH"]},
            user=ORDINARY_USER,
            group=ORDINARY_USER,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except PermissionError:
        return None


def do_nothing(_place):
    return None


# -- what makes them


@pytest.mark.parametrize(("layers", "backend"), [(2, "overlay"), (1, "bind")])
def test_what_cannot_be_written_to_is_mounted_by_default(run, layers, backend):
    assert run(provision_to_read, layers, None) == [backend, "nothing is faster, and it works here"]


@pytest.mark.parametrize("backend", ["overlay", "link", "copy"])
def test_every_backend_makes_what_cannot_be_written_to(run, backend):
    assert run(provision_to_read, 2, backend) == [backend, "it was asked for"]


def provision_to_read(place, layers, backend):
    with guests_in(place) as guests:
        rootfs = guests.provision(*[LOWER, UPPER][:layers], backend=backend, read_only=True)

        assert (rootfs.path, rootfs.namespace_pid is not None) == (None, True)
        assert read(rootfs.fd, "etc/name") == ("upper" if layers > 1 else "lower")
        assert names_in(rootfs.fd, "etc") == (["name"] if layers > 1 else ["gone", "name"])
        with pytest.raises(OSError, match="Read-only"):
            write(rootfs.fd, "etc/name", "other")
        guards = os.ST_NOSUID | os.ST_NODEV
        assert os.fstatvfs(rootfs.fd).f_flag & guards == guards
        assert find_mounted(rootfs, guests.store) == f"{guests.store}/containers/{rootfs.container_id}/rootfs"
        guests.destroy(rootfs)
        assert find_mounted(rootfs, guests.store) is None
        assert os.listdir(guests.store / "containers") == []
        return [rootfs.backend, rootfs.reason]


def find_mounted(rootfs, place):
    """Return where below a directory a root file system is mounted in its process' namespaces."""
    points = [line.split()[4] for line in Path(f"/proc/{rootfs.namespace_pid}/mountinfo").read_text().splitlines()]
    return next(
        (point for point in points if point.startswith(f"{place}/") and f"/{rootfs.container_id}/" in point), None
    )


def test_a_copy_at_a_target_is_mounted_there_in_the_namespaces(run):
    run(copy_to_target)


def copy_to_target(place):
    target = place / "target"
    target.mkdir()
    with guests_in(place) as guests:
        rootfs = guests.provision(LOWER, UPPER, backend="copy", target=target)
        write(rootfs.fd, "etc/new", "new")

        assert os.listdir(target) == []
        table = Path(f"/proc/{rootfs.namespace_pid}/mountinfo").read_text()
        assert str(target) in table
        assert (guests.store / "containers" / rootfs.container_id / "rootfs/etc/new").read_text() == "new"
        guests.destroy(rootfs)


def test_a_copy_in_its_own_place_is_a_directory_that_gives_nobody_anothers_rights(run):
    run(copy_rights)


def copy_rights(place):
    program = tars.file(b"bin/id", b"", mode=0o6755)
    device = tars.header(b"dev/zero", tars.CHARACTER_DEVICE, major=1, minor=5)
    with guests_in(place) as guests:
        rootfs = guests.provision([program, device], backend="copy")

        assert rootfs.namespace_pid is None
        status = os.stat(f"{rootfs.path}/bin/id")
        assert (status.st_uid, status.st_gid) == (ORDINARY_USER, ORDINARY_USER)
        assert os.listdir(f"{rootfs.path}/dev") == []
        guests.destroy(rootfs)


# -- a process that is killed


def test_when_the_process_is_killed_the_next_root_file_system_starts_another(run):
    run(kill_between)


def kill_between(place):
    with guests_in(place) as guests:
        image = guests.put(LOWER, UPPER)
        before = guests.provision_image(image, backend="overlay")
        write(before.fd, "etc/written", "before")

        kill(before.namespace_pid)
        after = guests.provision_image(image)

        assert (after.backend, after.reason) == ("overlay", "nothing is faster, and it works here")
        assert after.namespace_pid != before.namespace_pid
        assert find_mounted(after, guests.store) is not None
        assert read(before.fd, "etc/name") == read(after.fd, "etc/name") == "upper"
        write(before.fd, "etc/written", "after")
        assert names_in(after.fd, "etc") == ["name"]
        assert guests.containers() == sorted([before.container_id, after.container_id])
        guests.destroy(before)
        assert guests.containers() == [after.container_id]
        guests.destroy(after)
        assert os.listdir(guests.store / "containers") == []


@pytest.mark.parametrize(("backend", "read_only"), [("overlay", False), ("link", True), ("copy", True)])
def test_what_the_killed_process_had_mounted_is_destroyed_without_another(run, backend, read_only):
    run(kill_and_destroy, backend, read_only)


def kill_and_destroy(place, backend, read_only):
    with guests_in(place) as guests:
        rootfs = guests.provision(LOWER, UPPER, backend=backend, read_only=read_only)

        kill(rootfs.namespace_pid)
        assert guests.recover(rootfs.container_id) == ContainerRecovery()  # it is this process' still
        guests.destroy(rootfs)

        assert guests.containers() == []


@pytest.mark.parametrize(("backend", "read_only"), [("overlay", False), ("link", True), ("copy", True)])
def test_later_an_overlay_is_lost_and_what_has_files_is_mounted_again(run, backend, read_only):
    run(lose, backend, read_only)


def lose(place, backend, read_only):
    archive = docker_save(place / "app.tar", {"app:1": [tars.tar(*LOWER), tars.tar(*UPPER)]})
    with opened(place / "store", durable=False) as store:
        store.put("app:1", archive).get(timeout=TIMEOUT)
        with Provisioner.start(store) as first:
            wanted = first.provision("box", "app:1", backend=backend, read_only=read_only)
            kill(wanted.get(timeout=TIMEOUT).namespace_pid)
        with Provisioner.start(store) as second:
            assert [info.is_held for info in second.list().get(timeout=TIMEOUT)] == [False]
            recovery = second.recover(["box"]).get(timeout=TIMEOUT)
            if backend == "overlay":
                assert recovery == ContainerRecovery(lost=("box",))
            else:
                (adopted,) = recovery.adopted
                assert read(adopted.fd, "etc/name") == "upper"
                assert find_mounted(adopted, place) == str(place / "store/containers/box/rootfs")
                with pytest.raises(OSError, match="Read-only"):
                    write(adopted.fd, "etc/name", "other")
                second.destroy("box").get(timeout=TIMEOUT)
            assert second.list().get(timeout=TIMEOUT) == ()


def kill(pid):
    watch = os.pidfd_open(pid)
    signal.pidfd_send_signal(watch, signal.SIGKILL)
    os.close(watch)


# -- the Python that it is


def test_a_frozen_program_gets_copies(run):
    run(provision_frozen)


def provision_frozen(place):
    with guests_in(place) as guests:
        image = guests.put(LOWER, UPPER)  # by workers that are there then
        sys.frozen = True  # type: ignore[attr-defined]
        told = "no process can be started that holds namespaces: a frozen program has no Python to start a process with"

        rootfs = guests.provision_image(image)
        assert (rootfs.backend, rootfs.path is not None) == ("copy", True)
        assert told in rootfs.reason
        for backend in ("overlay", "link"):
            with pytest.raises(RootfsError, match=told):
                guests.provision_image(image, backend=backend, read_only=True)
        guests.destroy(rootfs)


@pytest.mark.parametrize("executable", ["/usr/bin/uwsgi", ""])
def test_an_embedded_python_has_the_one_beside_it_mount(run, executable):
    assert run(provision_embedded, executable) == "overlay"


def provision_embedded(place, executable):
    sys.executable = executable
    with guests_in(place) as guests:
        rootfs = guests.provision(LOWER, UPPER)
        guests.destroy(rootfs)
        return rootfs.backend
