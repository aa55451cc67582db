"""``imagestore completion SHELL``: prints the script that completes the command line in a shell."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import make_parser
from pykka_imagestore.cli.completion import make_script
from pykka_imagestore.cli.output import print_script


def run(options: argparse.Namespace) -> None:
    """Print the script."""
    print_script(make_script(make_parser(), options.shell))
