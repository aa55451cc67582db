"""What the user may type: verbs, options, and where the store lies."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.text import escaped

DESCRIPTION = "Keep container images as directories: put archives and OCI layouts, get the paths of their layers."

EPILOG = """\
exit status:
  0    done
  1    refused, failed, or not there: one sentence on stderr says which
  2    wrong usage
  130  interrupted with Ctrl-C (143: terminated, 129: hung up); what was begun has been undone

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
    """Return the parser of the command line; the documentation is made from it, too."""
    parser = _Parser(
        prog="imagestore",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", metavar="DIR", help=STORE_HELP)
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
        option: What ``--store`` says, if anything.
        environment: Where to look else. An empty variable counts for none.

    Spec:
        XDG Base Directory Specification: a relative $XDG_DATA_HOME is to be ignored.
    """
    named = option or environment.get("IMAGESTORE_DIR")
    if named:
        return Path(absolute(named))
    data = Path(environment.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path("~/.local/share").expanduser()) / "imagestore"


def absolute(path: str) -> str:
    """Return a path made absolute; links in it stay.

    Raises:
        InvalidInputError: It is relative to a directory that was deleted.
    """
    try:
        return str(Path(path).absolute())
    except FileNotFoundError:
        raise InvalidInputError(f"{path}: the working directory was deleted; name an absolute path") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(escaped(message))  # an argument may be a file's name, whoever chose that


class _Verbs:
    """Adds verbs, each of which takes the common options too: they may stand before the verb or after it."""

    def __init__(self, parsers: argparse._SubParsersAction[_Parser]) -> None:
        self._parsers = parsers
        # A default here would win over what stood before the verb.
        self._common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
        self._common.add_argument("--store", metavar="DIR", help=STORE_HELP)
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
        "Layers that the store has are not read again. Prints the images.",
    )
    parser.add_argument(
        "archive",
        metavar="ARCHIVE",
        help="what docker save wrote, or an OCI archive; may be gzip, bzip2, xz or zstd; - for standard input; "
        "or a directory that is an OCI layout",
    )
    parser.add_argument("--name", help="put one image, under this name")
    parser.add_argument(
        "--select",
        metavar="REF",
        help="which image, if there are several: its name or tag there, or the digest of its config or manifest",
    )
    parser.add_argument(
        "--platform",
        metavar="OS/ARCH",
        help="which of the images that share a name, as linux/arm64 or linux/arm/v7 (default: this machine's)",
    )
    parser.add_argument("--sandbox", metavar="DIR", help="directory whose files stdout and stderr get what workers say")
    parser.add_argument(
        "--not-durable",
        action="store_true",
        help="do not wait until all is on disk: faster, but a power loss may leave layers in part, unnoticed",
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
    parser = verbs.add(
        "inspect", "print an image's config", "With --json, as one compact document; what it says is the same."
    )
    _add_name(parser)


def _add_remove(verbs: _Verbs) -> None:
    parser = verbs.add("remove", "remove an image", "Layers that no other image has are deleted.")
    _add_name(parser)


def _add_prune(verbs: _Verbs) -> None:
    parser = verbs.add(
        "prune",
        "remove images that are not used, and layers that no image has",
        "Without --unused-for, --budget and --budget-inodes no image is removed, and for a budget that cannot be kept "
        "none is. An image is used when it is put or got. What somebody has a lease of, or puts just now, stays. "
        "Prints what was removed.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    parser.add_argument("--keep", metavar="NAME", action="append", default=[], help="never this image; may be repeated")
    parser.add_argument(
        "--unused-for", metavar="TIME", help="images not used for so long: seconds, or as 30m, 12h, 7d, 2w"
    )
    parser.add_argument(
        "--budget",
        metavar="SIZE",
        help="the least recently used, until what is left takes no more than this: bytes, or as 500M, 20G",
    )
    parser.add_argument(
        "--budget-inodes",
        type=int,
        metavar="N",
        help="the same for files, directories and the like: no more than N of them",
    )


def _add_du(verbs: _Verbs) -> None:
    parser = verbs.add(
        "du",
        "print what images cost on disk",
        "OWN is what no other image shares, and so what removing the image frees. Tells also who has leases.",
    )
    parser.add_argument("--layers", action="store_true", help="also each layer")


def _add_check(verbs: _Verbs) -> None:
    parser = verbs.add(
        "check",
        "look whether what is stored is what it must be",
        "Changes nothing. Prints what is wrong, and exits with 1 if anything is.",
    )
    _add_deep(parser)


def _add_repair(verbs: _Verbs) -> None:
    parser = verbs.add(
        "repair",
        "check, and take out damaged layers and configs",
        "Their images are incomplete then, until they are put again. Exits with 1 if anything was wrong.",
    )
    _add_deep(parser)


def _add_deep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deep", action="store_true", help="read every byte, not only whether all parts are there")
    _add_workers(parser)


def _add_unpack(verbs: _Verbs) -> None:
    parser = verbs.add(
        "unpack",
        "unpack one layer file into an empty directory",
        "The store is not touched. Prints the layer's DiffID, the bytes of its tar, and its entries. "
        "If the layer is refused, nothing of it is left. The directory is closed to others until all is there; one "
        "that was there before lets in nobody then whom it kept out. Mind that layers may hold set-user-ID programs.",
    )
    parser.add_argument("layer", metavar="LAYER", help="a layer's tar; may be gzip, bzip2, xz or zstd")
    parser.add_argument("directory", metavar="DIRECTORY", help="empty and your own, or made if it is not there")


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="in any spelling: app, docker.io/library/app:latest")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", metavar="N", type=_positive, help="worker processes (default: the CPUs that this one may use)"
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata  # noqa: PLC0415 - slow, and seldom needed

        try:
            version = importlib.metadata.version("pykka-imagestore")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"imagestore {version}")
        parser.exit()
