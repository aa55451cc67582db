"""The command line as a whole, and where the store lies."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from pykka_imagestore.cli.parser import Parser, RawHelp, Verbs, add_common_options
from pykka_imagestore.cli.verb_arguments import VERBS, add_verbs
from pykka_imagestore.errors import InvalidInputError

DESCRIPTION = (
    "Keep container images as directories: put archives and OCI layouts, get the paths of their layers, and provision "
    "root file systems of them."
)

EPILOG = """\
exit status:
  0    done
  1    refused, failed, not found, or faults found: one sentence on stderr says which
  2    wrong usage, such as an unknown option, or a name or size that is none
  130  interrupted with Ctrl-C (143: terminated, 129: hung up); unfinished work has been undone

examples:
  docker save app:1.0 | imagestore put -
  imagestore put images/*.tar
  skopeo copy docker://app:1.0 oci:app && imagestore put --name app:1.0 app
  imagestore get app:1.0
  imagestore get --json app:1.0 | jq -r '.layers[].path'
  imagestore inspect --json app:1.0 | jq .config.Env
  chroot "$(imagestore provision --quiet box app:1.0)" /bin/sh; imagestore destroy box
  imagestore prune --budget 20G --keep base:1.0
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ``verb`` names what to do.

    Raises:
        SystemExit: With status 2 and a message for wrong usage, with 0 after help.
    """
    words = sys.argv[1:] if arguments is None else arguments
    parser = make_parser(words)
    options, unknown = parser.parse_known_args(words)
    if unknown:  # argparse would show the usage of the program, which lists no option of the verb
        advice = _advice_on_surplus(options.verb, unknown[0])
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
    if options.verb == "help":
        parser.parse_args(["--help"] if options.topic is None else [options.topic, "--help"])
    if options.verb == "put":
        _choose_archives(options)
    if options.json and getattr(options, "format", None) is not None:
        options.parser.error("argument --format: not allowed with argument --json")
    return options


def make_parser(words: Sequence[str] = ()) -> Program:
    """Return the parser of the command line. The documentation is generated from it, too.

    Args:
        words: What it will parse: it has the verbs that stand there, and speaks of them in an error. Without any,
            it has all verbs.
    """
    parser = Program(
        words,
        prog="imagestore",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=RawHelp,
        allow_abbrev=False,
    )
    add_common_options(parser)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog="imagestore", parser_class=Parser)
    add_verbs(Verbs(verbs, words))
    return parser


def store_directory(option: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the store's directory, absolute.

    Args:
        option: The value of ``--store``; None if it was not given.
        environment: The environment. An empty variable counts as unset.

    Raises:
        InvalidInputError: None is named, and this user has no home directory.

    Spec:
        XDG Base Directory Specification: a relative $XDG_DATA_HOME is to be ignored.
    """
    named = environment.get("IMAGESTORE_DIR") if option is None else option
    if named:
        return Path(absolute(named))
    data = Path(environment.get("XDG_DATA_HOME", ""))
    try:
        return (data if data.is_absolute() else Path("~/.local/share").expanduser()) / "imagestore"
    except RuntimeError:
        reason = f"user {os.getuid()} has no home directory, and HOME is not set, so no store is found there"
        raise InvalidInputError(f"{reason}; name one with --store, or in IMAGESTORE_DIR") from None


def absolute(path: str) -> str:
    """Return a path made absolute; symlinks in it are not resolved.

    Raises:
        InvalidInputError: It is relative, and the working directory was deleted.
    """
    try:
        return str(Path(path).absolute())
    except FileNotFoundError:
        raise InvalidInputError(f"{path}: the working directory was deleted; name an absolute path") from None


def _advice_on_surplus(verb: str, word: str) -> str:
    is_file = verb == "export" and not word.startswith("-")
    return f"; a file is named with --output {word}" if is_file else ""


def _choose_archives(options: argparse.Namespace) -> None:
    """Have ``archives`` name all that is to be put; without any, it is what comes through standard input."""
    options.archives = [*options.input, *options.archives] or (["-"] if _is_fed() else [])
    if not options.archives:
        options.parser.error(
            "name an ARCHIVE, or let one come through standard input: docker save app | imagestore put"
        )
    if options.name is not None and len(options.archives) > 1:
        options.parser.error("argument --name: puts one image, so name one archive")


def _is_fed() -> bool:
    """Tell whether an archive may come through standard input: it is no terminal, not closed, and not /dev/null."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


class Program(Parser):
    """The parser of the whole command line."""

    def __init__(self, words: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self.words = words

    def error(self, message: str) -> NoReturn:
        """Name the first word if it is not known: argparse speaks of another one, or of all verbs."""
        before = Parser(add_help=False, allow_abbrev=False, exit_on_error=False)
        add_common_options(before)
        with suppress(argparse.ArgumentError):
            message = self._fault(next(iter(before.parse_known_args(self.words)[1]), "")) or message
        super().error(message)

    def _fault(self, first: str) -> str | None:
        """Return what is wrong with the first word that is no common option; None if that is another."""
        if not first:
            return "name a VERB; imagestore help lists them"
        if first.startswith("-"):
            return None if first in ("-h", "--help", "--version", "--") else f"unrecognized arguments: {first}"
        from pykka_imagestore.cli.verb_advice import advice_on  # noqa: PLC0415 - most runs need none

        return None if first in VERBS else f"{first!r} is no verb: {advice_on(first, VERBS)}"


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata  # noqa: PLC0415 - slow, and seldom needed

        try:
            version = importlib.metadata.version("pykka-imagestore")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"imagestore {version}")
        parser.exit()
