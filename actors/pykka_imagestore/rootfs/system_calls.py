"""The kernel's calls that Python does not have, by ctypes through libc.

A call that fails raises OSError, of the class that its errno has, with the call's name and what the kernel says.
"""

from __future__ import annotations

import ctypes
import errno
import os

# Those that libc lacks. The same on every processor that Python has wheels for; on these two all calls are counted from
# another number.
NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
_IS_KNOWN = not os.uname().machine.startswith(("alpha", "mips"))

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | bytearray | None) -> int:
    """Make a call that libc lacks; it may write into a ``bytearray``."""
    if not _IS_KNOWN:
        raise OSError(errno.ENOSYS, f"{name}: its number on this processor is not known here")
    return check(name, libc.syscall(ctypes.c_long(NUMBERS[name]), *map(_word, arguments)))


def check(name: str, answer: int) -> int:
    """Return what a call of libc's answered, unless that says that it failed."""
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return answer


def _word(argument: int | bytes | bytearray | None) -> object:
    if isinstance(argument, int):  # as wide as a register: ctypes would pass an int, and leave the rest as it is
        return ctypes.c_long(argument)
    if isinstance(argument, bytearray):
        return ctypes.byref((ctypes.c_char * len(argument)).from_buffer(argument))
    return argument
