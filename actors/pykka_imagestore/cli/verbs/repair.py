"""``imagestore repair``: check, and take out what is damaged."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.checking import look


def run(options: argparse.Namespace) -> None:
    """Repair, and print what was wrong and what was taken out."""
    look(options, repair=True)
