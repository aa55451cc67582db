"""Where the program begins. Nothing is imported before Ctrl-C is seen to: imports take most of a short run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status.

    The program should end with it: after a signal that stops it, further ones are ignored.

    Args:
        arguments: Without the program's name; by default those of this process.
    """
    _occupy_standard_streams()
    try:
        from pykka_imagestore.cli.command import run_command  # noqa: PLC0415

        return run_command(arguments)
    except KeyboardInterrupt:
        return 130


def _occupy_standard_streams() -> None:
    """Put nothing in place of standard streams that are closed: else the next files that are opened become these.

    Whatever then prints, here or in a child, would write into a file of the store.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
