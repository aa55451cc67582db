"""Paths by which worker processes can read what this process has open: standard input, or a shell's ``<(...)``."""

from __future__ import annotations

import fcntl
import os
import re
import select
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pykka_imagestore.cli.arguments import absolute
from pykka_imagestore.errors import InvalidInputError, StoreError

_OWN = re.compile(r"-|/dev/(stdin|fd/([0-9]+))|/proc/self/fd/([0-9]+)")
_PIPE_BYTES = 1 << 20
_shown: dict[str, str] = {}  # paths for other processes, and the user's names of them


@contextmanager
def readable_path(path: str) -> Iterator[str]:
    """Yield a path by which another process can read what is open here; any other path is made absolute.

    A descriptor that cannot be reopened (another user's pipe or file, a socket, a file that was read in part) is passed
    on through a pipe.

    Raises:
        InvalidInputError: The descriptor cannot be read.
        OSError: Reading it failed.

    Spec:
        proc_pid_fd(5).
    """
    descriptor = own_descriptor(path)
    if descriptor is None:
        yield absolute(path)
        return
    _require_readable(descriptor)
    if _can_be_opened_again(descriptor):
        yield _path_of(descriptor, descriptor)
        return
    pump = _Pump(descriptor)
    try:
        yield _path_of(pump.output, descriptor)
    except StoreError:
        if pump.error is not None:  # the cause; to the worker, the archive only seemed to end early
            pump.error.filename = _name(descriptor)
            raise pump.error from None
        raise
    finally:
        os.close(pump.output)


def own_descriptor(path: str) -> int | None:
    """Return the descriptor of this process that a path names, if any."""
    own = _OWN.fullmatch(path)
    return None if own is None else int(own[2] or own[3] or 0)


def path_for_others(path: str) -> str:
    """Return the path by which another process can open a file that is open here; any other path is made absolute."""
    descriptor = own_descriptor(path)
    return absolute(path) if descriptor is None else _path_of(descriptor, descriptor)


def shown_descriptor(sentence: str) -> str:
    """Return a sentence in which such paths are as the user typed them."""
    for path, shown in _shown.items():
        sentence = re.sub(rf"{re.escape(path)}(?![0-9])", shown, sentence)
    return sentence


class _Pump:
    """Copies what comes through a descriptor into a pipe.

    Attributes:
        output: The pipe's reading end. Closing it ends the copying.
        error: The error that reading failed with, if it did.
    """

    def __init__(self, source: int) -> None:
        self.error: OSError | None = None
        self.output, self._input = os.pipe()
        with suppress(OSError):  # this user's limit on pipes is reached
            fcntl.fcntl(self._input, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # A read for which nothing comes cannot be ended, so the program does not wait for this thread.
        threading.Thread(target=self._run, args=(source,), name="standard-input", daemon=True).start()

    def _run(self, source: int) -> None:
        try:
            while data := memoryview(self._read(source)):
                while data:
                    data = data[os.write(self._input, data) :]
        except BrokenPipeError:
            return  # the reader has all it wants
        finally:
            os.close(self._input)

    def _read(self, source: int) -> bytes:
        """Return the next bytes; none at the end, or after an error."""
        while True:
            try:
                return os.read(source, _PIPE_BYTES)
            except BlockingIOError:  # another process that shares it made it non-blocking
                poll = select.poll()
                poll.register(source, select.POLLIN)
                poll.poll()
            except OSError as error:
                self.error = error
                return b""


def _require_readable(descriptor: int) -> None:
    fault = ""
    try:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            fault = "is open for writing only"
        elif os.isatty(descriptor):
            fault = "is a terminal"
    except OSError:
        fault = "is closed"
    if descriptor == 0 and sys.stdin is None:  # what is open there now was opened in its place
        fault = "is closed"
    if fault:
        raise InvalidInputError(f"{_name(descriptor)} {fault}; an archive should come through it")


def _can_be_opened_again(descriptor: int) -> bool:
    if stat.S_ISREG(os.fstat(descriptor).st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR):
        return False  # reopened, it would be read from its beginning
    try:
        os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _path_of(descriptor: int, original: int) -> str:
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    _shown[path] = f"/dev/fd/{original}"
    return path


def _name(descriptor: int) -> str:
    return "standard input" if descriptor == 0 else f"/dev/fd/{descriptor}"
