"""``imagestore repair``: a check that takes out what is damaged."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.checking import run_check


def run(options: argparse.Namespace) -> None:
    """Repair, and print what was wrong and what was taken out."""
    run_check(options, repair=True)
