"""Other users and groups in a user namespace: those that /etc/subuid and /etc/subgid give this user.

To map them takes newuidmap and newgidmap, which are set-user-ID root: an ordinary process may map itself only.

Spec:
    user_namespaces(7), newuidmap(1), subuid(5).
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator

_PATIENCE = 10  # seconds


def has_subordinates() -> bool:
    """Tell whether this user was given users and groups, and may map them."""
    return None not in _map_commands(0)


def map_subordinates(pid: int) -> bool:
    """Map the users and groups that this user was given, if any; tell whether that was done."""
    commands = _map_commands(pid)
    # All or none: a map can be written once, so that the process could not map itself where only one was written.
    return None not in commands and all(map(_runs, filter(None, commands)))


def _map_commands(pid: int) -> list[list[str] | None]:
    return [_map_command(kind, pid, own) for kind, own in (("uid", os.geteuid()), ("gid", os.getegid()))]


def _map_command(kind: str, pid: int, own: int) -> list[str] | None:
    """Return the command that maps this user to root, and the users that it was given to the numbers from 1 on."""
    program, ranges = shutil.which(f"new{kind}map"), list(_ranges(f"/etc/sub{kind}"))
    if program is None or not ranges:
        return None
    command, first = [program, str(pid), "0", str(own), "1"], 1
    for start, count in ranges:
        command += [str(first), str(start), str(count)]
        first += count
    return command


def _ranges(path: str) -> Iterator[tuple[int, int]]:
    """Yield the ranges of users, or groups, that a file gives this user: the first, and how many."""
    names = {str(os.geteuid())}
    try:
        names.add(pwd.getpwuid(os.geteuid()).pw_name)
        with open(path, encoding="utf-8", errors="replace") as lines:
            found = [line.strip().split(":") for line in lines]
    except (KeyError, OSError):  # newuidmap refuses who has no account, too
        return
    for fields in found:
        if len(fields) == 3 and fields[0] in names and fields[1].isdecimal() and fields[2].isdecimal():
            yield int(fields[1]), int(fields[2])


def _runs(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
