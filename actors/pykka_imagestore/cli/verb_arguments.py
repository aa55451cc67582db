"""The verbs of the command line, and the arguments and options of each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from pykka_imagestore.cli import values
from pykka_imagestore.cli.parser import Once, Parser, Verbs

SHELLS = ("bash", "zsh", "fish")
BACKENDS = ("overlay", "copy", "link", "bind")
AddVerb = Callable[..., Parser]  # Verbs.add, which knows the words for the verb already
_IMAGE_FIELDS = ("name", "config_digest", "layers")
_NAME_HELP = (
    "a name in any spelling: app, docker.io/library/app:latest; or a config digest, or at least 12 hex digits of one"
)


def _add_put(add: AddVerb) -> None:
    parser = add(
        "put the images of archives into the store",
        "Without --name, every image is put under every name that its archive gives it, as docker load does. "
        "One without a name is put under the digest of its config. "
        "Layers that the store has are not read again. If an archive is refused, the others are put all the same. "
        "Prints the images.",
    )
    parser.add_argument(
        "archives",
        metavar="ARCHIVE",
        nargs="*",
        type=values.archive,
        help="what docker save wrote, or an OCI archive; may be gzip, bzip2, xz or zstd; - for standard input; "
        "or a directory that is an OCI layout",
    )
    parser.add_argument(
        "-i",
        "--input",
        metavar="ARCHIVE",
        type=values.archive,
        action="append",
        default=[],
        help="another archive, as docker load has it",
    )
    parser.add_argument("--name", type=values.image_name, action=Once, help="put one image, under this name")
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
    _add_quiet(parser, "show no progress, and print only the names")
    _add_format(parser, _IMAGE_FIELDS)


def _add_get(add: AddVerb) -> None:
    parser = add("print where an image's layers lie", "Root layer first. The directories are for reading only.")
    _add_name(parser)
    _add_quiet(parser, "print only the directories")
    _add_format(parser, _IMAGE_FIELDS)


def _add_list(add: AddVerb) -> None:
    parser = add(
        "list all images",
        "USED is how long ago an image was last put or got. Images with missing layers are marked incomplete.",
    )
    parser.add_argument(
        "-l",
        "--long",
        action="store_true",
        help="also print what each image takes on disk, shared layers included",
    )
    _add_quiet(parser, "print only the names")
    _add_format(parser, (*_IMAGE_FIELDS, "missing", "last_used", "bytes"))


def _add_inspect(add: AddVerb) -> None:
    parser = add("print the configs of images", "With --json, each is one compact document on one line.")
    _add_names(parser)
    _add_format(parser, short=True)


def _add_remove(add: AddVerb) -> None:
    parser = add(
        "remove images",
        "Layers that no other image has are deleted. If one image cannot be removed, the others are all the same.",
    )
    _add_names(parser)
    _add_quiet(parser, "show no progress, and print only the names")


def _add_prune(add: AddVerb) -> None:
    parser = add(
        "remove images that are not used, and layers that no image has",
        "Without --unused-for, --budget and --budget-inodes no image is removed, and none is removed for a budget that "
        "cannot be kept. A put or a get counts as use. Images that are leased, being put, or needed by a "
        "container stay. "
        "Prints what was removed.",
    )
    _add_quiet(parser, "show no progress, and print only the names of images")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    parser.add_argument(
        "--keep",
        metavar="NAME",
        type=values.stored_image,
        action="append",
        default=[],
        help="do not remove this image, named as for get; may be repeated",
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


def _add_du(add: AddVerb) -> None:
    parser = add(
        "print what images cost on disk",
        "OWN is what the image shares with no other, so what removing it frees. Also lists containers, and leases.",
    )
    parser.add_argument("--layers", action="store_true", help="list the layers too")


def _add_check(add: AddVerb) -> None:
    parser = add(
        "check that what is stored is what was put",
        "Changes nothing. Prints what is wrong, and exits with 1 if anything is.",
    )
    _add_deep(parser)


def _add_repair(add: AddVerb) -> None:
    parser = add(
        "check, and take out damaged layers and configs",
        "Their images are incomplete until they are put again. What only a deep check finds, only --deep repairs. "
        "Exits with 1 if anything was wrong.",
    )
    _add_deep(parser)


def _add_deep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deep", action="store_true", help="read every byte, instead of only looking whether all parts are there"
    )
    _add_quiet(parser, "show no progress, and print only what is wrong")
    _add_workers(parser)


def _add_unpack(add: AddVerb) -> None:
    parser = add(
        "unpack one layer file into an empty directory",
        "The store is not touched. Prints the layer's DiffID, the bytes of its tar, and its entries. "
        "If the layer is refused, nothing of it is left. Other users cannot enter the directory until the layer is "
        "complete, and an existing directory never admits more users than before. Note that layers may hold "
        "set-user-ID programs.",
    )
    _add_quiet(parser, "show no progress, and print only the DiffID")
    parser.add_argument(
        "layer", metavar="LAYER", type=values.path, help="a layer's tar; may be gzip, bzip2, xz or zstd"
    )
    parser.add_argument(
        "directory", metavar="DIRECTORY", type=values.path, help="empty and your own; made if it does not exist"
    )


def _add_provision(add: AddVerb) -> None:
    parser = add(
        "make a root file system of an image",
        "Prints where it is, and how it was made. It stays, with the image's layers, until it is destroyed. "
        "By default an overlay is mounted where this user may do that; else the layers' files are copied.",
    )
    parser.add_argument(
        "id", metavar="ID", type=values.new_container_id, help="what to call it: letters, digits, '_', '.' and '-'"
    )
    _add_name(parser)
    parser.add_argument("--backend", choices=BACKENDS, help="how to make it (default: the best that works here)")
    parser.add_argument("--read-only", action="store_true", help="let nobody write to it")
    parser.add_argument(
        "--target",
        metavar="DIR",
        type=values.path,
        help="an empty directory of your own to attach it to (default: one in the store)",
    )
    parser.add_argument(
        "--upper",
        metavar="SIZE",
        type=values.size,
        help="let no more be written to it than this: bytes, or 500M, 20G; takes a file system with project quotas",
    )
    parser.add_argument(
        "--for-runtime",
        action="store_true",
        help="let its set-user-ID programs and devices work: only for a container runtime that guards against them",
    )
    parser.add_argument(
        "--not-durable",
        action="store_true",
        help="do not wait until its record is on disk: a power loss may leave a directory that nothing tells of",
    )
    _add_quiet(parser, "print only the path")
    _add_format(parser, ("id", "path", "backend", "reason", "config"), "container")


def _add_containers(add: AddVerb) -> None:
    parser = add(
        "list the root file systems that were provisioned",
        "Those of programs that have the store open, too. OWNER is what a program calls itself; (ended) means that it "
        "runs no more, and that its containers wait for it to come back, or to be destroyed.",
    )
    _add_quiet(parser, "print only the ids")
    _add_format(parser, ("id", "image", "backend", "path", "read_only", "owner", "created", "is_held"), "container")


def _add_destroy(add: AddVerb) -> None:
    parser = add(
        "remove root file systems that were provisioned",
        "They are unmounted, and what was written to them is deleted. One of a program that is still running is "
        "refused. If one cannot be removed, the others are all the same.",
    )
    parser.add_argument("ids", metavar="ID", nargs="+", type=values.container_id, help="as containers lists them")
    _add_quiet(parser, "print only the ids")


def _add_export(add: AddVerb) -> None:
    parser = add(
        "write the tree of an image or a container as a tar",
        "Of a container, what was written to it is in the tar; that may go on meanwhile. A container's id comes before "
        "an image's name. The tar has no whiteouts: it is one layer that means what all of them did.",
    )
    parser.add_argument(
        "what",
        metavar="NAME|ID",
        type=values.image_or_container,
        help="an image, named as for get; or a container's id",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=values.path, help="a file to make (default: standard output)"
    )
    _add_quiet(parser, "print nothing")


def _add_doctor(add: AddVerb) -> None:
    add(
        "print what this machine can do for root file systems",
        "Each is tried out on the store's file system, and nothing of it stays. Of what does not work it says what "
        "stands in the way and who can change that. Also lists the programs here that run something in a root file "
        "system.",
    )


def _add_completion(add: AddVerb) -> None:
    parser = add(
        "print a script that completes this command line in a shell",
        "Names of images and ids of containers are completed, too. In bash: source <(imagestore completion bash); in "
        "zsh the same with zsh, after compinit; in fish: imagestore completion fish | source.",
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def _add_help(add: AddVerb) -> None:
    parser = add("print the help of a verb, or of the program", "imagestore VERB --help prints it, too.")
    parser.add_argument("topic", metavar="VERB", nargs="?", choices=VERBS, help="a verb")


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=values.stored_image, help=_NAME_HELP)


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", type=values.stored_image, help=_NAME_HELP)


def _add_quiet(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help=what)


def _add_format(
    parser: argparse.ArgumentParser, fields: Sequence[str] = (), noun: str = "image", *, short: bool = False
) -> None:
    which = f": {', '.join(fields)}" if fields else ""
    parser.add_argument(
        *(["-f"] if short else []),
        "--format",
        metavar="TEMPLATE",
        type=partial(values.template, fields=fields),
        help=f"print a line for each {noun}, with the fields of its JSON document in braces{which}; "
        r"as '{" + (fields[0] if fields else "config.Env") + r"}'; \t is a tab",
    )


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        metavar="N",
        type=values.positive_number,
        help="worker processes (default: the number of CPUs that may be used)",
    )


# The words for each verb, in the order in which the help lists them.
_ADDERS: dict[tuple[str, ...], Callable[[AddVerb], None]] = {
    ("put", "load"): _add_put,
    ("get",): _add_get,
    ("list", "ls"): _add_list,
    ("inspect",): _add_inspect,
    ("remove", "rm"): _add_remove,
    ("prune",): _add_prune,
    ("du",): _add_du,
    ("check",): _add_check,
    ("repair",): _add_repair,
    ("unpack",): _add_unpack,
    ("provision",): _add_provision,
    ("containers",): _add_containers,
    ("destroy",): _add_destroy,
    ("export",): _add_export,
    ("doctor",): _add_doctor,
    ("completion",): _add_completion,
    ("help",): _add_help,
}
VERBS = tuple(word for words in _ADDERS for word in words)


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs that stand among the words of a command line; all, if none does or help is asked for.

    Most of the time of a parse is that of options which other verbs have.
    """
    is_help = not {"help", "-h", "--help"}.isdisjoint(verbs.words)
    wanted = [names for names in _ADDERS if not is_help and not set(names).isdisjoint(verbs.words)]
    for names in wanted or _ADDERS:
        _ADDERS[names](partial(verbs.add, names))
