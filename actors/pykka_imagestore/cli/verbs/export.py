"""``imagestore export NAME|ID``: writes the tree of an image or a container as a tar."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pykka_imagestore.cli.arguments import absolute, store_directory
from pykka_imagestore.cli.containers import OWNER
from pykka_imagestore.cli.named import advised, find_names
from pykka_imagestore.cli.output import OutputError, complain, done_anyway, print_json, print_table
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.sizes import format_size
from pykka_imagestore.durable.containers import find_container_ids
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.local_store import LocalStore
from pykka_imagestore.provisioner import Provisioner
from pykka_imagestore.text import shown

if TYPE_CHECKING:
    from pykka_imagestore.jobs.export_tar import ExportedTar

_MAX_TOLD = 10


def run(options: argparse.Namespace) -> None:
    """Write the tar, and say what is not in it as it was."""
    directory = store_directory(options.store)
    require_store(directory)
    target = _standard_output(options) if options.output in (None, "-") else absolute(options.output)
    is_container = options.what in find_container_ids(StorePaths(directory))
    with (
        StopSignals() as signals,
        LocalStore.start(directory) as store,
        Provisioner.start(store, owner=OWNER) as provisioner,
    ):
        if is_container:
            exported = signals.wait(provisioner.export(options.what, target))
        else:
            with advised(directory, options.what, "image or container"):
                name = find_names(directory, options.what)[0]
                exported = signals.wait(provisioner.export_image(name, target))
    _tell_left_out(exported)
    if isinstance(target, str):
        with done_anyway():
            _print(options, target, exported)


def _standard_output(options: argparse.Namespace) -> int:
    """Return the descriptor of standard output, which gets the tar.

    Raises:
        OutputError: It is closed.
        InvalidInputError: It is a terminal, which a tar would upset; or is to get a document, too.
    """
    if options.json:
        raise InvalidInputError("--json prints a document where the tar would go; name a file for that with --output")
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    if sys.stdout.isatty():
        raise InvalidInputError("a tar is nothing for a terminal; name a file with --output, or redirect it")
    return sys.stdout.fileno()


def _tell_left_out(exported: ExportedTar) -> None:
    for path, why in exported.left_out[:_MAX_TOLD]:
        complain(f"warning: {shown(path)} is not in the tar as it was: {why}")
    if exported.left_out_count > _MAX_TOLD:
        complain(f"warning: nor are {exported.left_out_count - _MAX_TOLD} more")


def _print(options: argparse.Namespace, target: str, exported: ExportedTar) -> None:
    if options.json:
        document = {"path": target, "entries": exported.entries, "bytes": exported.size_bytes}
        print_json(document | {"left_out": exported.left_out_count})
    elif not options.quiet:
        print_table([("path", target), ("size", format_size(exported.size_bytes)), ("entries", str(exported.entries))])
