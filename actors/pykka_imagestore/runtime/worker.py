"""What runs in a worker process around a task, and what a task may call.

This module is imported by every worker, so it imports little.

A worker and its pool send each other messages through a pair of sockets, SOCK_SEQPACKET, so that each packet comes
whole or not at all. A message is a byte that tells its kind, the number of the task that it is about, eight bytes, and
a body. One that is larger than a packet is announced by a packet of the kind LARGE, with the size of what follows.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time

TYPE_CHECKING = False  # typing's takes longer to import than all of the above
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from pykka_imagestore.runtime.interfaces import Answers, Host

    A = TypeVar("A")
    R = TypeVar("R")

SETUP, TASK, MESSAGE = b"S", b"T", b"M"  # to a worker
HELLO, RESULT, ERROR, REPORT = b"H", b"R", b"E", b"N"  # from a worker
LARGE = b"L"
PACKET_BYTES = 1 << 16
LARGEST_REPORT_BYTES = 4096
NUMBER_BYTES = 8
FROZEN_MARK = "PYKKA_IMAGESTORE_WORKER"  # in the environment of a process that a frozen program starts as a worker

_NICENESS = 10  # workers may use every CPU, and the agent must still answer at once
_LONGEST_TEXT = 1 << 16


class MalformedError(ValueError):
    """A worker has sent what no worker sends: it may have been taken over."""


class PickledAnswers:
    """Workers send whatever can be pickled: they run nothing that might take them over."""

    most_bytes = 1 << 40

    def dump(self, value: object) -> bytes:
        """Return a value as bytes."""
        return pickle.dumps(value)

    def load(self, data: bytes) -> Any:
        """Return the value."""
        return pickle.loads(data)  # noqa: S301 - the pool's user trusts its own functions


class _Running(threading.local):
    """The engine that runs a task in this thread."""

    host: Host | None = None


_running = _Running()


def report(message: object) -> None:
    """Send ``message`` to whoever started the running task; dropped if it cannot be sent at once.

    Args:
        message: Small and picklable: 4 KiB at most. Where the engine has no way back, it goes nowhere.
    """
    if _running.host is not None:
        _running.host.report(message)


def receive(timeout: float | None = None) -> object:
    """Return the next message that was sent to the running task; see ``Messages``.

    Args:
        timeout: Seconds to wait; None waits until one comes.

    Raises:
        TimeoutError: None came; at once where the engine has no way to send any.
    """
    if _running.host is None:
        raise TimeoutError
    return _running.host.receive(timeout)


def raise_if_discarded() -> None:
    """Stop the running task if its future was discarded; call it between steps.

    Needed where the engine cannot kill a task. Where it can, this costs nothing.

    Raises:
        DiscardedError: Stop now, and leave nothing behind.
    """
    if _running.host is not None and _running.host.is_discarded():
        from pykka_imagestore.runtime.errors import DiscardedError  # noqa: PLC0415 - a worker never needs it

        raise DiscardedError


def run_hosted(host: Host, function: Callable[[A], R], argument: A) -> R:
    """Run a task in this thread, with what an engine offers it."""
    outer, _running.host = _running.host, host
    try:
        raise_if_discarded()
        return function(argument)
    finally:
        _running.host = outer


def wait_for(descriptor: int, deadline: float | None) -> bool:
    """Wait until there is something to read, or for ever if there is no deadline; tell whether there is."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    milliseconds = None if deadline is None else max(0, deadline - time.monotonic()) * 1000
    return bool(poll.poll(milliseconds))


# -- messages


def message(kind: bytes, number: int, body: bytes) -> bytes:
    """Return a message about a task."""
    return b"".join((kind, number.to_bytes(NUMBER_BYTES), body))


def packets(message: bytes) -> Iterator[bytes | memoryview]:
    """Return the packets that a message is sent in."""
    if len(message) <= PACKET_BYTES:
        yield message
        return
    yield LARGE + len(message).to_bytes(NUMBER_BYTES)
    view = memoryview(message)
    for start in range(0, len(view), PACKET_BYTES):
        yield view[start : start + PACKET_BYTES]


class Assembly:
    """Puts messages together from packets.

    Args:
        most_bytes: How large a message may be.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._missing = 0
        self._parts: list[bytes] = []

    def add(self, packet: bytes) -> bytes | None:
        """Take the next packet; return the message that it completes.

        Raises:
            MalformedError: It cannot be the next packet of anything.
        """
        if self._missing:
            self._missing -= len(packet)
            self._parts.append(packet)
            if self._missing > 0:
                return None
            parts, self._parts = self._parts, []
            if self._missing:
                msg = "it sent more than it had announced"
                raise MalformedError(msg)
            return b"".join(parts)
        if packet[:1] != LARGE:
            if len(packet) <= NUMBER_BYTES:
                msg = f"it sent {len(packet)} bytes that are no message"
                raise MalformedError(msg)
            return packet
        self._missing = int.from_bytes(packet[1:])
        if not PACKET_BYTES < self._missing <= self._most_bytes:
            msg = f"it announced {self._missing} bytes; {self._most_bytes} are the most"
            raise MalformedError(msg)
        return None


# -- the process


def main(descriptor: int) -> None:
    """Serve a pool at the other end of a socket, in a new process; never returns."""
    status = 1
    try:
        _open_standard_streams()
        os.set_inheritable(descriptor, False)
        with contextlib.suppress(EOFError, ConnectionError):  # the pool is gone, or does not want us any more
            _Worker(socket.socket(fileno=descriptor)).serve()
        status = 0
    except BaseException:  # noqa: BLE001 - it is told here, since nobody else is left to
        import traceback  # noqa: PLC0415 - most workers never need it

        traceback.print_exc()
    finally:
        os._exit(status)  # threads that tasks have left do not keep it


def main_frozen(connection: socket.socket) -> None:
    """Serve a pool of a frozen program, in a process that multiprocessing has started; never returns."""
    os.environ.pop(FROZEN_MARK, None)
    main(connection.detach())


class _Worker:
    """The worker's side: runs one task after the other, until the pool closes its end."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._assembly = Assembly(1 << 62)
        self._number = 0
        setup = pickle.loads(self._receive()[1 + NUMBER_BYTES :])  # noqa: S301 - from our own parent
        name, memory_limit_bytes, self._answers, parent = setup
        _prepare(name, memory_limit_bytes, parent)
        # A child that a task forks has nothing to say here, and must not read what is meant for us.
        os.register_at_fork(after_in_child=connection.close)
        self._send(HELLO, str(sys.implementation.cache_tag).encode())

    def serve(self) -> None:
        """Run tasks until there is nobody who could send another."""
        while True:
            packet = self._receive()
            if packet[:1] == TASK:  # else a message that came after its task had ended
                self._number = int.from_bytes(packet[1 : 1 + NUMBER_BYTES])
                kind, body = self._run(packet[1 + NUMBER_BYTES :])
                _flush_standard_streams()
                self._send(kind, body)

    # -- what a task is offered

    def report(self, message_: object) -> None:
        body = self._answers.dump(message_)
        if len(body) <= LARGEST_REPORT_BYTES:
            with contextlib.suppress(OSError):  # the pool is behind, and the next report tells more
                self._socket.send(message(REPORT, self._number, body), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def is_discarded(self) -> bool:
        return False  # then it is killed

    def receive(self, timeout: float | None) -> object:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if not wait_for(self._socket.fileno(), deadline):
                raise TimeoutError
            packet = self._receive()
            if int.from_bytes(packet[1 : 1 + NUMBER_BYTES]) == self._number:
                return pickle.loads(packet[1 + NUMBER_BYTES :])  # noqa: S301 - from our own parent

    # -- inside

    def _run(self, payload: bytes) -> tuple[bytes, bytes]:
        try:
            function, argument = _load_task(payload)
            return RESULT, self._dump_result(function, run_hosted(self, function, argument))
        except BaseException as error:  # noqa: BLE001 - it travels to whoever gets the future
            return ERROR, dump_error(self._answers, error)

    def _dump_result(self, function: Callable[[Any], Any], result: object) -> bytes:
        try:
            answers: Answers = self._answers
            return answers.dump(result)
        except Exception as error:
            msg = f"what {getattr(function, '__qualname__', function)} returned cannot be sent back: {error}"
            raise pickle.PicklingError(msg) from error

    def _receive(self) -> bytes:
        while True:
            # It waits here, and takes nothing: so a task that was sent to a process that had just been killed stays
            # unread, and the pool is told so by the kernel.
            self._socket.recv(1, socket.MSG_PEEK)
            packet = self._socket.recv(PACKET_BYTES)
            if not packet:
                raise EOFError
            complete = self._assembly.add(packet)
            if complete is not None:
                return complete

    def _send(self, kind: bytes, body: bytes) -> None:
        for packet in packets(message(kind, self._number, body)):
            self._socket.send(packet, socket.MSG_NOSIGNAL)


def dump_error(answers: Answers, error: BaseException) -> bytes:
    """Return an error, what it says, and where it was, as an answer; without the error if it would not survive."""
    import traceback  # noqa: PLC0415 - most workers never need it

    text = f"{type(error).__qualname__}: {error}"[:_LONGEST_TEXT]
    where = "".join(traceback.format_exception(error))[-_LONGEST_TEXT:].rstrip()
    try:
        if isinstance(error, Exception):
            data = answers.dump((error, text, where))
            if type(answers.load(data)[0]) is type(error):
                return data
    except Exception:  # noqa: BLE001, S110 - whatever a foreign class does when it is sent
        pass
    return answers.dump((None, text, where))


def load_result(answers: Answers, data: bytes) -> Any:
    """Return what a task has returned."""
    return answers.load(data)


def load_error(answers: Answers, data: bytes) -> Exception:
    """Return the error that a worker has sent, or one that says the same; its notes tell where it was."""
    answer = answers.load(data)
    if not (isinstance(answer, tuple) and len(answer) == 3):
        msg = "it sent an error that is none"
        raise MalformedError(msg)
    sent, text, where = answer
    error = sent if isinstance(sent, Exception) else RuntimeError(str(text))
    error.add_note(f"In the worker process:\n{where}")
    return error


def _load_task(payload: bytes) -> tuple[Callable[[Any], Any], Any]:
    try:
        return pickle.loads(payload)  # type: ignore[no-any-return]  # noqa: S301 - from our own parent
    except Exception as error:
        msg = (
            f"a worker process cannot load the task: {error}; the function and its argument may use only what "
            "modules define, not the program's script"
        )
        raise pickle.UnpicklingError(msg) from error


def _prepare(name: str, memory_limit_bytes: int | None, parent: int) -> None:
    """Set up this process as a worker: named, limited, killable, and never outliving its parent."""
    for number in (signal.SIGINT, signal.SIGHUP):  # they come to all of a terminal's processes: the parent decides
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:  # noqa: PTH123
        comm.write(name[:15])
    if memory_limit_bytes is not None:
        import resource  # noqa: PLC0415 - few pools have a limit

        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))
    os.nice(_NICENESS)
    _watch(parent)


def _watch(parent: int) -> None:
    """Have this process end when its parent does.

    The end of the socket does not tell: a child that the parent forked has a copy of the other end. Nor does
    PR_SET_PDEATHSIG serve: the signal comes when the thread ends that started us.
    """
    if os.getppid() not in (parent, 0):  # 0: the parent is outside of this PID namespace, and cannot be watched
        raise EOFError
    if os.getppid() == parent:
        descriptor = os.pidfd_open(parent)
        if os.getppid() != parent:  # then the number may be another's
            raise EOFError
        threading.Thread(target=_die_after, args=(descriptor,), name="parent-watch", daemon=True).start()


def _die_after(parent: int) -> None:
    wait_for(parent, None)
    os.kill(os.getpid(), signal.SIGKILL)


def _open_standard_streams() -> None:
    """See that descriptors 0 to 2 are open, and 0 is nobody's: a file that is opened must not become one of them."""
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
    except OSError:  # there is no /dev
        nothing = os.open("/", os.O_RDONLY)
    os.dup2(nothing, 0)
    for descriptor in (1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(nothing, descriptor)
    if nothing < 3:
        os.set_inheritable(nothing, True)
    else:
        os.close(nothing)


def _flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed by a task, or where it goes is gone
            stream.flush()
