"""Tells when leases end, and containers go, whichever process had them and however they end, without polling.

A lease that is released loses its name; that of a process that ended otherwise is closed, once, since it is open from
its first byte. A container is renamed into gc/. All of that the kernel tells.

Source: Linux, inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pykka_imagestore.durable.locks import is_locked

_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_DELETE = 0x8, 0x40, 0x200
_EVENT = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len; the name follows
_MAX_LOOKS = 100
_libc = ctypes.CDLL(None, use_errno=True)


class LeaseWatch:
    """Calls a function, in a thread of its own, whenever leases have ended or containers have gone, until ``close``.

    Args:
        directory: ``leases/``.
        containers: ``containers/``, which need not be there: then it is not watched.
        on_end: Must neither block nor raise.

    Raises:
        OSError: The user has no inotify instance left, or the process no descriptor.
    """

    def __init__(self, directory: Path, containers: Path, on_end: Callable[[], object]) -> None:
        self._directory = directory
        self._on_end = on_end
        self._closing = os.eventfd(0)
        try:
            self._inotify = _watch(directory, containers)
        except OSError:
            os.close(self._closing)
            raise
        self._thread = threading.Thread(target=self._serve, name="imagestore-lease-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; nothing is called any more when this returns. Its owner calls it once."""
        os.eventfd_write(self._closing, 1)
        self._thread.join()
        os.close(self._inotify)
        os.close(self._closing)

    def _serve(self) -> None:
        waiting = select.poll()
        for descriptor in (self._inotify, self._closing):
            waiting.register(descriptor, select.POLLIN)
        while self._closing not in dict(waiting.poll()):
            for mask, name in _events(os.read(self._inotify, 1 << 16)):
                if mask & _IN_CLOSE_WRITE:
                    self._wait_for_lock(name)
            self._on_end()

    def _wait_for_lock(self, name: str) -> None:
        # A closed file is told of just before its locks are let go of, in the same call of the kernel.
        with suppress(OSError):
            for _ in range(_MAX_LOOKS):
                if not is_locked(self._directory / name):
                    break
                time.sleep(0.001)


def _watch(leases: Path, containers: Path) -> int:
    descriptor = _checked(_libc.inotify_init1(os.O_CLOEXEC), leases)
    try:
        _checked(_libc.inotify_add_watch(descriptor, os.fsencode(leases), _IN_CLOSE_WRITE | _IN_DELETE), leases)
        with suppress(FileNotFoundError):
            _checked(_libc.inotify_add_watch(descriptor, os.fsencode(containers), _IN_MOVED_FROM), containers)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _checked(result: int, directory: Path) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(directory))
    return result


def _events(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the mask and the name of each event."""
    at = 0
    while at < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size + length
        yield mask, os.fsdecode(data[at - length : at].rstrip(b"\0"))
