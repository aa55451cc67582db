"""Leases of files, fcntl(2), as who shares a file with somebody takes them to keep it from being opened."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SET_LEASE = 1024  # F_SETLEASE, linux/fcntl.h


@contextmanager
def leased(path: str | Path) -> Iterator[None]:
    """Hold a lease of a file, and do not give it up when somebody opens it."""
    file = os.open(path, os.O_RDONLY)
    told = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        try:
            fcntl.fcntl(file, _SET_LEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"this file system, or this machine, has no leases: {error.strerror}")
        yield
    finally:
        os.close(file)
        signal.signal(signal.SIGIO, told)
