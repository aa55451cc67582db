"""Holds on to the file that was found under a name, so that each call means it though the name may be exchanged.

A name is resolved anew at each call, and by then another user may have put a symlink or a link to somebody else's file
there. Linux changes modes only through symlinks before fchmodat2(2), which is of 6.6, and no call on extended
attributes takes a directory's descriptor. What every kernel has is a descriptor that only stands for a file, and the
link to it in /proc: it leads to that file, to a symlink itself too, whatever the name says by then.

Spec:
    open(2), "O_PATH"; proc_pid_fd(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Opens nothing: no device is used, no fifo waited for.
PIN_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def pinned(name: bytes, directory: int) -> Iterator[tuple[bytes, os.stat_result]]:
    """Lend a path that leads to what has a name in ``directory`` now, and what that is. Calls are to follow the path.

    Raises:
        OSError: There is nothing, or it may not be reached.
    """
    pin = os.open(name, PIN_FLAGS, dir_fd=directory)
    try:
        yield pin_path(pin), os.fstat(pin)
    finally:
        os.close(pin)


def pin_path(descriptor: int) -> bytes:
    """Return a path that leads to what is open, for calls that take no descriptor of this kind."""
    return b"/proc/self/fd/%d" % descriptor
