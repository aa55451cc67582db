"""Writing to a file that is open."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable

_POLL_MILLISECONDS = 100
_NO_NOWAIT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})  # pipes and sockets have it since Linux 6.4


def write_all(descriptor: int, data: bytes | memoryview, more: bytes | memoryview = b"") -> None:
    """Write bytes, and then some more, in one call if the disk takes all of them."""
    written = os.writev(descriptor, (data, more)) if more else os.write(descriptor, data)
    if written < len(data) + len(more):
        rest = memoryview(b"".join((data, more)))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def write_as_read(descriptor: int, data: memoryview, waiting: Callable[[], object]) -> None:
    """Write bytes to a file, pipe or socket; where a reader is behind, call ``waiting`` meanwhile, which may raise.

    Whether others wait on the descriptor is left as it is: whoever else has it open may count on that.
    """
    if _takes_all(os.fstat(descriptor).st_mode):
        write_all(descriptor, data)
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while data:
        while not poll.poll(_POLL_MILLISECONDS):
            waiting()
        data = data[_write_some(descriptor, data) :]


def _takes_all(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _write_some(descriptor: int, data: memoryview) -> int:
    """Write what a descriptor takes at once, now that poll(2) says that it takes something."""
    try:
        return os.pwritev(descriptor, [data], -1, os.RWF_NOWAIT)  # -1: where the descriptor is
    except BlockingIOError:  # somebody else wrote to it, too
        return 0
    except OSError as error:
        if error.errno not in _NO_NOWAIT:
            raise
    return os.write(descriptor, data[: select.PIPE_BUF])
