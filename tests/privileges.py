"""Calls a function as somebody who may do less: in a process of its own, which reports back.

The function and its arguments are pickled; the process imports the function's module first, and drops its privileges
then, so that the Python in use need not be readable for everybody.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import pytest
from processes import TIMEOUT

R = TypeVar("R")

ORDINARY_USER = 65534
_RUN = """
import os, pickle, sys
sys.path[:], function, arguments, user, mask = pickle.loads(sys.stdin.buffer.read())
function, arguments = pickle.loads(function), pickle.loads(arguments)
os.umask(mask)
if user is not None:
    os.setgroups([]), os.setresgid(user, user, user), os.setresuid(user, user, user)
try:
    answer = True, function(*arguments)
except Exception as error:
    answer = False, error
sys.stdout.buffer.write(pickle.dumps(answer))
"""


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


def on_file_system(kind: str, options: str, folder: str, function: Callable[..., R], *arguments: Any) -> R:
    """Call ``function`` while ``folder`` is a file system of its own; what it wrote there is lost."""
    mount = 'mount -t "$0" -o "$1" none "$2" && shift 2 && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", mount, kind, options, folder)
    if not _works((*command, "true")):
        pytest.skip("this machine does not let us mount a file system")
    return _call(command, None, 0o022, function, arguments)


@cache
def ordinary_users_place() -> str:
    """Return a folder where what is his is within his reach; a run's own temporary folder may lie in a private one."""
    places = [tempfile.gettempdir(), "/dev/shm", "/var/tmp", "/tmp"]
    for place in places:
        if os.access(place, os.W_OK) and as_ordinary_user(os.access, place, os.X_OK):
            return place
    pytest.skip(f"an ordinary user reaches none of {', '.join(places)}")


def _call(
    command: Sequence[str], user: int | None, umask: int, function: Callable[..., R], arguments: tuple[Any, ...]
) -> R:
    # Pickled twice: the inner ones need sys.path to be set first.
    payload = pickle.dumps((sys.path, pickle.dumps(function), pickle.dumps(arguments), user, umask))
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
