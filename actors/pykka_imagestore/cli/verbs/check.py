"""``imagestore check``: whether what is stored is what it must be."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.checking import look


def run(options: argparse.Namespace) -> None:
    """Check, and print what is wrong."""
    look(options, repair=False)
