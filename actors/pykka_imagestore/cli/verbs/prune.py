"""``imagestore prune``: images that are not used, and layers that no image has."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.log import show_warnings
from pykka_imagestore.cli.output import done_anyway, print_json, print_line
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.core.plan_prune import Pruned
from pykka_imagestore.core.sizes import format_size, parse_duration, parse_size
from pykka_imagestore.local_store import LocalStore


def run(options: argparse.Namespace) -> None:
    """Prune, wait until the disk is free of it, and print what was removed."""
    show_warnings()
    directory = store_directory(options.store)
    unused_for = None if options.unused_for is None else parse_duration(options.unused_for)
    budget_bytes = None if options.budget is None else parse_size(options.budget)
    require_store(directory)
    budget = {"budget_bytes": budget_bytes, "budget_inodes": options.budget_inodes}
    which = {"keep": options.keep, "unused_for": unused_for, **budget}
    with StopSignals() as signals:
        with LocalStore.start(directory) as store:
            pruned = signals.wait(store.prune(**which, dry_run=options.dry_run))
            signals.wait_if_not_stopped(store.swept())
        if options.dry_run:
            _print(options, pruned)
            return
        with done_anyway():
            _print(options, pruned)


def _print(options: argparse.Namespace, pruned: Pruned) -> None:
    if options.json:
        print_json(
            {
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
        )
        return
    removed, freed = ("would remove", "would free") if options.dry_run else ("removed", "freed")
    for image in pruned.images:
        print_line(f"{removed} {image.name}")
    size, kept = format_size(pruned.freed_bytes), format_size(pruned.kept_bytes)
    print_line(f"{freed} {size} in {len(pruned.layers)} layers; {kept} are left")
    if pruned.is_out_of_reach:
        least = f"{format_size(pruned.least_bytes)} and {pruned.least_inodes} inodes"
        print_line(f"that budget cannot be kept: {least} are leased, being put, or to be kept; no image goes for it")
