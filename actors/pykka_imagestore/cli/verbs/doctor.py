"""``imagestore doctor``: what this machine can do for root file systems, and what runs them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.output import print_json, print_line, print_table
from pykka_imagestore.cli.runtimes import RuntimeProgram, find_runtimes
from pykka_imagestore.provision.backends import new_namespace
from pykka_imagestore.rootfs.abilities import Ability, find_abilities


def run(options: argparse.Namespace) -> None:
    """Try each ability on the store's file system, or where the store would be, and print what was found."""
    above = _existing(store_directory(options.store))
    with (
        tempfile.TemporaryDirectory(prefix=".imagestore-doctor-", dir=above) as place,
        closing(new_namespace()) as namespace,
    ):
        abilities = find_abilities(place, namespace)
    runtimes = find_runtimes()
    if options.json:
        print_json({"tried_in": str(above), **_documents(abilities, runtimes)})
        return
    print_line(f"tried in {above}")
    print_table(
        [("", "WORKS", "TRIED"), *((each.name, "yes" if each.works else "no", each.tried) for each in abilities)]
    )
    for ability in abilities:
        if ability.obstacle is not None:
            print_line(f"{ability.name}: {ability.obstacle}")
    if runtimes:
        print_table([("RUNTIME", "VERSION", "PATH"), *map(_row, runtimes)])
    for runtime in runtimes:
        if runtime.sound_from is not None:
            print_line(
                f"{runtime.name}: hostile images are known to break out of versions before {runtime.sound_from}; "
                "whoever installed it can update it"
            )


def _existing(directory: Path) -> Path:
    """Return the parent of a store, or the nearest directory above that there is."""
    return next(above for above in directory.absolute().parents if above.is_dir())


def _row(runtime: RuntimeProgram) -> tuple[str, ...]:
    return runtime.name, runtime.version or "-", runtime.path


def _documents(abilities: Iterable[Ability], runtimes: Iterable[RuntimeProgram]) -> dict[str, Any]:
    return {
        "abilities": [
            {
                "name": ability.name,
                "works": ability.works,
                "tried": ability.tried,
                "reason": None if ability.obstacle is None else ability.obstacle.reason,
                "remedy": None if ability.obstacle is None else ability.obstacle.remedy,
            }
            for ability in abilities
        ],
        "runtimes": [
            {
                "name": runtime.name,
                "path": runtime.path,
                "version": runtime.version,
                "sound_from": runtime.sound_from,
            }
            for runtime in runtimes
        ],
    }
