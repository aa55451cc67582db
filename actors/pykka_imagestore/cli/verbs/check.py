"""``imagestore check``: whether what is stored is what was put."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.checking import run_check


def run(options: argparse.Namespace) -> None:
    """Check, and print what is wrong."""
    run_check(options, repair=False)
