"""Why no user namespace can be made, told so that somebody can change it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from support.processes import SOURCES, TIMEOUT
from support.rootfs import namespace_of

from pykka_imagestore.provision.backends import new_namespace
from pykka_imagestore.rootfs.namespace import NamespaceError
from pykka_imagestore.rootfs.namespace_refusal import why_no_namespace


@pytest.fixture
def settings(tmp_path):
    """Return what writes the kernel's settings into a directory."""

    def write(**values):
        for name, value in values.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{value}\n")
        return str(tmp_path)

    return write


def test_the_kernels_limit_is_named(settings):
    sysctls = settings(user__max_user_namespaces=0)

    told = str(why_no_namespace("unshare", errno.ENOSPC, sysctls))

    assert told == (
        "no user namespace can be made here (unshare: No space left on device): user.max_user_namespaces is 0. "
        "Root can raise it with sysctl"
    )


def test_a_limit_that_is_used_up_is_named(settings):
    sysctls = settings(user__max_user_namespaces=100, user__max_mnt_namespaces=100)

    assert "user.max_user_namespaces is 100. Root" in str(why_no_namespace("unshare", errno.ENOSPC, sysctls))


def test_a_limit_of_mount_namespaces_is_named(settings):
    sysctls = settings(user__max_user_namespaces=100, user__max_mnt_namespaces=0)

    assert "user.max_mnt_namespaces is 0. Root" in str(why_no_namespace("unshare", errno.EPERM, sysctls))


def test_debians_setting_is_named(settings):
    sysctls = settings(user__max_user_namespaces=100, kernel__unprivileged_userns_clone=0)

    told = str(why_no_namespace("unshare", errno.EPERM, sysctls))

    assert "kernel.unprivileged_userns_clone is 0, as Debian has it" in told


def test_ubuntus_setting_is_named(settings):
    sysctls = settings(kernel__unprivileged_userns_clone=1, kernel__apparmor_restrict_unprivileged_userns=1)

    told = str(why_no_namespace("a write of uid_map", errno.EACCES, sysctls))

    assert "(a write of uid_map: Permission denied): kernel.apparmor_restrict_unprivileged_userns is set, as" in told
    assert "AppArmor profile" in told


def test_a_setting_that_forbids_nothing_is_not_named(settings):
    sysctls = settings(
        kernel__unprivileged_userns_clone=1,
        kernel__apparmor_restrict_unprivileged_userns=0,
        user__max_user_namespaces=100,
    )

    told = str(why_no_namespace("unshare", errno.EPERM, sysctls))

    assert told == (
        "no user namespace can be made here (unshare: Operation not permitted). Take the backend 'copy', or run as root"
    )


UNDER_A_LIMIT = """
open("/proc/sys/user/max_user_namespaces", "w").write("0")
from pykka_imagestore.provision.backends import new_namespace
from pykka_imagestore.rootfs.namespace import NamespaceError
try:
    new_namespace().ask({})
except NamespaceError as error:
    print(error)
"""
UNDER_A_FILTER = """
import ctypes, errno, struct
from pykka_imagestore.provision.backends import new_namespace
from pykka_imagestore.rootfs.namespace import NamespaceError
# If the call is unshare, 272 on x86-64, answer EPERM; else allow it.
program = [(0x20, 0, 0, 0), (0x15, 0, 1, 272), (0x06, 0, 0, 0x00050000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter) == 0
try:
    new_namespace().ask({})
except NamespaceError as error:
    print(error)
"""


def run(program: str, *command: str) -> str:
    return run_python([], program, *command)


def run_python(options: list[str], program: str, *command: str) -> str:
    program = f"import sys; sys.path[:0] = {[str(path) for path in SOURCES]}\n{program}"
    done = subprocess.run(
        [*command, sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_limit_of_the_kernels_is_met_and_told():
    unshare = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a user namespace")

    assert "(unshare: No space left on device): user.max_user_namespaces is 0" in run(UNDER_A_LIMIT, *unshare)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter is written for x86-64")
def test_a_filter_of_system_calls_is_met_and_told():
    told = run(UNDER_A_FILTER)

    assert "(unshare: Operation not permitted): a filter of system calls is set for this process" in told


def test_a_frozen_program_is_told_to_name_a_python(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    with pytest.raises(NamespaceError, match="a frozen program has no Python to start a process with"):
        new_namespace().ask({})


OPTIONS = """
from pykka_imagestore.provision.backends import new_namespace
namespace = new_namespace()
print(namespace.refusal())
print(*open(f"/proc/{namespace.pid}/cmdline").read().split("\\0")[1:6])
namespace.close()
"""


@pytest.mark.parametrize("option", ["E", "s", "S", "B"])
def test_the_process_has_the_options_of_its_program(option):
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a user namespace")

    refusal, options = run_python([f"-{option}"], OPTIONS).splitlines()

    assert refusal == "None"
    assert options.split()[:2] == ["-P", f"-{option}"]


def test_a_python_that_is_not_there_is_told():
    with pytest.raises(NamespaceError, match=r"no process can be started that holds namespaces: .*No such file"):
        namespace_of(["/no/python"]).ask({})


def test_a_python_that_does_not_start_is_told(capfd):
    with pytest.raises(NamespaceError, match=r"did not start\. Its output is on this program's standard error"):
        namespace_of(["/bin/sh", "-c", "echo no >&2; exit 1"]).ask({})
    assert capfd.readouterr().err == "no\n"
