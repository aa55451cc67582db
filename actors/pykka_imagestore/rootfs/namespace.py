"""Root file systems of an ordinary user: in a user namespace anybody may mount overlays, and see them there.

A helper process holds the namespaces, one for each ``Namespace``. It is started when it is first needed, and ends with
this process, or when it is closed. What it mounts is attached in its own mount namespace only; its descriptors work in
any. To enter it, and find the paths there:

    nsenter --preserve-credentials --user --mount --target PID

When the process ends, however it ends, so do its namespaces, and nothing is mounted at the paths any more. A descriptor
of a mount goes on working until it is closed, and what was written is in the container's directory.

Root in there is this user, and owns what the user owns. Other users and groups are there if /etc/subuid and /etc/subgid
give this user any, and newuidmap and newgidmap are installed; else files cannot be given to anybody.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import cast

from pykka_imagestore.core.rootfs import Reads, RootfsRequest
from pykka_imagestore.rootfs.backend import Backend, Mounted
from pykka_imagestore.rootfs.namespace_refusal import Obstacle, why_no_namespace
from pykka_imagestore.rootfs.namespace_wire import Message, pack, pack_request, parse_error, receive, send
from pykka_imagestore.rootfs.place import open_target
from pykka_imagestore.rootfs.refusals import refused
from pykka_imagestore.rootfs.subordinates import has_subordinates, map_subordinates

_START = (
    "import sys; sys.path[:] = sys.argv[3:]; from pykka_imagestore.rootfs.namespace_process import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]))"
)
_PATIENCE = 10  # seconds for the process to end by itself, and to go on if it was stopped
_LOOK_SECONDS = 1  # after which it is looked at why there is no answer


class NamespaceError(Exception):
    """No process holds the namespaces.

    Attributes:
        obstacle: Why, and what to do.
    """

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle)
        self.obstacle = obstacle


class Namespace:
    """A process that holds a user and a mount namespace; threads may share it.

    Args:
        python: Finds the command of a Python like this one, or raises a ``NamespaceError``.
    """

    def __init__(self, python: Callable[[], Sequence[str]]) -> None:
        self._python = python
        self._lock = threading.Lock()
        self._held: _Held | None = None

    @property
    def pid(self) -> int | None:
        """The process; None if it was not needed yet, or has ended."""
        held = self._held
        return held.pid if held is not None and held.is_alive() else None

    def ask(self, message: Message) -> tuple[Message, int | None, int]:
        """Return what the process answers, with the descriptor that came along, and the PID; starts the process.

        If it was there and has ended, or ends before it answers, another one is asked: nothing of it is mounted then.

        Raises:
            NamespaceError: It cannot be started, or it ended twice.
            WrongMessageError: The message is too long.
        """
        body = pack(message)
        with self._lock:
            was_there = self.pid is not None
            try:
                return self._ask(body)
            except NamespaceError:
                if not was_there:
                    raise
                return self._ask(body)

    def refusal(self) -> Obstacle | None:
        """Return why there can be no such process; None if there is one: starts it."""
        with self._lock:
            try:
                self._held = self._held_now()
            except NamespaceError as error:
                self._held = None
                return error.obstacle
        return None

    def close(self) -> None:
        """End the process, and with it whatever is mounted in its namespaces; idempotent."""
        with self._lock:
            held, self._held = self._held, None
            if held is not None:
                held.end()

    def _ask(self, body: bytes) -> tuple[Message, int | None, int]:
        held = self._held = self._held_now()
        try:
            return *held.ask(body), held.pid
        except (EOFError, OSError, RecursionError, ValueError) as error:  # it is gone, or what it says is no message
            self._held = None
            reason = f"the process that held the namespaces ended{held.end()}, and nothing is mounted there now"
            raise NamespaceError(Obstacle(reason, _LOST)) from error
        except BaseException:  # an interrupt: the answer is still to come, and would be taken for the next one's
            self._held = None
            held.end()
            raise

    def _held_now(self) -> _Held:
        held = self._held
        if held is not None and held.is_alive():
            return held
        if held is not None:
            held.end()
        return _Held(self._python())


_LOST = (
    "What was written is in the containers' directories, and descriptors of what was mounted work until they are "
    "closed; the next root file system starts another"
)


class InNamespace:
    """A backend that mounts in the namespaces of a helper process what this process may not mount in its own."""

    def __init__(self, backend: Backend, namespace: Namespace) -> None:
        self.name = backend.name
        self.reads = Reads.ANY if backend.reads is Reads.ANY else Reads.USER
        self.refusal = backend.refusal
        self.parts = backend.parts
        self._namespace = namespace

    def mount(self, request: RootfsRequest) -> Mounted:
        """Make the root file system; its path is one in the namespaces of the process.

        Raises:
            RootfsError: The kernel refused, or the process cannot be started.
            InvalidInputError: The target is no empty directory of this user's.
            OSError: A layer is not there, or the machine has no room.
        """
        _, descriptor, pid = self._ask("mount", request, _identities(request))
        assert descriptor is not None  # noqa: S101 - an answer without an error has one
        return Mounted(descriptor, None, pid)

    def unmount(self, request: RootfsRequest) -> None:
        """Detach the root file system; of a process that has ended nothing is mounted any more.

        Where there are other users in the namespaces, what was written is removed, too, since only there it can be.
        """
        if self._namespace.pid is not None or (not request.read_only and has_subordinates()):
            self._ask("unmount", request, {})

    def is_attached(self, request: RootfsRequest) -> bool:
        """Tell whether the root file system is still where ``mount`` attached it, in the namespaces."""
        return self._namespace.pid is not None and self._ask("is_attached", request, {})[0]["is_attached"] is True

    def _ask(self, what: str, request: RootfsRequest, seen: Message) -> tuple[Message, int | None, int]:
        message = {"do": what, "backend": self.name, "request": pack_request(request), "seen": seen}
        try:
            answer, descriptor, pid = self._namespace.ask(message)
        except NamespaceError as error:
            raise refused(self.name, request, str(error)) from error
        if "error" in answer:
            raise parse_error(answer["error"])
        return answer, descriptor, pid


class _Held:
    """A process that has made its namespaces."""

    def __init__(self, python: Sequence[str]) -> None:
        self._connection, theirs = socket.socketpair()
        self._connection.settimeout(None)  # whatever socket.setdefaulttimeout() says
        with theirs:
            # Above the standard streams, whose place it takes in a daemon that closed those.
            descriptor = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            command = [*python, "-c", _START, str(descriptor), str(os.getpid()), *_path()]
            self._process = subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, cwd="/")
        except OSError as error:
            self._connection.close()
            reason = f"no process can be started that holds namespaces: {error}"
            raise NamespaceError(Obstacle(reason, "Take the backend 'copy', or see to that")) from error
        finally:
            os.close(descriptor)
        self.pid = self._process.pid
        try:
            self._set_up()
        except BaseException:
            self.end()
            raise

    def ask(self, body: bytes) -> tuple[Message, int | None]:
        """Return the answer to a packed message, and the descriptor that came along."""
        send(self._connection, body, wait=self._wait)
        return receive(self._connection, self._wait)

    def is_alive(self) -> bool:
        """Tell whether the process is there, and this program's: in a forked child it is not."""
        return self._process.poll() is None

    def end(self) -> str:
        """End the process; return how it ended, as a part of a sentence."""
        self._connection.close()
        self._process.send_signal(signal.SIGCONT)  # it could not end while it is stopped
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f", killed by {signal.Signals(-code).name}" if code < 0 else ""

    def _wait(self, event: int) -> None:
        """Wait until the socket can be read or written; a process that somebody stopped goes on.

        What it does may take long, and is waited for. But whoever is root in there may stop it, or trace it.

        Raises:
            TimeoutError: It stays stopped.
        """
        poll = select.poll()
        poll.register(self._connection, event)
        stopped = 0
        while not poll.poll(_LOOK_SECONDS * 1000):
            stopped = stopped + 1 if _is_stopped(self.pid) else 0
            if stopped * _LOOK_SECONDS > _PATIENCE:
                raise TimeoutError
            if stopped:
                self._process.send_signal(signal.SIGCONT)

    def _set_up(self) -> None:
        try:
            answer, _ = receive(self._connection, self._wait)
            if "failed" not in answer:
                answer, _ = self.ask(pack({"mapped": map_subordinates(self.pid)}))
        except (EOFError, OSError) as error:
            remedy = "Its output is on this program's standard error"
            raise NamespaceError(Obstacle("the process that holds namespaces did not start", remedy)) from error
        if "failed" in answer:
            raise NamespaceError(why_no_namespace(answer["failed"], answer["number"]))


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):  # it has ended: the socket tells
        return False


def _identities(request: RootfsRequest) -> Message:
    """Return what this process sees at the paths of a request."""
    paths = {request.directory, *(layer.path for layer in request.layers)}
    seen = {path: os.stat(path) for path in paths}
    if request.attach and request.target is not None:
        target = open_target(request.target)
        try:
            seen[request.target] = os.fstat(target)
        finally:
            os.close(target)
    return {path: [status.st_dev, status.st_ino] for path, status in seen.items()}


def _path() -> Iterator[str]:
    """Yield where this process finds modules, for one in another directory."""
    for path in cast(list[object], sys.path):  # programs put anything there
        if isinstance(path, str) and "\0" not in path:
            with suppress(FileNotFoundError):  # the current directory was removed
                yield os.path.abspath(path)
