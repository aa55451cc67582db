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

_MAX_ARGUMENTS = 6

Argument = int | bytes | ctypes.Array[ctypes.c_char] | None

libc = ctypes.CDLL(None, use_errno=True)
_keeping = ctypes.PyDLL(None, use_errno=True)  # Python's lock

for _library in (libc, _keeping):
    # All as wide as a register: what the kernel reads of it that was not given would be whatever was there before.
    _library.syscall.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * _MAX_ARGUMENTS)
    _library.syscall.restype = ctypes.c_long


def call(name: str, *arguments: Argument) -> int:
    """Make a call that libc lacks."""
    return check(name, libc.syscall(_number_of(name), *arguments, *_ABSENT[len(arguments)]))


def quick_call(name: str, *arguments: Argument) -> int:
    """Make a call that waits for nothing: no disk, no other process.

    No other thread runs meanwhile. To let one, and to have Python's lock back, takes far longer than such a call.
    """
    return check(name, _keeping.syscall(_number_of(name), *arguments, *_ABSENT[len(arguments)]))


def buffer_of(data: bytearray) -> ctypes.Array[ctypes.c_char]:
    """Return what a call may write to."""
    return (ctypes.c_char * len(data)).from_buffer(data)


def check(name: str, answer: int) -> int:
    """Return what a call of libc's answered, unless that says that it failed."""
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return answer


_ABSENT = [(0,) * (_MAX_ARGUMENTS - count) for count in range(_MAX_ARGUMENTS + 1)]


def _number_of(name: str) -> int:
    if not _IS_KNOWN:
        raise OSError(errno.ENOSYS, f"{name}: its number on this processor is not known here")
    return NUMBERS[name]
