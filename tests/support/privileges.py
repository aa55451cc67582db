"""Calls a function as somebody who may do less: in a process of its own, which reports back.

The function and its arguments are pickled; the process imports the function's module first, and what a store imports
once it is started, and drops its privileges then, so that the Python in use need not be readable for everybody.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.processes import TIMEOUT

import pykka_imagestore

R = TypeVar("R")

ORDINARY_USER = 65534
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10  # linux/fs.h
_RUN = """
import importlib, os, pickle, pkgutil, sys
sys.path[:], function, arguments, user, groups, mask, is_private = pickle.loads(sys.stdin.buffer.read())
function, arguments = pickle.loads(function), pickle.loads(arguments)
# The package imports these later.
import ctypes, gzip, hashlib, json, secrets, shutil, socket, subprocess, sysconfig, tempfile
from pykka_imagestore import tasks
from pykka_imagestore.jobs.answers import allowlist
for name in tasks.__all__:
    getattr(tasks, name)
if is_private:
    import pykka_imagestore
    for module in pkgutil.walk_packages(pykka_imagestore.__path__, "pykka_imagestore."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
os.umask(mask)
if user is not None:
    os.setgroups(groups), os.setresgid(user, user, user), os.setresuid(user, user, user)
try:
    answer = True, function(*arguments)
except Exception as error:
    answer = False, error
sys.stdout.buffer.write(pickle.dumps(answer))
"""
_IN_NAMESPACE = """
import ctypes, os, sys
ready, is_ready = os.pipe()
mapped, is_mapped = os.pipe()
child = os.fork()
if child == 0:
    os.close(is_mapped)
    if ctypes.CDLL(None).unshare(0x10000000) == 0 and os.write(is_ready, b"x") and os.read(mapped, 1):
        os.execvp(sys.argv[1], sys.argv[1:])
    os._exit(1)
os.close(is_ready)
if os.read(ready, 1):
    for kind in ("uid", "gid"):
        open(f"/proc/{child}/{kind}_map", "w").write("0 0 65536")
    os.write(is_mapped, b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def call_each(function: Callable[..., R], *arguments: Iterable[Any]) -> list[R]:
    """Return what ``map`` does, as a list: several calls in one process, which takes longer to start than most."""
    return list(map(function, *arguments))


def as_ordinary_user(function: Callable[..., R], *arguments: Any) -> R:
    """Call ``function`` without root's privileges; as whoever runs the tests if that is not root."""
    return _call([], ORDINARY_USER if os.geteuid() == 0 else None, 0o022, function, arguments)


def with_umask(umask: int, function: Callable[..., R], *arguments: Any) -> R:
    """Call ``function`` with another umask."""
    return _call([], None, umask, function, arguments)


def in_user_namespace(function: Callable[..., R], *arguments: Any) -> R:
    """Call ``function`` as a root who is none outside, and to whom only his own id is mapped."""
    command = ("unshare", "--user", "--map-root-user")
    if not _works((*command, "true")):
        pytest.skip("this machine does not let a process make a user namespace")
    return _call(command, None, 0o022, function, arguments)


def in_own_namespaces(function: Callable[..., R], *arguments: Any) -> R:
    """Call ``function`` as ``in_user_namespace`` does, where it may mount what that lets it."""
    command = ("unshare", "--user", "--map-root-user", "--mount")
    if not _works((*command, "true")):
        pytest.skip("this machine does not let a process make a user namespace")
    return _call(command, None, 0o022, function, arguments)


def with_capabilities(bounds: str, function: Callable[..., R], *arguments: Any, mapped: bool = False) -> R:
    """Call ``function`` as a root with some capabilities only.

    Args:
        bounds: Which, as setpriv(1) has it: ``-all,+chown``.
        mapped: Whether to do so in a user namespace that has all users.
    """
    command: tuple[str, ...] = ("setpriv", f"--bounding-set={bounds}", "--inh-caps=-all")
    if not _works((*command, "true")):
        pytest.skip("this machine does not let a process give up capabilities")
    if mapped:
        command = (sys.executable, "-c", _IN_NAMESPACE, *command)
        if not _works((*command, "true")):
            pytest.skip("this machine does not let a process make a user namespace")
    return _call(command, None, 0o022, function, arguments)


def with_groups(groups: Sequence[int], function: Callable[..., R], *arguments: Any) -> R:
    """Call ``function`` as an ordinary user who is in some groups."""
    return _call([], ORDINARY_USER, 0o022, function, arguments, groups)


def with_own_mounts(function: Callable[..., R], *arguments: Any) -> R:
    """Call ``function`` where what it mounts is seen by nobody else, and goes with it."""
    command = ("unshare", "--mount", "--propagation", "private")
    if not _works((*command, "mount", "--bind", "/", "/mnt")):
        pytest.skip("this machine does not let us mount a file system")
    return _call(command, None, 0o022, function, arguments)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Make a file or a directory immutable for a while, for root too, wherever it is moved."""
    file = os.open(path, os.O_RDONLY)
    try:
        flags = _change_flags(file, lambda flags: flags | _IMMUTABLE)
        try:
            yield
        finally:
            _change_flags(file, lambda _: flags)
    finally:
        os.close(file)


def _change_flags(file: int, change: Callable[[int], int]) -> int:
    flags = array("l", [0])
    try:
        fcntl.ioctl(file, _GET_FLAGS, flags)
        fcntl.ioctl(file, _SET_FLAGS, array("l", [change(flags[0])]))
    except OSError:
        pytest.skip("this file system, or this machine, has no immutable files")
    return flags[0]


def on_file_system(kind: str, options: str, directory: str, function: Callable[..., R], *arguments: Any) -> R:
    """Call ``function`` while ``directory`` is a file system of its own; what it wrote there is lost."""
    mount = 'mount -t "$0" -o "$1" none "$2" && shift 2 && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", mount, kind, options, directory)
    if not _works((*command, "true")):
        pytest.skip("this machine does not let us mount a file system")
    return _call(command, None, 0o022, function, arguments)


@cache
def ordinary_users_place() -> str:
    """Return a directory where what is his is within his reach; a run's own may lie in a private one."""
    places = [tempfile.gettempdir(), "/dev/shm", "/var/tmp", "/tmp"]
    for place in places:
        if os.access(place, os.W_OK) and as_ordinary_user(os.access, place, os.X_OK):
            return place
    pytest.skip(f"an ordinary user reaches none of {', '.join(places)}")


def _call(
    command: Sequence[str],
    user: int | None,
    umask: int,
    function: Callable[..., R],
    arguments: tuple[Any, ...],
    groups: Sequence[int] = (),
) -> R:
    # Pickled twice: the inner ones need sys.path to be set first.
    inner = pickle.dumps(function), pickle.dumps(arguments)
    payload = pickle.dumps((sys.path, *inner, user, list(groups), umask, _is_package_private()))
    done = subprocess.run(
        [*command, sys.executable, "-c", _RUN], input=payload, capture_output=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    succeeded, answer = pickle.loads(done.stdout)
    if not succeeded:
        raise answer
    return answer


@cache
def _works(command: Sequence[str]) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0
    )


@cache
def _is_package_private() -> bool:
    """Tell whether the package lies where others may not enter, as below /root: then all of it is imported before."""
    return not all(above.stat().st_mode & stat.S_IXOTH for above in Path(pykka_imagestore.__file__).parents)
