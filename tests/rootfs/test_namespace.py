"""Overlays that a helper process mounts in namespaces of its own: of an ordinary user, and of root."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.privileges import ORDINARY_USER, as_ordinary_user, with_own_mounts
from support.processes import TIMEOUT, Program
from support.rootfs import (
    GONE,
    descriptors_after,
    layer,
    names_in,
    namespace_of,
    points_below,
    python_for_all,
    read,
    request,
    write,
)

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.errors import InvalidInputError, RootfsError
from pykka_imagestore.rootfs.bind import Bind
from pykka_imagestore.rootfs.mounts import clone_tree, move_mount
from pykka_imagestore.rootfs.namespace import InNamespace, Namespace
from pykka_imagestore.rootfs.overlay import Overlay
from pykka_imagestore.runtime.launch import python_command

pytestmark = pytest.mark.overlay
USER = WhiteoutFormat.OVERLAY_USER
MAY_MAKE_NAMESPACES = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(autouse=True)
def _needs_namespaces():
    if not MAY_MAKE_NAMESPACES:
        pytest.skip("this machine lets nobody make a user namespace")


@pytest.fixture(params=["ordinary user", "this user"])
def run(request, tmp_path):
    """Call a function with a directory, as an ordinary user and as whoever runs the tests."""
    if request.param == "this user":
        return lambda function: function(tmp_path)
    return request.getfixturevalue("run_as_ordinary_user")


@pytest.fixture
def run_as_ordinary_user(users_directory, package_for_all):
    if os.geteuid() != 0:
        pytest.skip("the tests are run by an ordinary user already")
    return partial(as_ordinary_user, call_with_copy, package_for_all, users_directory)


def call_with_copy(package: Path, place: Path, function: Callable[[Path], object]) -> None:
    global python  # noqa: PLW0603 - of this process, which does nothing else
    python = python_for_all(package)
    function(place)


python: list[str] | None = None  # the one in use


@contextmanager
def held() -> Iterator[tuple[InNamespace, Namespace]]:
    """Lend overlays in a namespace that nothing was mounted in yet."""
    namespace = namespace_of(python)
    try:
        yield InNamespace(Overlay(), namespace), namespace
    finally:
        namespace.close()


def two_layers(place: Path) -> tuple:
    lower = layer(place / "lower", {"etc/hosts": "lower", "etc/gone": "", "kept": "lower"})
    upper = layer(place / "upper", {"etc/hosts": "upper", "etc/gone": GONE, "new": "upper"}, USER)
    return lower, upper


def pid_of(namespace: Namespace) -> int:
    assert namespace.pid is not None
    return namespace.pid


def enter(pid: int, *command: str) -> str:
    """Return what a command writes in the namespaces of a process."""
    enter_ = ["nsenter", "--preserve-credentials", "--user", "--mount", "--target", str(pid)]
    done = subprocess.run([*enter_, *command], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- what is shown


def test_layers_are_merged_and_found_by_descriptor_and_by_path_in_the_namespaces(run):
    run(merge)


def merge(place):
    with held() as (overlay, namespace):
        wanted = request(place / "box", *two_layers(place))

        mounted = overlay.mount(wanted)

        assert names_in(mounted.fd) == ["etc", "kept", "new"]
        assert (names_in(mounted.fd, "etc"), read(mounted.fd, "etc/hosts")) == (["hosts"], "upper")
        assert (mounted.path, mounted.namespace_pid) == (None, namespace.pid)
        assert overlay.reads == "user"
        assert points_below(place) == []
        assert os.listdir(place / "box/rootfs") == []
        assert enter(pid_of(namespace), "ls", f"{place}/box/rootfs").split() == ["etc", "kept", "new"]
        assert overlay.is_attached(wanted)
        write(mounted.fd, "etc/written", "by us")
        assert (place / "box/upper/etc/written").read_text() == "by us"
        assert enter(pid_of(namespace), "stat", "-c", "%u %g", f"{place}/box/rootfs/etc/written") == "0 0\n"
        os.close(mounted.fd)


def test_options_are_pinned_in_the_namespaces(run):
    run(pin_options)


def pin_options(place):
    with held() as (overlay, namespace):
        layers = two_layers(place)
        os.close(overlay.mount(request(place / "box", *layers)).fd)
        os.close(overlay.mount(request(place / "read", *layers, read_only=True)).fd)

        table = enter(pid_of(namespace), "grep", f"{place}/", "/proc/self/mountinfo").splitlines()
        box, reading = ({*line.split()[5].split(","), *line.split()[-1].split(",")} for line in table)
        assert box >= {"rw", "nosuid", "nodev", "redirect_dir=nofollow", "uuid=null", "userxattr"}
        assert {"volatile", "fsync=volatile"} & box
        assert reading >= {"ro", "nosuid", "nodev", "redirect_dir=nofollow", "uuid=null", "userxattr"}
        assert not {"volatile", "fsync=volatile", "metacopy=on", "index=on"} & (reading | (box - {"fsync=volatile"}))


def test_what_a_layer_plants_is_not_followed_in_the_namespaces(run):
    run(plant)


def plant(place):
    secret = layer(place / "base", {"root/secret": "secret", "usr/lower": "", "opaque/lower": "", "data": "x" * 100})
    hostile = layer(place / "hostile", {"usr/mine": "mine", "home/mine": "mine", "data": "", "opaque/upper": ""})
    for path, name, value in (
        ("home", "redirect", b"/root"),
        ("data", "metacopy", b""),
        ("data", "redirect", b"/root/secret"),
        ("opaque", "opaque", b"y"),
    ):
        os.setxattr(place / "hostile" / path, f"user.overlay.{name}", value)
        os.setxattr(place / "hostile" / path, f"user.overlay.overlay.{name}", value)
    with held() as (overlay, _):
        mounted = overlay.mount(request(place / "box", secret, hostile, attach=False))

        for look in (lambda: names_in(mounted.fd, "home"), lambda: read(mounted.fd, "data")):
            with pytest.raises(PermissionError):
                look()
        assert names_in(mounted.fd, "opaque") == ["upper"]
        assert names_in(mounted.fd, "usr") == ["lower", "mine"]
        os.close(mounted.fd)


def test_devices_and_set_user_id_have_no_effect_in_the_namespaces(run):
    run(look_for_guards)


def look_for_guards(place):
    with held() as (overlay, namespace):
        wanted = request(place / "box", *two_layers(place), for_runtime=True)
        os.close(overlay.mount(wanted).fd)

        options = enter(pid_of(namespace), "grep", f"{place}/box", "/proc/self/mountinfo").split()[5].split(",")
        assert "nosuid" not in options  # they do in the namespaces, whose root is an ordinary user
        os.close(overlay.mount(request(place / "other", *two_layers(place / "again"))).fd)
        options = enter(pid_of(namespace), "grep", f"{place}/other", "/proc/self/mountinfo").split()[5].split(",")
        assert {"nosuid", "nodev"} <= {*options}


@pytest.mark.parametrize("program", ["chroot", "bwrap"])
def test_a_program_runs_in_the_root_file_system(run, program):
    if None in (shutil.which(program), shutil.which("ldd")):
        pytest.skip(f"there is no {program}, or no ldd, which tells what a shell needs")
    run(run_in_chroot if program == "chroot" else run_in_bwrap)


def run_in_chroot(place):
    run_shell(place, lambda root: ["chroot", root])


def run_in_bwrap(place):
    run_shell(place, lambda root: ["bwrap", "--bind", root, "/", "--unshare-pid", "--dev", "/dev"])


def run_shell(place, command):
    base = layer(place / "base", {"dev/": None, "etc/name": "of the image\n"})
    add_shell(place / "base")
    with held() as (overlay, namespace):
        wanted = request(place / "box", base)
        os.close(overlay.mount(wanted).fd)

        script = 'read name < /etc/name; echo "$name"; echo new > /etc/new'
        told = enter(pid_of(namespace), *command(f"{place}/box/rootfs"), "/bin/sh", "-c", script)

        assert told == "of the image\n"
        assert (place / "box/upper/etc/new").read_text() == "new\n"


def add_shell(root: Path) -> None:
    """Copy this machine's shell into a root file system, with the libraries that it needs."""
    told = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    for path in ("/bin/sh", *re.findall(r"(/\S+) \(", told)):
        target = root / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def test_a_layer_is_shown_as_it_is_in_the_namespaces(run):
    run(bind)


def bind(place):
    with held() as (_, namespace):
        backend = InNamespace(Bind(), namespace)
        wanted = request(place / "box", layer(place / "only", {"name": "only"}), read_only=True)

        mounted = backend.mount(wanted)

        assert read(mounted.fd, "name") == "only"
        with pytest.raises(OSError, match="Read-only"):
            write(mounted.fd, "name", "other")
        assert enter(pid_of(namespace), "ls", f"{place}/box/rootfs") == "name\n"
        os.close(mounted.fd)
        backend.unmount(replace(wanted, layers=()))
        assert not backend.is_attached(wanted)


# -- how many


def test_500_layers_mount_in_the_namespaces_and_501_are_refused(run):
    run(mount_many)


def mount_many(place):
    layers = [layer(place / "layers" / f"{number}", {f"{number}": ""}) for number in range(501)]
    with held() as (overlay, _):
        mounted = overlay.mount(request(place / "box", *layers[:500], attach=False))
        with pytest.raises(RootfsError, match="500 layers at most, and these are 501"):
            overlay.mount(request(place / "more", *layers, attach=False))

        assert len(names_in(mounted.fd)) == 500
        os.close(mounted.fd)


def test_nothing_stays_open_or_mounted_in_either_process(run):
    run(go_round)


def go_round(place):
    layers = two_layers(place)
    numbers = iter(range(10_000))
    with held() as (overlay, namespace):

        def make_and_remove():
            wanted = request(place / f"{next(numbers)}", *layers, attach=bool(next(numbers) % 4))
            os.close(overlay.mount(wanted).fd)
            overlay.unmount(wanted)
            with pytest.raises(FileNotFoundError):
                overlay.mount(request(place / f"{next(numbers)}", *layers, type(layers[0])(f"{place}/missing", USER)))

        make_and_remove()
        opened = len(os.listdir(f"/proc/{namespace.pid}/fd")) if may_look_at(namespace.pid) else None
        before, after = descriptors_after(200, make_and_remove)

        assert before == after
        assert opened is None or len(os.listdir(f"/proc/{namespace.pid}/fd")) == opened
        assert f"{place}/" not in enter(pid_of(namespace), "cat", "/proc/self/mountinfo")


def may_look_at(pid: int | None) -> bool:
    return os.access(f"/proc/{pid}/fd", os.R_OK)


def test_threads_may_share_a_namespace(run):
    run(share)


def share(place):
    layers = two_layers(place)
    with held() as (overlay, _), ThreadPoolExecutor(4) as threads:

        def work(name):
            for number in range(20):
                wanted = request(place / f"{name}-{number}", *layers)
                mounted = overlay.mount(wanted)
                assert names_in(mounted.fd, "etc") == ["hosts"]
                os.close(mounted.fd)
                overlay.unmount(wanted)

        assert list(threads.map(work, "abcd")) == [None] * 4


# -- where


def test_a_target_gets_the_mount_in_the_namespaces_only(run):
    run(mount_at_target)


def mount_at_target(place):
    target = place / "target"
    target.mkdir()
    (target / "sub").mkdir()
    with held() as (overlay, namespace):
        wanted = request(place / "box", *two_layers(place), target=str(target))
        with pytest.raises(InvalidInputError, match="is not empty"):
            overlay.mount(wanted)
        (target / "sub").rmdir()

        os.close(overlay.mount(wanted).fd)

        assert os.listdir(target) == []
        assert enter(pid_of(namespace), "ls", str(target)).split() == ["etc", "kept", "new"]
        overlay.unmount(replace(wanted, layers=()))
        assert enter(pid_of(namespace), "ls", str(target)) == ""


def test_what_is_not_attached_is_found_by_its_descriptor_alone(run):
    run(mount_detached)


def mount_detached(place):
    with held() as (overlay, namespace):
        wanted = request(place / "box", *two_layers(place), attach=False)
        mounted = overlay.mount(wanted)

        assert names_in(mounted.fd) == ["etc", "kept", "new"]
        assert f"{place}/" not in enter(pid_of(namespace), "cat", "/proc/self/mountinfo")
        assert not overlay.is_attached(wanted)
        os.close(mounted.fd)


@pytest.mark.root
def test_what_the_process_sees_otherwise_is_refused(tmp_path):
    with_own_mounts(mount_after_start, tmp_path)


def mount_after_start(place):
    layers = two_layers(place / "disk")
    (place / "other").mkdir()
    with held() as (overlay, _):
        os.close(overlay.mount(request(place / "box", *layers)).fd)
        shutil.copytree(place / "disk", place / "other", dirs_exist_ok=True, ignore=lambda *_: ["gone"])
        source, target = (os.open(place / name, os.O_RDONLY) for name in ("other", "disk"))
        move_mount(clone_tree(source), target)

        with pytest.raises(RootfsError, match="is another directory in the namespace where it is to be mounted"):
            overlay.mount(request(place / "more", *layers))


# -- its end


def test_after_the_process_was_killed_descriptors_work_and_nothing_is_mounted(run):
    run(kill_it)


def kill_it(place):
    layers = two_layers(place)
    with held() as (overlay, namespace):
        wanted = request(place / "box", *layers)
        mounted = overlay.mount(wanted)
        first = pid_of(namespace)

        os.kill(first, signal.SIGKILL)
        wait_for_end(first)

        assert namespace.pid is None
        assert names_in(mounted.fd, "etc") == ["hosts"]
        write(mounted.fd, "etc/later", "later")
        assert (place / "box/upper/etc/later").read_text() == "later"
        assert not overlay.is_attached(wanted)
        overlay.unmount(wanted)
        again = overlay.mount(request(place / "again", *layers))
        assert again.namespace_pid == namespace.pid != first
        for one in (mounted, again):
            os.close(one.fd)


@contextmanager
def stopped(place):
    """Lend an overlay whose process has mounted something and is stopped, and the layers to mount more of."""
    layers = two_layers(place)
    with held() as (overlay, namespace):
        os.close(overlay.mount(request(place / "box", *layers)).fd)
        first = pid_of(namespace)
        os.kill(first, signal.SIGSTOP)
        yield overlay, namespace, layers, first


def test_when_a_process_ends_while_it_is_asked_another_one_is(run):
    run(kill_while_asked)


def kill_while_asked(place):
    with stopped(place) as (overlay, namespace, layers, first):
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(overlay.mount, request(place / "again", *layers))
            time.sleep(0.1)
            os.kill(first, signal.SIGKILL)
            mounted = answer.result(TIMEOUT)

        assert (mounted.namespace_pid, read(mounted.fd, "kept")) == (pid_of(namespace), "lower")
        assert mounted.namespace_pid != first
        os.close(mounted.fd)


def test_a_process_that_somebody_stopped_goes_on_when_it_is_asked(run):
    run(stop_while_asked)


def stop_while_asked(place):
    with stopped(place) as (overlay, _, layers, first):
        with ThreadPoolExecutor(1) as threads:
            mounted = threads.submit(overlay.mount, request(place / "again", *layers)).result(TIMEOUT)

        assert (mounted.namespace_pid, read(mounted.fd, "kept")) == (first, "lower")
        os.close(mounted.fd)
        os.kill(first, signal.SIGSTOP)  # and ends


def test_another_process_is_asked_when_one_says_what_is_no_message(run):
    run(have_it_say_what_is_no_message)


def have_it_say_what_is_no_message(place):
    garbage = "import os, sys; from pykka_imagestore.rootfs.namespace_wire import *; "
    garbage += "c = socket.socket(fileno=int(sys.argv[1])); send(c, pack({})); receive(c); send(c, pack({})); "
    garbage += "receive(c); send(c, b'[' * 100000)"
    script = place / "python"
    command = python or python_command()
    script.write_text(
        f"#!{command[0]}\nimport sys\nsys.path[:] = {sys.path!r}\nsys.argv = ['', *sys.argv[3:]]\n{garbage}\n"
    )
    script.chmod(0o755)
    commands = iter([[str(script)], command])
    namespace = Namespace(lambda: next(commands))
    overlay = InNamespace(Overlay(), namespace)

    with pytest.raises(RootfsError, match="the process that held the namespaces ended"):
        overlay.mount(request(place / "box", *two_layers(place)))
    mounted = overlay.mount(request(place / "again", *two_layers(place / "more")))

    assert read(mounted.fd, "kept") == "lower"
    os.close(mounted.fd)
    namespace.close()


def test_a_process_that_ends_and_has_no_successor_is_told_of(run):
    run(kill_the_only_one)


def kill_the_only_one(place):
    commands = iter([python or python_command(), ["/no/python"]])
    namespace = Namespace(lambda: next(commands))
    overlay = InNamespace(Overlay(), namespace)
    os.close(overlay.mount(request(place / "box", *two_layers(place))).fd)
    os.kill(pid_of(namespace), signal.SIGKILL)

    with pytest.raises(RootfsError, match=r"no process can be started that holds namespaces: .*No such file"):
        overlay.mount(request(place / "again", *two_layers(place / "more")))
    namespace.close()


def test_the_process_ends_when_it_is_closed(run):
    run(close_it)


def close_it(place):
    with held() as (overlay, namespace):
        os.close(overlay.mount(request(place / "box", *two_layers(place))).fd)
        watch = os.pidfd_open(pid_of(namespace))

        namespace.close()
        namespace.close()

        assert has_ended(watch)
        os.close(watch)


AGENT = """
    import os, sys, warnings
    from pathlib import Path
    sys.path[:0] = [sys.argv[1]]
    from test_namespace import held, request, two_layers

    warnings.simplefilter("ignore")
    place = Path(sys.argv[2])
    layers = two_layers(place)
    with held() as (overlay, namespace):
        os.close(overlay.mount(request(place / "box", *layers)).fd)
        print(namespace.pid, flush=True)
        child = os.fork() if sys.argv[3] != "alone" else None
        if child == 0 and sys.argv[3] == "mounts":
            os.close(overlay.mount(request(place / "childs", *layers)).fd)
            print(namespace.pid, overlay.is_attached(request(place / "box", *layers)), flush=True)
            namespace.close()
            os._exit(0)
        if child == 0:
            input()
            os._exit(0)
        if sys.argv[3] == "mounts":
            os.waitpid(child, 0)
            print(overlay.is_attached(request(place / "box", *layers)), flush=True)
        input()
"""


@pytest.mark.parametrize("child", ["alone", "waits"])
def test_the_process_ends_with_its_agent(tmp_path, child):
    """Also if a child of the agent has a copy of the socket."""
    with Program(AGENT, Path(__file__).parent, tmp_path, child) as agent:
        watch = os.pidfd_open(int(agent.line()))

        agent.kill()

        assert has_ended(watch)
        os.close(watch)


def test_a_forked_child_gets_a_process_of_its_own(tmp_path):
    with Program(AGENT, Path(__file__).parent, tmp_path, "mounts") as agent:
        pid = agent.line()

        childs, sees_parents = agent.line().split()

        assert childs != pid
        assert sees_parents == "False"
        assert agent.line() == "True"


def has_ended(watch: int) -> bool:
    return bool(select.select([watch], [], [], TIMEOUT)[0])


def wait_for_end(pid: int) -> None:
    watch = os.pidfd_open(pid)
    assert has_ended(watch)
    os.close(watch)


# -- other users

SUBORDINATES = ("/etc/subuid", "/etc/subgid")


@pytest.mark.root
def test_users_that_this_user_was_given_are_there_and_what_is_theirs_can_be_removed(tmp_path, run_as_ordinary_user):
    program = shutil.which("newuidmap")
    if program is None or not all(os.path.exists(path) for path in SUBORDINATES):
        pytest.skip("there is no newuidmap, or no /etc/subuid")
    if os.statvfs(program).f_flag & os.ST_NOSUID:
        pytest.skip("newuidmap has no effect here: its file system is mounted with nosuid")
    given = tmp_path / "given"
    given.write_text(f"someone:1:1\nbroken\n{ORDINARY_USER}:100000:1000\n{ORDINARY_USER}:300000:1000\n")
    with_own_mounts(give_users, given, run_as_ordinary_user)


def give_users(given: Path, run_as_ordinary_user: Callable[[Callable[[Path], object]], None]) -> None:
    for name in SUBORDINATES:
        subprocess.run(["mount", "--bind", given, name], check=True)
    run_as_ordinary_user(write_as_others)


def write_as_others(place):
    with held() as (overlay, namespace):
        wanted = request(place / "box", *two_layers(place))
        os.close(overlay.mount(wanted).fd)
        mapped = Path(f"/proc/{pid_of(namespace)}/uid_map").read_text().split()
        root = f"{place}/box/rootfs"
        enter(
            pid_of(namespace), "sh", "-c", f"cd {root} && mkdir theirs && touch theirs/file && chown -R 5:1001 theirs"
        )
        assert mapped == ["0", str(ORDINARY_USER), "1", "1", "100000", "1000", "1001", "300000", "1000"]
        assert (place / "box/upper/theirs").stat().st_gid == 300000
        assert (place / "box/upper/theirs").stat().st_uid == 100004

        namespace.close()
        overlay.unmount(wanted)

        assert os.listdir(place / "box") == []
