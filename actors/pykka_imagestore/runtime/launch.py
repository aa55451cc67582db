"""Starting a worker process: a new Python that gets one end of a socket pair, and nothing else, from the program.

It needs no file, no semaphore, no shared memory and no temporary directory, and never imports the program's script.

A frozen program has no other Python than its own executable. There multiprocessing's public ``spawn`` starts the
process, and ``multiprocessing.freeze_support()`` in the program's main takes it over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from pykka_imagestore.runtime.wire import PACKET_BYTES
from pykka_imagestore.runtime.worker import FROZEN_MARK, main_frozen, wait_for

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

# ``sys.path`` has to be set before anything of the package can be imported.
_BOOTSTRAP = f"""\
import os, sys
descriptor = int(sys.argv[1])
missing, paths = int.from_bytes(os.read(descriptor, 8), "big"), b""
while len(paths) < missing:
    packet = os.read(descriptor, {PACKET_BYTES})
    if not packet:
        break
    paths += packet
if not paths:
    os._exit(0)
sys.path[:] = os.fsdecode(paths).split("\\0")
from pykka_imagestore.runtime.worker import main
main(descriptor)
"""
_FREEZE_SUPPORT = (
    "a frozen program has to call multiprocessing.freeze_support() first thing in its main; without it, each worker "
    "process would run the program again"
)
_PYTHON_NAME = re.compile(r"(python|pypy|graalpy)[-.\w]*", re.IGNORECASE)


class CannotStartError(Exception):
    """No worker process can be started in this program; the argument says why, and what to do."""


class WorkerProcess(ABC):
    """A worker process, and this program's end of the socket pair.

    Attributes:
        socket: Non-blocking.
        pidfd: Readable once the process has ended. Signals are sent through it, since its PID may be reused.
        greeting: The packets to send first. They are not sent here, since the process may never take them.
    """

    greeting: Sequence[bytes] = ()

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.socket = connection
        # The PID is still the child's. Even one that is reaped at once, since SIGCHLD is ignored, does not end between
        # its start and here.
        self.pidfd = os.pidfd_open(pid)

    def kill(self) -> None:
        """Have the process end; does nothing if it has."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Tell whether the process has ended."""
        return wait_for(self.pidfd, 0)

    def end(self) -> int | None:
        """Wait until the process has ended, and release its descriptors.

        Returns:
            Its exit code, minus the signal's number if a signal ended it. None if it is not known, because SIGCHLD is
            ignored or something else in this program waits for all children.
        """
        wait_for(self.pidfd, None)
        code = self._reap()
        self._close()
        return code

    def forget(self) -> None:
        """Release the descriptors in a forked child; the process belongs to the parent."""
        self._close()

    @abstractmethod
    def _reap(self) -> int | None:
        """Wait for the process, and return its exit code, or None."""

    def _close(self) -> None:
        self.socket.close()
        os.close(self.pidfd)


def start_process() -> WorkerProcess:
    """Start a worker process, which waits for its set-up message.

    Raises:
        CannotStartError: No worker process can be started in this program.
        OSError: The limit on processes or on descriptors is reached.
    """
    _require_pidfds()
    ours, theirs = map(_above_standard, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    with theirs:
        theirs.setblocking(True)  # whatever socket.setdefaulttimeout() says: the bootstrap waits in read()
        try:
            process = _Frozen(ours, theirs) if is_frozen() else _Python(ours, theirs)
        except BaseException:
            ours.close()  # which ends a process that was started
            raise
    ours.setblocking(False)
    return process


def is_frozen() -> bool:
    """Tell whether the program is frozen: its executable is not a Python, but the program itself."""
    return bool(getattr(sys, "frozen", False))


def end_if_not_taken_over() -> None:
    """End this process, with a sentence, if it is a frozen program's worker that runs the program's main instead.

    Its pools would start processes that do the same, and so on without end.
    """
    if is_frozen() and os.environ.get(FROZEN_MARK) == sys.executable:
        os.write(2, f"{_FREEZE_SUPPORT}\n".encode())
        os._exit(1)


def why_it_ended() -> str:
    """Return why a process may have ended before it was ready, as the rest of a sentence."""
    if is_frozen():
        return _FREEZE_SUPPORT
    return "its output is on this program's standard error. Is the memory limit enough for Python itself?"


def find_python() -> str:
    """Return the path of a Python like this one; ``sys.executable`` may be a server that embeds Python.

    Raises:
        CannotStartError: None was found.
    """
    if _PYTHON_NAME.fullmatch(os.path.basename(sys.executable or "")):  # noqa: PTH119
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = dict.fromkeys([os.path.join(sys.exec_prefix, "bin"), sysconfig.get_config_var("BINDIR") or ""])  # noqa: PTH118
    candidates = [os.path.join(directory, version) for directory in directories if directory]  # noqa: PTH118
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate
    msg = (
        f"sys.executable, {sys.executable!r}, is no Python, and there is none at {' or '.join(candidates)}; set "
        f"sys.executable to a {version} before the first task"
    )
    raise CannotStartError(msg)


def python_command() -> list[str]:
    """Return the command of a Python like this one that behaves as this one does; its arguments may follow.

    Raises:
        CannotStartError: The program is frozen, or there is none.
    """
    if is_frozen():
        msg = "a frozen program has no Python to start a process with"
        raise CannotStartError(msg)
    return [find_python(), *_flags()]


class _Python(WorkerProcess):
    """A new Python, started by a program that is not frozen."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        descriptor, paths = theirs.fileno(), b"\0".join(_search_path())
        parts = (paths[start : start + PACKET_BYTES] for start in range(0, len(paths), PACKET_BYTES))
        self.greeting = [len(paths).to_bytes(8), *parts]
        command = [*python_command(), "-c", _BOOTSTRAP, str(descriptor)]
        self._process = subprocess.Popen(command, pass_fds=[descriptor], cwd="/")
        try:
            super().__init__(ours, self._process.pid)
        except OSError:  # no descriptor is left
            self._process.kill()
            self._process.wait()
            raise

    def forget(self) -> None:
        self._process.returncode = 0  # else subprocess warns that it is still running
        super().forget()

    def _reap(self) -> int | None:
        try:
            end = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            end = None
        code = None if end is None else end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        self._process.returncode = 0 if code is None else code
        return code


class _Frozen(WorkerProcess):
    """Another process of the frozen program, taken over by multiprocessing."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        import multiprocessing  # noqa: PLC0415 - few programs are frozen

        if multiprocessing.current_process().daemon:
            msg = (
                "a frozen program starts worker processes through multiprocessing, which gives a daemonic process "
                "none; use the store or pool in a process that is not daemonic"
            )
            raise CannotStartError(msg)
        context = multiprocessing.get_context("spawn")
        self._process: BaseProcess = context.Process(target=main_frozen, args=(theirs,), daemon=True)
        with _marked_environment():
            self._process.start()
        assert self._process.pid is not None  # noqa: S101 - it has been started
        try:
            super().__init__(ours, self._process.pid)
        except OSError:  # no descriptor is left
            self._process.kill()
            self._process.join()
            raise

    def _reap(self) -> int | None:
        self._process.join()
        return self._process.exitcode


def _require_pidfds() -> None:
    try:
        descriptor = os.pidfd_open(os.getpid())
        with os.fdopen(descriptor), contextlib.suppress(ChildProcessError):  # this process is no child of its own
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        msg = f"pidfd_open, or waitid with its result, failed: {error.strerror}; it takes Linux 5.4 and no filter"
        raise CannotStartError(msg) from error


def _flags() -> list[str]:
    """Return the options with which another Python behaves as this one does, and ``-P``.

    Without ``-P``, Python with ``-c`` looks for modules in the current directory first, and would run a stray
    ``socket.py`` there.
    """
    letters = {"ignore_environment": "E", "no_user_site": "s", "no_site": "S", "dont_write_bytecode": "B"}
    return [
        "-P",
        *(f"-{letter}" for name, letter in letters.items() if getattr(sys.flags, name)),
        *["-O"] * sys.flags.optimize,
        *(f"-W{option}" for option in sys.warnoptions),
        f"-Xutf8={sys.flags.utf8_mode}",  # or names that are not ASCII would be encoded differently there
        *["-Xdev"] * sys.flags.dev_mode,
    ]


def _search_path() -> list[bytes]:
    """Return ``sys.path``, for a process in another directory.

    Programs put anything there. Entries that Python itself ignores are left out: objects that are no str, and names
    that no directory can have. So is the current directory if it was removed.
    """
    paths = []
    for path in cast(list[object], sys.path):
        if isinstance(path, str) and "\0" not in path:
            with contextlib.suppress(FileNotFoundError, UnicodeEncodeError):
                paths.append(os.fsencode(os.path.abspath(path)))  # noqa: PTH100 - links in it stay
    return paths


@contextlib.contextmanager
def _marked_environment() -> Iterator[None]:
    """Mark all processes that are started meanwhile, multiprocessing's own too, as not to start any themselves."""
    os.environ[FROZEN_MARK] = sys.executable
    try:
        yield
    finally:
        os.environ.pop(FROZEN_MARK, None)


def _above_standard(connection: socket.socket) -> socket.socket:
    """Return the socket at a descriptor above 2: in a daemon that closed those, it would take a stream's place."""
    if connection.fileno() > 2:
        return connection
    with connection:
        return socket.socket(fileno=fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
