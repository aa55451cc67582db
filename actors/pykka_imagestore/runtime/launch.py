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
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from pykka_imagestore.runtime.worker import FROZEN_MARK, main_frozen

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

# ``sys.path`` has to be set before anything of the package can be imported.
_BOOTSTRAP = """\
import sys
sys.path[:] = sys.argv[2:]
from pykka_imagestore.runtime.worker import main
main(int(sys.argv[1]))
"""
_FREEZE_SUPPORT = (
    "a frozen program has to call multiprocessing.freeze_support() first thing in its main; without it, each worker "
    "process would run the program again"
)
_DAEMONIC = (
    "a frozen program starts worker processes through multiprocessing, which gives a daemonic process none; use the "
    "store or pool in a process that is not daemonic"
)
_PYTHON_NAME = re.compile(r"(python|pypy|graalpy)[-.\w]*", re.IGNORECASE)


class CannotStartError(Exception):
    """No worker process can be started in this program; the argument says why, and what to do."""


class WorkerProcess:
    """A worker process, which was started just now, and this program's end of the socket pair.

    Attributes:
        socket: Non-blocking.
        pidfd: Readable once the process has ended. Signals are sent through it, since its PID may be reused.

    Raises:
        CannotStartError: No worker process can be started in this program.
        OSError: The limit on processes or on descriptors is reached.
    """

    def __init__(self) -> None:
        _require_pidfds()
        with contextlib.ExitStack() as undo:
            self.socket, theirs = map(_above_standard, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            undo.enter_context(self.socket)
            self.socket.setblocking(False)
            with theirs:
                self._child = _start_frozen(theirs) if is_frozen() else _start_python(theirs.fileno())
            undo.callback(self._child.wait if isinstance(self._child, subprocess.Popen) else self._child.join)
            undo.callback(self._child.kill)
            # The PID is still the child's. Even one that is reaped at once, since SIGCHLD is ignored, does not end
            # between its start and here.
            self.pidfd = os.pidfd_open(cast(int, self._child.pid))
            undo.pop_all()

    def kill(self) -> None:
        """Have the process end; does nothing if it has."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int | None:
        """Wait until the process has ended.

        Returns:
            Its exit code, minus the signal's number if a signal ended it. None if it is not known, because SIGCHLD is
            ignored or something else in this program waits for all children.
        """
        if not isinstance(self._child, subprocess.Popen):
            self._child.join()
            return self._child.exitcode
        try:
            end = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            end = None
        code = None if end is None else end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        self._child.returncode = code or 0  # else it would wait for the PID itself, which may be another child's
        return code

    def close(self) -> None:
        """Release the descriptors."""
        self.socket.close()
        os.close(self.pidfd)

    def forget(self) -> None:
        """Release the descriptors in a forked child; the process belongs to the parent."""
        if isinstance(self._child, subprocess.Popen):
            self._child.returncode = 0  # else it warns that it is still running
        self.close()


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
    import shutil  # noqa: PLC0415 - it imports bz2 and lzma; few programs embed Python

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = [os.path.join(sys.exec_prefix, "bin"), sysconfig.get_config_var("BINDIR")]  # noqa: PTH118
    path = os.pathsep.join(filter(None, directories))
    found = shutil.which(version, path=path)
    if found is None:
        msg = (
            f"sys.executable, {sys.executable!r}, is no Python, and there is no {version} in {path}; set "
            f"sys.executable to one before the first task"
        )
        raise CannotStartError(msg)
    return found


def python_command() -> list[str]:
    """Return the command of a Python like this one that behaves as this one does; its arguments may follow.

    Raises:
        CannotStartError: The program is frozen, or there is none.
    """
    if is_frozen():
        msg = "a frozen program has no Python to start a process with"
        raise CannotStartError(msg)
    return [find_python(), *_flags()]


def _require_pidfds() -> None:
    """Raise CannotStartError if a process that was started could not be watched."""
    try:
        descriptor = os.pidfd_open(os.getpid())
        with os.fdopen(descriptor), contextlib.suppress(ChildProcessError):  # this process is no child of its own
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        msg = f"pidfd_open, or waitid with its result, failed: {error.strerror}; it takes Linux 5.4 and no filter"
        raise CannotStartError(msg) from error


def _start_python(descriptor: int) -> subprocess.Popen[bytes]:
    # Linux takes arguments up to a quarter of the stack's limit, usually 2 MB, and 128 KB in any case.
    command = [*python_command(), "-c", _BOOTSTRAP, str(descriptor)]
    return subprocess.Popen([*map(os.fsencode, command), *_search_path()], pass_fds=[descriptor], cwd="/")


def _start_frozen(connection: socket.socket) -> BaseProcess:
    """Start another process of this program; multiprocessing takes it over."""
    import multiprocessing  # noqa: PLC0415 - few programs are frozen

    if multiprocessing.current_process().daemon:
        raise CannotStartError(_DAEMONIC)
    process = multiprocessing.get_context("spawn").Process(target=main_frozen, args=(connection,), daemon=True)
    # All processes that are started meanwhile, multiprocessing's own too, are not to start any themselves.
    os.environ[FROZEN_MARK] = sys.executable
    try:
        process.start()
    finally:
        os.environ.pop(FROZEN_MARK, None)
    return process


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


def _search_path() -> Iterator[bytes]:
    """Yield ``sys.path``, for a process in another directory.

    Programs put anything there. Entries that Python itself ignores are left out: objects that are no str, and names
    that no directory can have. So is the current directory if it was removed.
    """
    for path in cast(list[object], sys.path):
        if isinstance(path, str) and "\0" not in path:
            with contextlib.suppress(FileNotFoundError, UnicodeEncodeError):
                yield os.fsencode(os.path.abspath(path))  # noqa: PTH100 - links in it stay


def _above_standard(connection: socket.socket) -> socket.socket:
    """Return the socket at a descriptor above 2: in a daemon that closed those, it would take a stream's place."""
    if connection.fileno() > 2:
        return connection
    with connection:
        return socket.socket(fileno=fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
