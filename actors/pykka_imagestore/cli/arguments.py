"""The command line as a whole, and where the store lies."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pykka_imagestore.cli.parser import Parser, RawHelp, Verbs, add_common_options
from pykka_imagestore.cli.verb_arguments import add_verbs
from pykka_imagestore.errors import InvalidInputError

DESCRIPTION = "Keep container images as directories: put archives and OCI layouts, get the paths of their layers."

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
  imagestore prune --budget 20G --keep base:1.0
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ``verb`` names what to do.

    Raises:
        SystemExit: With status 2 and a message for wrong usage, with 0 after help.
    """
    options, unknown = make_parser().parse_known_args(arguments)
    if unknown:  # argparse would show the usage of the program, which lists no option of the verb
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.verb == "put" and options.name is not None and len(options.archives) > 1:
        options.parser.error("argument --name: puts one image, so name one archive")
    if options.json and getattr(options, "format", None) is not None:
        options.parser.error("argument --format: not allowed with argument --json")
    return options


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. The documentation is generated from it, too."""
    parser = Parser(
        prog="imagestore",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=RawHelp,
        allow_abbrev=False,
    )
    add_common_options(parser)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    add_verbs(Verbs(parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog="imagestore")))
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


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata  # noqa: PLC0415 - slow, and seldom needed

        try:
            version = importlib.metadata.version("pykka-imagestore")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"imagestore {version}")
        parser.exit()
