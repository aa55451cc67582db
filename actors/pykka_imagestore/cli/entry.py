"""Where the program begins. Ctrl-C is handled before anything is imported: imports take most of a short run."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from contextlib import suppress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status.

    The program should end when this returns: after a signal that stopped it, further ones are ignored.

    Args:
        arguments: Without the program's name; by default those of this process.
    """
    _occupy_standard_streams()
    gc.disable()  # nothing of what imports make is garbage, and looking for some takes 5 ms
    try:
        from pykka_imagestore.cli.command import run_command  # noqa: PLC0415

        return run_command(arguments)
    except KeyboardInterrupt:
        return 130


def _occupy_standard_streams() -> None:
    """Open ``/dev/null`` in place of closed standard streams.

    Otherwise the next files that are opened would become standard streams, and whatever is printed, here or in a
    child, would be written into a file of the store.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
