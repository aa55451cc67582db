"""What this program changes about argparse: help that is quick, errors that are escaped, verbs with common options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

from pykka_imagestore.cli import values
from pykka_imagestore.cli.status_line import DEFAULT_WIDTH
from pykka_imagestore.text import escaped


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that stand before the verb or after it."""
    where = "the store's directory (default: $IMAGESTORE_DIR, else imagestore in $XDG_DATA_HOME or ~/.local/share)"
    parser.add_argument("--store", metavar="DIR", type=values.path, help=where)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text for people")
    parser.add_argument("-v", "--verbose", action="store_true", help="say on stderr what the store does")


class Help(argparse.HelpFormatter):
    """Help as wide as the terminal. Argparse itself makes one for each option, and imports shutil to do so: 4 ms."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class RawHelp(Help, argparse.RawDescriptionHelpFormatter):
    """The same, with line ends as they are written."""


def _columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size().columns or DEFAULT_WIDTH
    except OSError:
        return DEFAULT_WIDTH


class Parser(argparse.ArgumentParser):
    """A parser whose errors act on no terminal, and say what to write in place of what other tools have.

    Attributes:
        words: The command line, of which an error speaks.
    """

    words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        from pykka_imagestore.cli.option_advice import advice_on_options  # noqa: PLC0415 - most runs need none

        advice = advice_on_options(self.get_default("verb") or "", self.words)
        super().error(escaped(message + advice))  # an argument may be a file name from an untrusted source


class Once(argparse.Action):
    """Stores an option's value, and refuses a second one, which would replace the first without a word."""

    def __call__(
        self, _: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, __: str | None = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "may be given only once")
        setattr(namespace, self.dest, values)


class Verbs:
    """Adds verbs. Each takes the common options too, so these may stand before the verb or after it.

    Args:
        words: The command line.
    """

    def __init__(self, parsers: argparse._SubParsersAction[Parser], words: Sequence[str]) -> None:
        self._parsers = parsers
        self.words = words
        # A default here would override an option that stood before the verb.
        self._common = Parser(add_help=False, argument_default=argparse.SUPPRESS, formatter_class=Help)
        add_common_options(self._common)

    def add(self, words: Sequence[str], summary: str, more: str = "") -> Parser:
        """Add a verb; return its parser.

        Args:
            words: The words for it; the first is its name.
            summary: What it does, without a capital and a full stop.
            more: Sentences for its own help.
        """
        verb, *other_words = words
        for word in other_words:
            more = f"{more} Another name of this verb is {word}.".lstrip()
        parser = self._parsers.add_parser(
            verb,
            aliases=other_words,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. {more}",
            parents=[self._common],
            formatter_class=Help,
            allow_abbrev=False,
        )
        parser.words = self.words
        parser.set_defaults(verb=verb, parser=parser)  # whichever name was typed
        return parser
