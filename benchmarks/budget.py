"""Does a store keep to its budget while tasks lease images, and how long does it take to hold again?

    budget.py [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--rounds N] [--images N] [--tasks N] [--threads N] [--room N]
              [--json FILE] [--quick]

A task puts one of the images with a lease, checks that all its layers are there, and releases the lease. The images
have one layer in common, and each has one of its own. The budget has room for a few of them. The exit status is 1 if a
task failed, or if the store was over its budget half a minute after the last lease had ended.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ours import TIMEOUT, seconds_of
from places import Places, add_place_arguments, work_directory
from rows import Column, Rows, add_output_arguments, print_table, write_json
from samples import Shape, write_docker_archive, write_layer

from pykka_imagestore import LocalStore

PATIENCE = 30  # seconds
COLUMNS = [
    Column("ms, median", lambda row: f"{row.median() * 1000:.2f}"),
    Column("most", lambda row: f"{max(row.seconds) * 1000:.2f}"),
    Column("errors", lambda row: f"{sum(row.values['errors']):.0f}"),
    Column("KiB at the end, most", lambda row: f"{max(row.values['bytes']) / 1024:.0f}"),
    Column("KiB allowed", lambda row: f"{max(row.values['budget_bytes']) / 1024:.0f}"),
]


def work(store: LocalStore, archives: list[Path], seed: int) -> Exception | None:
    chance = random.Random(seed)
    number = chance.randrange(len(archives))
    try:
        with store.put(f"app:{number}", archives[number], lease=True).get(timeout=TIMEOUT) as leased:
            time.sleep(chance.random() / 100)
            lost = [layer.path for layer in leased.image.layers if not any(layer.path.iterdir())]
            return FileNotFoundError(f"while it was leased: {lost}") if lost else None
    except Exception as error:  # noqa: BLE001 - counted
        return error


def wait_until_it_holds(store: LocalStore, budget_bytes: int) -> int:
    """Return what the layers take, as soon as that is within the budget or patience runs out."""
    deadline = time.monotonic() + PATIENCE
    while (taken := store.usage().get(timeout=TIMEOUT).bytes) > budget_bytes and time.monotonic() < deadline:
        time.sleep(0.005)
    return taken


def measure(directory: Path, archives: list[Path], budget_bytes: int, options: argparse.Namespace, rows: Rows) -> None:
    seeds = range(len(rows) * options.tasks, (len(rows) + 1) * options.tasks)
    with (
        LocalStore.start(directory / "store", durable=False, budget_bytes=budget_bytes) as store,
        ThreadPoolExecutor(options.threads) as threads,
    ):
        begin = time.perf_counter()
        outcomes = list(threads.map(lambda seed: work(store, archives, seed), seeds))
        seconds = time.perf_counter() - begin
        errors = [error for error in outcomes if error is not None]
        for error in errors[:3]:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        taken = 0

        def wait() -> None:
            nonlocal taken
            taken = wait_until_it_holds(store, budget_bytes)

        held = seconds_of(wait)
        facts = {"errors": len(errors), "bytes": taken, "budget_bytes": budget_bytes}
        rows.add(f"run {len(rows) // 2 + 1}: a task", seconds=seconds / options.tasks, **facts)
        rows.add(f"run {len(rows) // 2 + 1}: until the budget holds", seconds=held, **facts)


def room_for(archives: list[Path], directory: Path, images: int) -> int:
    """Return what the layers of a number of images take in a store."""
    with LocalStore.start(directory / "measured", durable=False) as store:
        for number in range(images):
            store.put(f"app:{number}", archives[number]).get(timeout=TIMEOUT)
        return store.usage().get(timeout=TIMEOUT).bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--threads", type=int, default=8, help="tasks at once")
    parser.add_argument("--room", type=int, default=3, help="images that the budget has room for")
    add_output_arguments(parser)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.images, options.tasks = 1, 5, 10
    rows = Rows()
    with work_directory(options.on) as directory:
        base = write_layer(directory / "base", Shape("", 10, 8000), seed=1000)
        archives = [
            write_docker_archive(
                directory / f"{number}.tar",
                [base, write_layer(directory / f"{number}", Shape("", 20, 8000), seed=number)],
            )
            for number in range(options.images)
        ]
        budget_bytes = room_for(archives, directory, options.room)
        places = Places(directory, options.fresh_fs, options.fs)
        for _ in range(options.rounds):
            with places.fresh() as place:
                measure(place, archives, budget_bytes, options, rows)
        on = places.file_system
    title = f"{options.images} images, {options.tasks} tasks, {options.threads} at once"
    print_table(title, rows, COLUMNS, markdown=options.markdown)
    write_json(options.json, {title: rows}, benchmark="budget", title="Seconds under a budget", file_system=on)
    sys.exit(any(sum(row.values["errors"]) or max(row.values["bytes"]) > budget_bytes for row in rows.values()))


if __name__ == "__main__":
    main()
