"""What does one more reference cost, at any number of images, and how soon does a store with many images answer?

    references.py [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--rounds N] [--images 10,1000,100000] [--json F] [--quick]

Each round has a fresh store. A put of a reference waits for the one before, so each has a sync of its own. The baseline
appends as many bytes to a file and syncs them with fdatasync, in turns, on the same file system.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ours import TIMEOUT, seconds_of
from places import Places, add_place_arguments, work_directory
from rows import Column, Rows, add_output_arguments, print_table, write_json

from pykka_imagestore import DiffID, LocalStore, ReferenceStore
from pykka_imagestore._proto.docker_provisioner_pb2 import DockerProvisionerImages

BASELINE = "append and fdatasync"
COLUMNS = [
    Column("ms, median", lambda row: f"{row.median() * 1000:.3f}"),
    Column("least", lambda row: f"{min(row.seconds) * 1000:.3f}"),
    Column("most", lambda row: f"{max(row.seconds) * 1000:.3f}"),
    Column("a second", lambda row: f"{1 / row.median():,.0f}"),
]
LAYERS = [DiffID(f"sha256:{number:064x}") for number in range(1, 6)]
FRAME = bytes(450)  # what a change of an image with five layers takes


def fill(store: Path, images: int) -> None:
    """Write the checkpoint of a store with a number of images, and their layers."""
    for layer in LAYERS:
        (store / "layers" / layer.replace(":", "-") / "rootfs").mkdir(parents=True)
    message = DockerProvisionerImages()
    for number in range(images):
        message.images.add(name=f"example.com/team/image{number}:latest", layer_ids=LAYERS)
    data = message.SerializeToString()
    (store / "storedImages").write_bytes(struct.pack("<I", len(data)) + data)


def one_by_one(change: Callable[[int], object], count: int) -> float:
    return statistics.median([seconds_of(partial(change, number)) for number in range(count)])


def measure(directory: Path, images: int, count: int, rows: Rows) -> None:
    store = directory / "store"
    fill(store, images)
    many = f"{images:,} images"
    file = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with ReferenceStore.start(store) as references, ReferenceStore.start(store) as other:
        rows.add(f"recover, {many}", seconds=seconds_of(lambda: references.recover().get(timeout=TIMEOUT)))
        other.recover().get(timeout=TIMEOUT)

        def append(_: int) -> None:
            os.write(file, FRAME)
            os.fdatasync(file)

        def put(number: int) -> None:
            references.put(f"new{number}", LAYERS).get(timeout=TIMEOUT)

        rows.add(f"{BASELINE}, {many}", seconds=one_by_one(append, count))
        rows.add(f"put, {many}", seconds=one_by_one(put, count))
        see = one_by_one(lambda number: other.get(f"new{number}").get(timeout=TIMEOUT), count)
        rows.add(f"get of what another store put, {many}", seconds=see)
        rows.add(f"list, {many}", seconds=one_by_one(lambda _: references.list().get(timeout=TIMEOUT), 5))
    os.close(file)
    with LocalStore.start(store, workers=1) as local:
        rows.add(f"recover of a local store, {many}", seconds=seconds_of(lambda: local.recover().get(timeout=TIMEOUT)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--images", type=lambda text: list(map(int, text.split(","))), default=[10, 1000, 10_000, 100_000]
    )
    add_output_arguments(parser)
    arguments = parser.parse_args()
    rounds, count = (1, 20) if arguments.quick else (arguments.rounds, 500)
    groups: dict[str, Rows] = {}
    with work_directory(arguments.on) as work:
        places = Places(work, arguments.fresh_fs, arguments.fs)
        for _ in range(rounds):
            for images in [10] if arguments.quick else arguments.images:
                with places.fresh() as directory:
                    measure(directory, images, count, groups.setdefault(f"{images:,} images", Rows()))
        on = places.file_system
    for title, rows in groups.items():
        print_table(f"{title}; {rounds} rounds", rows, COLUMNS, markdown=arguments.markdown)
    title = "Seconds for one more reference"
    write_json(arguments.json, groups, benchmark="references", title=title, rounds=rounds, file_system=on)


if __name__ == "__main__":
    main()
