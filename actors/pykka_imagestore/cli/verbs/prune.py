"""``imagestore prune``: removes unused images, and layers that no image has."""

from __future__ import annotations

import argparse
from typing import Any

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.named import find_names_to_keep
from pykka_imagestore.cli.output import counted, done_anyway, print_json, print_line, print_lines
from pykka_imagestore.cli.progress_bar import removal_bar
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.plan_prune import Pruned
from pykka_imagestore.core.sizes import format_size
from pykka_imagestore.local_store import LocalStore


def run(options: argparse.Namespace) -> None:
    """Prune, wait until all of it is deleted, and print what was removed."""
    directory = store_directory(options.store)
    require_store(directory)
    keep = [name for text in options.keep for name in find_names_to_keep(directory, text)]
    with StopSignals() as signals:
        with LocalStore.start(directory) as store, removal_bar(StorePaths(directory), quiet=options.quiet):
            pruned = signals.wait(
                store.prune(
                    keep=keep,
                    unused_for=options.unused_for,
                    budget_bytes=options.budget,
                    budget_inodes=options.budget_inodes,
                    dry_run=options.dry_run,
                )
            )
            signals.wait_if_not_stopped(store.swept())
        if options.dry_run:
            _print(options, pruned)
            return
        with done_anyway():
            _print(options, pruned)


def _print(options: argparse.Namespace, pruned: Pruned) -> None:
    if options.json:
        print_json(_document(pruned))
    elif options.quiet:
        print_lines(image.name for image in pruned.images)
    else:
        _print_lines(pruned, is_dry_run=options.dry_run)


def _print_lines(pruned: Pruned, *, is_dry_run: bool) -> None:
    removed, freed = ("would remove", "would free") if is_dry_run else ("removed", "freed")
    for image in pruned.images:
        print_line(f"{removed} {image.name}")
    size, kept = format_size(pruned.freed_bytes), format_size(pruned.kept_bytes)
    print_line(f"{freed} {size} in {counted(len(pruned.layers), 'layer')}; {kept} are left")
    if pruned.is_out_of_reach:
        least = f"{format_size(pruned.least_bytes)} and {pruned.least_inodes} inodes"
        print_line(
            f"that budget cannot be kept: {least} are leased, being put, to be kept, or needed by containers; "
            "no image is removed for it"
        )


def _document(pruned: Pruned) -> dict[str, Any]:
    return {
        "images": [image.name for image in pruned.images],
        "layers": list(pruned.layers),
        "freed_bytes": pruned.freed_bytes,
        "kept_bytes": pruned.kept_bytes,
        "freed_inodes": pruned.freed_inodes,
        "kept_inodes": pruned.kept_inodes,
        "out_of_reach": pruned.is_out_of_reach,
        "least_bytes": pruned.least_bytes,
        "least_inodes": pruned.least_inodes,
    }
