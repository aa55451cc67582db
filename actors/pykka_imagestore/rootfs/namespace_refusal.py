"""Why a user namespace cannot be made here, and who can change that: distributions forbid it in ways of their own."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

_SYSCTLS = "/proc/sys"
_DEBIANS = "kernel/unprivileged_userns_clone"
_UBUNTUS = "kernel/apparmor_restrict_unprivileged_userns"
_LIMITS = ("user/max_user_namespaces", "user/max_mnt_namespaces")
_STATUS = "/proc/self/status"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands in the way.

    Attributes:
        reason: What it is.
        remedy: Who can change it, and how; empty if the reason says it.
    """

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}. {self.remedy}" if self.remedy else self.reason


def why_no_namespace(what: str, number: int, sysctls: str = _SYSCTLS) -> Obstacle:
    """Return why a call that makes a user namespace failed.

    Args:
        what: The call.
        number: The errno.
        sysctls: Where the kernel's settings are.
    """
    failed = f"no user namespace can be made here ({what}: {os.strerror(number)})"
    for found in (_of_limits(number, sysctls), _of_debian(sysctls), _of_ubuntu(sysctls), _of_filter()):
        if found is not None:
            return Obstacle(f"{failed}: {found.reason}", found.remedy)
    return Obstacle(failed, "Take the backend 'copy', or run as root")


def _of_limits(number: int, sysctls: str) -> Obstacle | None:
    for name in _LIMITS:
        limit = _read(f"{sysctls}/{name}")
        if limit == "0" or (number == errno.ENOSPC and limit):
            return Obstacle(f"{_dotted(name)} is {limit}", "Root can raise it with sysctl")
    return None


def _of_debian(sysctls: str) -> Obstacle | None:
    if _read(f"{sysctls}/{_DEBIANS}") != "0":
        return None
    reason = f"{_dotted(_DEBIANS)} is 0, as Debian has it where users are not to make any"
    return Obstacle(reason, "Root can set it to 1 with sysctl")


def _of_ubuntu(sysctls: str) -> Obstacle | None:
    if _read(f"{sysctls}/{_UBUNTUS}") in (None, "0"):
        return None
    return Obstacle(
        f"{_dotted(_UBUNTUS)} is set, as Ubuntu has it since 24.04",
        "Root can set it to 0 with sysctl, or give this program an AppArmor profile that allows userns",
    )


def _of_filter() -> Obstacle | None:
    if "Seccomp:\t2" not in (_read(_STATUS) or ""):
        return None
    return Obstacle(
        "a filter of system calls is set for this process, as container runtimes do",
        "Who starts the container can allow unshare and mount, such as with --security-opt seccomp=unconfined",
    )


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def _dotted(name: str) -> str:
    return name.replace("/", ".")
