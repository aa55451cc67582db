"""The process that holds a user and a mount namespace for an agent, and mounts in there what the agent asks for.

A process that has threads cannot make a user namespace, and an agent has many. So this one does, and never has any.

The kernel takes no directory as a layer that was opened in another mount namespace: its descriptor would be worth
nothing here. So each is found by its path once more, and has to be the one that the agent sees there.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from pykka_imagestore.core.paths import ROOTFS, UPPER, WORK
from pykka_imagestore.errors import NotRemovedError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.rootfs.bind import Bind
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.link import Link
from pykka_imagestore.rootfs.namespace_wire import (
    Message,
    pack,
    pack_error,
    parse_request,
    parse_trial,
    receive,
    send,
)
from pykka_imagestore.rootfs.overlay import Overlay
from pykka_imagestore.rootfs.overlay_trial import try_overlay
from pykka_imagestore.rootfs.refusals import refused
from pykka_imagestore.rootfs.system_calls import check, libc

if TYPE_CHECKING:
    from pykka_imagestore.core.rootfs import RootfsRequest

NAME = "imagestore-ns"  # in the list of processes; 15 bytes at most
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x20000  # linux/sched.h

BACKENDS = {backend.name: backend for backend in (Overlay(), Bind(), Link(), Copy())}


def main(descriptor: int, parent: int) -> None:
    """Serve the agent at the other end of a socket until that is closed, or the agent ends; never returns.

    Args:
        parent: The agent.
    """
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all its processes: the agent decides
            signal.signal(number, signal.SIG_IGN)
        with suppress(OSError), open("/proc/self/comm", "w") as comm:
            comm.write(NAME)
        with socket.socket(fileno=descriptor) as connection, suppress(EOFError, ConnectionError):
            connection.setblocking(True)
            watch = _watch(parent)
            others = _enter(connection)
            if others is not None:
                _serve(connection, watch, has_others=others)
        status = 0
    except BaseException:  # noqa: BLE001 - printed here, since there is nothing left to send it to
        import traceback  # noqa: PLC0415 - seldom needed

        traceback.print_exc()
    finally:
        os._exit(status)


def _watch(parent: int) -> int | None:
    """Return what becomes readable when the agent ends; None if it is outside of this PID namespace.

    The socket does not always tell, since a child that the agent forked has a copy of its end. PR_SET_PDEATHSIG would
    send its signal when the thread ends that started this process.
    """
    if os.getppid() != parent:
        if os.getppid() == 0:
            return None
        raise EOFError
    watch = os.pidfd_open(parent)
    if os.getppid() != parent:  # it has ended, and the number may be another process'
        raise EOFError
    return watch


def _enter(connection: socket.socket) -> bool | None:
    """Make the namespaces, and have users mapped; return whether there are others than root, or None if it failed."""
    user, group = os.geteuid(), os.getegid()
    what = "unshare"
    try:
        check(what, libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))  # Python has it since 3.12
        send(connection, pack({"unshared": True}))
        has_others: bool = receive(connection)[0]["mapped"]
        if not has_others:
            what = "a write of uid_map"
            _map(user, group)
    except OSError as error:
        send(connection, pack({"failed": what, "number": error.errno}))
        return None
    send(connection, pack({"ready": True}))
    return has_others


def _map(user: int, group: int) -> None:
    """Have root in here be the user who started it: one user and one group is what anybody may map."""
    for name, text in (("setgroups", "deny"), ("gid_map", f"0 {group} 1"), ("uid_map", f"0 {user} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _serve(connection: socket.socket, watch: int | None, *, has_others: bool) -> None:
    poll = select.poll()
    for descriptor in (connection.fileno(), *(() if watch is None else (watch,))):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if watch in ready:
            return
        message, _ = receive(connection)
        answer, descriptor = _answer(message, has_others=has_others)
        try:
            send(connection, pack(answer), [] if descriptor is None else [descriptor])
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _answer(message: Message, *, has_others: bool) -> tuple[Message, int | None]:
    try:
        if message["do"] == "try":
            try_overlay(parse_trial(message["trial"]))
            return {}, None
        request = parse_request(message["request"])
        _require_same(request, message["backend"], message["seen"])
        answer = _DOES[message["do"]](message["backend"], request)
        if has_others and message["do"] == "unmount" and not request.read_only:
            _remove_written(request)
        return answer
    except Exception as error:  # noqa: BLE001 - what is mounted already is to outlive it
        return {"error": pack_error(error)}, None


def _mount(backend: str, request: RootfsRequest) -> tuple[Message, int | None]:
    return {}, BACKENDS[backend].mount(request).fd


def _unmount(backend: str, request: RootfsRequest) -> tuple[Message, int | None]:
    BACKENDS[backend].unmount(request)
    return {}, None


def _remove_written(request: RootfsRequest) -> None:
    """Remove what was written: outside, nobody but root may remove what belongs to the other users in here."""
    for name in (UPPER, WORK, ROOTFS):
        with suppress(NotRemovedError):  # told by the agent, which goes on with it
            remove_tree(f"{request.directory}/{name}")


def _is_attached(backend: str, request: RootfsRequest) -> tuple[Message, int | None]:
    return {"is_attached": BACKENDS[backend].is_attached(request)}, None


_DOES: dict[str, Callable[[str, RootfsRequest], tuple[Message, int | None]]] = {
    "mount": _mount,
    "unmount": _unmount,
    "is_attached": _is_attached,
}


def _require_same(request: RootfsRequest, backend: str, seen: dict[str, list[int]]) -> None:
    """Check that what has a path here is what the agent sees there: it may have mounted something since."""
    for path, identity in seen.items():
        status = os.stat(path)
        if [status.st_dev, status.st_ino] != identity:
            reason = (
                f"{path} is another directory in the namespace where it is to be mounted, since something was mounted "
                "there after that was made; close the Provisioner, and start another"
            )
            raise refused(backend, request, reason)
