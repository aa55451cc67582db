"""What runs in a worker process around a task, and what a task may call.

Every worker imports this module before its first task, so it imports little: no ``socket``, which takes 3 ms.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import threading
import time

from pykka_imagestore.runtime import wire

TYPE_CHECKING = False  # importing typing for it takes longer than all of the above
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any, TypeVar

    from pykka_imagestore.runtime.interfaces import Answers, Host

    A = TypeVar("A")
    R = TypeVar("R")

FROZEN_MARK = "PYKKA_IMAGESTORE_WORKER"  # in the environment of a process that a frozen program starts as a worker

_NICENESS = 10  # workers may use every CPU, and the program must still answer at once
_MAX_TEXT = 1 << 16
_MAX_WAIT_MS = (1 << 31) - 1  # 24 days; poll(2) refuses more


class PickledAnswers:
    """Workers may send anything that can be pickled. For tasks that read only trusted input."""

    max_bytes = 1 << 40

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
    """Send ``message`` to the running task's ``on_report``; dropped if it cannot be sent at once.

    Args:
        message: Picklable, and 4 KiB at most. It is dropped where the engine has no way back.
    """
    if _running.host is not None:
        _running.host.report(message)


def receive(timeout: float | None = None) -> object:
    """Return the next message that was sent to the running task; see ``Messages``.

    Args:
        timeout: Seconds to wait; None waits for ever.

    Raises:
        TimeoutError: No message came in time. Where the engine has no way to send any, it is raised at once.
    """
    if _running.host is None:
        raise TimeoutError
    return _running.host.receive(timeout)


def raise_if_discarded() -> None:
    """Raise DiscardedError if the running task's future was discarded; call it between steps.

    It matters where the engine cannot kill a task. Where it can, this costs nothing.

    Raises:
        DiscardedError: The task has to stop now, and to leave nothing behind.
    """
    if _running.host is not None and _running.host.is_discarded():
        from pykka_imagestore.runtime.errors import DiscardedError  # noqa: PLC0415 - a worker never needs it

        raise DiscardedError


def run_hosted(host: Host, function: Callable[[A], R], argument: A) -> R:
    """Run a task in this thread; ``report`` and the like use ``host`` meanwhile."""
    outer, _running.host = _running.host, host
    try:
        raise_if_discarded()
        return function(argument)
    finally:
        _running.host = outer


def wait_for(descriptor: int, deadline: float | None, event: int = select.POLLIN) -> bool:
    """Wait until the descriptor is readable, or the deadline has passed if there is one; return whether it is.

    Args:
        event: What to wait for instead, such as ``select.POLLOUT``.
    """
    poll = select.poll()
    poll.register(descriptor, event)
    milliseconds = None if deadline is None else max(0, deadline - time.monotonic()) * 1000
    return bool(poll.poll(milliseconds and min(_MAX_WAIT_MS, milliseconds)))


# -- the process


def main(descriptor: int) -> None:
    """Serve a pool at the other end of a socket, in a new process; never returns."""
    try:
        _open_standard_streams()
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)
        with contextlib.suppress(EOFError, ConnectionError):  # the pool is gone, or needs this worker no more
            _Worker(descriptor).serve()
    except BaseException:  # noqa: BLE001 - printed here, since there is nothing left to send it to
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)  # which ends threads that tasks have left behind


def main_frozen(connection: socket.socket) -> None:
    """Serve a pool of a frozen program, in a process that multiprocessing has started; never returns."""
    os.environ.pop(FROZEN_MARK, None)
    main(connection.detach())


class _Worker:
    """Runs one task after the other until the pool closes its end of the socket pair."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reassembler = wire.Reassembler(1 << 62)
        self._number = 0
        _, _, setup = self._receive()
        name, memory_limit_bytes, self._answers, parent = pickle.loads(setup)  # noqa: S301 - from our own parent
        _prepare(name, memory_limit_bytes)
        _end_with(parent)
        os.register_at_fork(after_in_child=self._leave)
        self._send(wire.HELLO, str(sys.implementation.cache_tag).encode())

    def serve(self) -> None:
        """Run tasks until the pool is gone."""
        while True:
            kind, number, body = self._receive()
            if kind == wire.TASK:  # else a message that came after its task had ended
                self._number = number
                answer = self._run(body)
                _flush_standard_streams()
                self._send(*answer)

    # -- what a task is offered

    def report(self, message: object) -> None:
        body = self._answers.dump(message)
        if len(body) <= wire.MAX_REPORT_BYTES:
            with contextlib.suppress(OSError):  # the socket is full: the next report tells more
                os.write(self._descriptor, wire.message(wire.REPORT, self._number, body))

    def is_discarded(self) -> bool:
        return False  # a discard kills the process

    def receive(self, timeout: float | None) -> object:
        deadline = None if timeout is None else time.monotonic() + timeout
        while wait_for(self._descriptor, deadline):
            _, number, body = self._receive()
            if number == self._number:
                return pickle.loads(body)  # noqa: S301 - from our own parent
        raise TimeoutError

    # -- inside

    def _run(self, payload: bytes) -> tuple[bytes, bytes]:
        try:
            function, argument = _load_task(payload)
            return wire.RESULT, self._dump_result(function, run_hosted(self, function, argument))
        except BaseException as error:  # noqa: BLE001 - the future fails with it
            return wire.ERROR, dump_error(self._answers, error)

    def _dump_result(self, function: Callable[[Any], Any], result: object) -> bytes:
        try:
            return self._answers.dump(result)  # type: ignore[no-any-return]
        except Exception as error:
            msg = f"what {getattr(function, '__qualname__', function)} returned cannot be sent back: {error}"
            raise pickle.PicklingError(msg) from error

    def _receive(self) -> tuple[bytes, int, bytes]:
        while True:
            # It waits without taking anything: a task that is sent to a process which was just killed then stays
            # unread, and the kernel tells the pool so.
            wait_for(self._descriptor, None)
            packet = os.read(self._descriptor, wire.PACKET_BYTES)
            if not packet:
                raise EOFError
            message = self._reassembler.add(packet)
            if message is not None:
                return message

    def _send(self, kind: bytes, body: bytes) -> None:
        for packet in wire.packets(wire.message(kind, self._number, body)):
            while True:
                try:
                    os.write(self._descriptor, packet)
                    break
                except BlockingIOError:
                    wait_for(self._descriptor, None, select.POLLOUT)

    def _leave(self) -> None:
        """Close the socket in a child that a task has forked: it must not take or answer what is meant for this."""
        _running.host = None
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:  # else this is a child's child
            os.close(descriptor)


def dump_error(answers: Answers, error: BaseException) -> bytes:
    """Return an answer with an error, its text and its traceback; without the error if it cannot be loaded again."""
    import traceback  # noqa: PLC0415 - most workers never need it

    text = f"{type(error).__qualname__}: {error}"[:_MAX_TEXT]
    where = "".join(traceback.format_exception(error))[-_MAX_TEXT:].rstrip()
    try:
        if isinstance(error, Exception):
            data = answers.dump((error, text, where))
            if type(answers.load(data)[0]) is type(error):
                return data
    except Exception:  # noqa: BLE001, S110 - whatever a foreign class raises when it is sent
        pass
    return answers.dump((None, text, where))


def load_error(answers: Answers, data: bytes) -> Exception:
    """Return the error that a worker has sent, or one with the same text; a note has the worker's traceback."""
    answer = answers.load(data)
    if not (isinstance(answer, tuple) and len(answer) == 3):
        msg = "it sent an error in another form than workers do"
        raise wire.MalformedError(msg)
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


def _open_standard_streams() -> None:
    """Have descriptor 0 be /dev/null, and 1 and 2 be open: no file that is opened later may become one of them."""
    nothing = -1
    while nothing < 3:
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
        except OSError:  # there is no /dev
            nothing = os.open("/", os.O_RDONLY)
    for descriptor in (1, 2):
        os.set_inheritable(descriptor, True)  # for programs that a task starts, if it was opened just now
    os.dup2(nothing, 0)
    os.close(nothing)


def _prepare(name: str, memory_limit_bytes: int | None) -> None:
    """Set up this process as a worker: named, limited, and killable."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all its processes: the parent decides
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


def _end_with(parent: int) -> None:
    """Have this process end when its parent does.

    The socket does not always tell: a child that the parent forked has a copy of the other end. PR_SET_PDEATHSIG would
    send its signal when the parent's thread ends that started this process.
    """
    if os.getppid() == 0:  # the parent is outside of this PID namespace, and cannot be watched
        return
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(parent)
        if os.getppid() == parent:  # else it has ended, and the number may be another process's
            threading.Thread(target=_die_after, args=(descriptor,), name="parent-watch", daemon=True).start()
            return
    raise EOFError


def _die_after(parent: int) -> None:
    wait_for(parent, None)
    os.kill(os.getpid(), signal.SIGKILL)


def _flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a task has closed it, or its reader is gone
            stream.flush()
