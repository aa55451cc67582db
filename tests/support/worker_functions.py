"""Functions that the tests run in worker processes, and how a test meets a worker in the middle of one."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import stat
import sys
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from pykka_imagestore.runtime import DiscardedError, raise_if_discarded, receive, report


class Rendezvous:
    """Where workers that run ``wait_for(rendezvous.address)`` wait for an answer."""

    def __init__(self) -> None:
        self.address = f"\0{uuid.uuid4()}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(20)
        self._listener.bind(self.address)
        self._listener.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self._listener.close()

    def next(self) -> Worker:
        connection, _ = self._listener.accept()
        return Worker(connection)


class Worker:
    """A worker that waits in the middle of its task."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        with connection.makefile() as lines:
            self.pid = int(lines.readline())
        self._pidfd = os.pidfd_open(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self._connection.close()
        os.close(self._pidfd)

    def answer(self, text: str) -> None:
        self._connection.sendall(text.encode() + b"\n")

    def kill(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def is_gone(self, timeout: float = 0) -> bool:
        """Tell whether the process has ended, or does within ``timeout`` seconds."""
        return bool(select.select([self._pidfd], [], [], timeout)[0])


def wait_for(address: str) -> str:
    """Send the pid to the test, and return its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(b"%d\n" % os.getpid())
        with connection.makefile() as lines:
            return lines.readline().strip()


def double(number: int) -> int:
    return 2 * number


def pid_of(_: object) -> int:
    return os.getpid()


def name_of(_: object) -> str:
    with open("/proc/self/comm") as comm:
        return comm.read().strip()


def streams_of(_: object) -> list[str]:
    """Return what descriptors 0 to 2 are."""
    return [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in range(3)]


def search_path(_: object) -> list[str]:
    return sys.path


def receive_until_end(address: str) -> list[Any]:
    """Meet the test; return all messages up to ``end``."""
    wait_for(address)
    received = []
    while (message := receive(timeout=60)) != "end":
        received.append(message)
    return received


def receive_soon(seconds: float) -> object:
    return receive(timeout=seconds)


def send_packets(packets: list[bytes]) -> str:
    """Send packets through the worker's socket, as an attacker who took it over could."""
    for descriptor in _sockets():
        os.set_blocking(descriptor, True)
        with suppress(OSError):
            for packet in packets:
                os.write(descriptor, packet)
    return "sent"


def send_without_end(request: tuple[bytes, int]) -> None:
    """Send a packet again and again, as fast as possible, here and in children that outlive this process."""
    packet, children = request
    (descriptor,) = _sockets()
    os.set_blocking(descriptor, True)
    for _ in range(children):
        if ctypes.CDLL(None).fork() == 0:  # Python does not know of it, and closes nothing
            break
    with suppress(OSError):  # nobody is at the other end any more
        while True:
            os.write(descriptor, packet)
    os._exit(0)


def _sockets() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.append(int(name))
    return found


class RunsCode:
    """A pickle of this makes a directory where it is loaded."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self._path,)


def answer_with_code(path: str) -> object:
    return RunsCode(path)


def report_code(path: str) -> str:
    report(RunsCode(path))
    return "reported"


def fail_with(error: BaseException) -> None:
    raise error


def raise_system_exit(code: int) -> None:
    sys.exit(code)


def exit_with(code: int) -> None:
    os._exit(code)


def kill_self(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_the_first_time(path: str) -> str:
    """Die, unless the file exists, which means that this is the second attempt."""
    if os.path.exists(path):
        return "second time"
    with open(path, "x"):
        kill_self(None)
    raise AssertionError


def fail_the_first_time(path: str) -> None:
    """As ``die_the_first_time``, but with an error."""
    if not os.path.exists(path):
        with open(path, "x"):
            raise LookupError("the first time")


def report_all_then_wait(request: tuple[Sequence[object], str]) -> str:
    messages, address = request
    for message in messages:
        report(message)
    return wait_for(address)


def report_between_two_meetings(request: tuple[int, str]) -> str:
    """Meet the test, report so many numbers, and meet it again."""
    count, address = request
    wait_for(address)
    for number in range(count):
        report(number)
    return wait_for(address)


def report_more_than_the_socket_holds(_: object) -> int:
    for number in range(1000):
        report(b"%4d" % number * 1000)
    return 1000


def report_in_forked_children(_: object) -> tuple[int, object]:
    """Report in a child and in a child of that; return the exit status of both, and what the child receives."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            files = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]  # one gets the number of the worker's socket
            grandchild = os.fork()
            report("from a child")
            with suppress(TimeoutError):
                os.write(theirs, repr(receive(timeout=0)).encode())
            for file in files:
                os.close(file)
            status = 0 if grandchild == 0 else os.waitpid(grandchild, 0)[1]
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    os.close(theirs)
    report("from the task")
    with open(ours) as received:
        return status, received.read()


def allocate(size_bytes: int) -> int:
    return len(bytearray(size_bytes))


def return_lock(_: object) -> object:
    return threading.Lock()


class TwoArgumentsError(Exception):
    """Cannot be unpickled: it would be made again with one argument."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def report_what_cannot_be_unpickled(_: object) -> str:
    report(TwoArgumentsError("this", "that"))
    return "reported"


def raise_what_cannot_be_unpickled(_: object) -> None:
    raise TwoArgumentsError("this", "that")


class HoldsALockError(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def raise_what_cannot_be_pickled(_: object) -> None:
    raise HoldsALockError


def work_until_discarded(events: tuple[threading.Event, threading.Event]) -> None:
    """Look for a discard without pause; set one event at the beginning, and the other when stopped."""
    begun, stopped = events
    begun.set()
    try:
        while True:
            raise_if_discarded()
    except DiscardedError:
        stopped.set()
        raise


def set_and_wait(events: tuple[threading.Event, threading.Event]) -> str:
    begun, go_on = events
    begun.set()
    if not go_on.wait(300):
        raise TimeoutError
    return "done"
