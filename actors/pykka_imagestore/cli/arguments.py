"""The command line: its verbs and options, and where the store lies."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pykka_imagestore.cli import values
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.text import escaped

DESCRIPTION = "Keep container images as directories: put archives and OCI layouts, get the paths of their layers."

EPILOG = """\
exit status:
  0    done
  1    refused, failed, not found, or faults found: one sentence on stderr says which
  2    wrong usage, such as an unknown option, or a name or size that is none
  130  interrupted with Ctrl-C (143: terminated, 129: hung up); unfinished work has been undone

examples:
  docker save app:1.0 | imagestore put -
  skopeo copy docker://app:1.0 oci:app && imagestore put --name app:1.0 app
  imagestore get app:1.0
  imagestore get --json app:1.0 | jq -r '.layers[].path'
  imagestore inspect --json app:1.0 | jq .config.Env
  imagestore prune --budget 20G --keep base:1.0
"""

STORE_HELP = "the store's directory (default: $IMAGESTORE_DIR, else imagestore in $XDG_DATA_HOME or ~/.local/share)"
JSON_HELP = "print one JSON document instead of text for people"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ``verb`` names what to do.

    Raises:
        SystemExit: With status 2 and a message for wrong usage, with 0 after help.
    """
    return make_parser().parse_args(arguments)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. The documentation is generated from it, too."""
    parser = _Parser(
        prog="imagestore",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", metavar="DIR", type=values.path, help=STORE_HELP)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = _Verbs(parser.add_subparsers(dest="verb", metavar="VERB", required=True))
    _add_put(verbs)
    _add_get(verbs)
    _add_list(verbs)
    _add_inspect(verbs)
    _add_remove(verbs)
    _add_prune(verbs)
    _add_du(verbs)
    _add_check(verbs)
    _add_repair(verbs)
    _add_unpack(verbs)
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(escaped(message))  # an argument may be a file name from an untrusted source


class _Verbs:
    """Adds verbs. Each takes the common options too, so these may stand before the verb or after it."""

    def __init__(self, parsers: argparse._SubParsersAction[_Parser]) -> None:
        self._parsers = parsers
        # A default here would override an option that stood before the verb.
        self._common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
        self._common.add_argument("--store", metavar="DIR", type=values.path, help=STORE_HELP)
        self._common.add_argument("--json", action="store_true", help=JSON_HELP)

    def add(self, verb: str, summary: str, more: str = "") -> _Parser:
        return self._parsers.add_parser(
            verb, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}", parents=[self._common]
        )


def _add_put(verbs: _Verbs) -> None:
    parser = verbs.add(
        "put",
        "put the images of an archive into the store",
        "Without --name, every image is put under every name that the archive gives it, as docker load does. "
        "One without a name is put under the digest of its config. "
        "Layers that the store has are not read again. Prints the images.",
    )
    parser.add_argument(
        "archive",
        metavar="ARCHIVE",
        type=values.path,
        help="what docker save wrote, or an OCI archive; may be gzip, bzip2, xz or zstd; - for standard input; "
        "or a directory that is an OCI layout",
    )
    parser.add_argument("--name", type=values.image_name, help="put one image, under this name")
    parser.add_argument(
        "--select",
        metavar="REF",
        help="which image, if there are several: its name or tag there, or the digest of its config or manifest",
    )
    parser.add_argument(
        "--platform",
        metavar="OS/ARCH",
        type=values.platform,
        help="which of the images that share a name: linux/arm64, linux/arm/v7 (default: this machine's)",
    )
    parser.add_argument(
        "--sandbox",
        metavar="DIR",
        type=values.path,
        help="directory for the workers' output, in its files stdout and stderr",
    )
    parser.add_argument(
        "--follow-links",
        action="store_true",
        help="follow symbolic links in a directory that is an OCI layout, wherever they lead",
    )
    parser.add_argument(
        "--not-durable",
        action="store_true",
        help="do not wait until all is on disk: faster, but a power loss may leave damaged layers, unnoticed",
    )
    _add_workers(parser)


def _add_get(verbs: _Verbs) -> None:
    parser = verbs.add(
        "get", "print where an image's layers lie", "Root layer first. The directories are for reading only."
    )
    _add_name(parser)


def _add_list(verbs: _Verbs) -> None:
    verbs.add("list", "list all images", "Images with missing layers are marked incomplete.")


def _add_inspect(verbs: _Verbs) -> None:
    parser = verbs.add("inspect", "print an image's config", "With --json, the same as one compact document.")
    _add_name(parser)


def _add_remove(verbs: _Verbs) -> None:
    parser = verbs.add("remove", "remove an image", "Layers that no other image has are deleted.")
    _add_name(parser)


def _add_prune(verbs: _Verbs) -> None:
    parser = verbs.add(
        "prune",
        "remove images that are not used, and layers that no image has",
        "Without --unused-for, --budget and --budget-inodes no image is removed, and none is removed for a budget that "
        "cannot be kept. A put or a get counts as use. Leased images and those that are being put stay. "
        "Prints what was removed.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    parser.add_argument(
        "--keep",
        metavar="NAME",
        type=values.stored_image,
        action="append",
        default=[],
        help="do not remove this image; may be repeated",
    )
    parser.add_argument(
        "--unused-for",
        metavar="TIME",
        type=values.duration,
        help="remove images not used for this long: seconds, or 30m, 12h, 7d, 2w",
    )
    parser.add_argument(
        "--budget",
        metavar="SIZE",
        type=values.size,
        help="remove the least recently used images until the rest takes no more than this: bytes, or 500M, 20G",
    )
    parser.add_argument(
        "--budget-inodes",
        metavar="N",
        type=values.number,
        help="the same for inodes: until the rest has no more than N files, directories and other nodes",
    )


def _add_du(verbs: _Verbs) -> None:
    parser = verbs.add(
        "du",
        "print what images cost on disk",
        "OWN is what the image shares with no other, so what removing it frees. Also lists leases.",
    )
    parser.add_argument("--layers", action="store_true", help="list the layers too")


def _add_check(verbs: _Verbs) -> None:
    parser = verbs.add(
        "check",
        "check that what is stored is what was put",
        "Changes nothing. Prints what is wrong, and exits with 1 if anything is.",
    )
    _add_deep(parser)


def _add_repair(verbs: _Verbs) -> None:
    parser = verbs.add(
        "repair",
        "check, and take out damaged layers and configs",
        "Their images are incomplete until they are put again. What only a deep check finds, only --deep repairs. "
        "Exits with 1 if anything was wrong.",
    )
    _add_deep(parser)


def _add_deep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deep", action="store_true", help="read every byte, instead of only looking whether all parts are there"
    )
    _add_workers(parser)


def _add_unpack(verbs: _Verbs) -> None:
    parser = verbs.add(
        "unpack",
        "unpack one layer file into an empty directory",
        "The store is not touched. Prints the layer's DiffID, the bytes of its tar, and its entries. "
        "If the layer is refused, nothing of it is left. Other users cannot enter the directory until the layer is "
        "complete, and an existing directory never admits more users than before. Note that layers may hold "
        "set-user-ID programs.",
    )
    parser.add_argument(
        "layer", metavar="LAYER", type=values.path, help="a layer's tar; may be gzip, bzip2, xz or zstd"
    )
    parser.add_argument(
        "directory", metavar="DIRECTORY", type=values.path, help="empty and your own; made if it does not exist"
    )


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", type=values.stored_image, help="in any spelling: app, docker.io/library/app:latest"
    )


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        metavar="N",
        type=values.positive_number,
        help="worker processes (default: the number of CPUs that may be used)",
    )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata  # noqa: PLC0415 - slow, and seldom needed

        try:
            version = importlib.metadata.version("pykka-imagestore")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"imagestore {version}")
        parser.exit()
