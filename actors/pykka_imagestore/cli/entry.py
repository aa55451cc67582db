"""Where the program begins. Nothing is imported before Ctrl-C is seen to: imports take most of a short run."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status.

    Args:
        arguments: Without the program's name; by default those of this process.
    """
    try:
        from pykka_imagestore.cli.command import run_command  # noqa: PLC0415

        return run_command(arguments)
    except KeyboardInterrupt:
        return 130
