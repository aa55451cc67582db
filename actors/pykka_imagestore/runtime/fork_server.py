"""A multiprocessing context whose processes never import the program's main script.

With the standard ``spawn`` and ``forkserver``, a script without ``if __name__ == "__main__"`` is run again in each
process that it starts. Worker functions live in importable modules, so nothing is lost by leaving it alone. Each
context has a fork server of its own: it has the worker's modules loaded, and the program's own use of
multiprocessing is unaffected.

Python looks for the modules of a program given as ``-c`` in the current folder first, and such are the fork server
and multiprocessing's resource tracker: a stray ``pickle.py`` there would be run. They are started with ``-P``.

This module uses inner parts of ``multiprocessing``, the same ones in Python 3.11 to 3.13.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from multiprocessing import context, forkserver, popen_forkserver, process, reduction, resource_tracker, util
from typing import Any

_LONGEST_FOLDER = 70  # below it come "pymp-" and "listener-" with 8 characters each; a socket's path has 107 bytes
ENDED_WITH_0 = 256  # no exit code of a process


class WorkerContext(context.ForkServerContext):
    """A ``forkserver`` context with its own server.

    Args:
        preload: Modules that the server imports, so that its processes have them at once.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        super().__init__()
        self.server = _ForkServer()
        self.server.set_forkserver_preload(list(preload))

    def Process(self, *args: Any, **kwargs: Any) -> WorkerProcess:  # type: ignore[override]  # noqa: N802
        """Make a process of this context."""
        worker = WorkerProcess(*args, **kwargs)
        worker.start_from(self.server)
        return worker

    def start(self) -> None:
        """Start the server, unless it runs."""
        self.server.ensure_running()

    def close(self) -> None:
        """End the server; its processes must have ended. Idempotent."""
        self.server.kill()


class WorkerProcess(context.ForkServerProcess):
    """A process that a given fork server starts."""

    _server: _ForkServer

    def start_from(self, server: _ForkServer) -> None:
        """Choose the server that ``start()`` asks for a process."""
        self._server = server

    @property
    def exitcode(self) -> int | None:
        """As usual, but ``ENDED_WITH_0`` for 0: Pebble takes no notice of a worker that exits so in mid-task."""
        code = super().exitcode
        return ENDED_WITH_0 if code == 0 else code

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:  # noqa: N802
        return _Popen(process_obj)

    def __reduce__(self) -> Any:
        state = {key: value for key, value in self.__dict__.items() if key != "_server"}
        return WorkerProcess.__new__, (WorkerProcess,), state


class _ForkServer(forkserver.ForkServer):
    _forkserver_pid: int | None

    def ensure_running(self) -> None:
        with _safe_path:
            # First, since it leaves SIGINT unblocked; and that is blocked because the server, until its modules are
            # imported, would answer a Ctrl-C on the terminal with a traceback.
            resource_tracker.ensure_running()
            _choose_short_folder()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                super().ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def kill(self) -> None:
        # Left to itself it ends when the last copy of a pipe's end is closed, and any forked child has one.
        if self._forkserver_pid is not None:
            os.kill(self._forkserver_pid, signal.SIGTERM)
        self._stop()  # type: ignore[attr-defined]


def _choose_short_folder() -> None:
    """Have multiprocessing make its socket in /tmp where the usual folder's path is too long for one."""
    config: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER and config.get("tempdir") is None:
        config["tempdir"] = folder = tempfile.mkdtemp(prefix="pymp-", dir="/tmp")
        util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)


class _SafePath:
    """While it is entered, multiprocessing starts its helpers with ``-P``."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._usual = usual = util._args_from_interpreter_flags  # type: ignore[attr-defined]
        util._args_from_interpreter_flags = lambda: [*usual(), "-P"]  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        util._args_from_interpreter_flags = self._usual  # type: ignore[attr-defined]
        self._lock.release()


_safe_path = _SafePath()


class _Popen(popen_forkserver.Popen):
    def _launch(self, process_obj: WorkerProcess) -> None:
        data = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(_preparation(process_obj), data)
            reduction.dump(process_obj, data)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, to_child = process_obj._server.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        # The child takes the end of this descriptor for the end of its parent.
        lifeline = os.dup(to_child)
        self.finalizer = util.Finalize(self, util.close_fds, (lifeline, self.sentinel))  # type: ignore[attr-defined]
        with os.fdopen(to_child, "wb") as pipe:
            pipe.write(data.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


def _preparation(process_obj: process.BaseProcess) -> dict[str, Any]:
    """Return what ``multiprocessing.spawn.prepare`` sets up in the child: all but the main module."""
    return {
        "name": process_obj.name,
        "authkey": process.current_process().authkey,
        "sys_path": [path or os.getcwd() for path in sys.path],  # noqa: PTH109
        "sys_argv": sys.argv,
        "dir": "/",
    }
