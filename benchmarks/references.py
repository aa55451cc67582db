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
from samples import Shape, write_docker_archive, write_layer

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
MOST_OWN_LAYERS = 10_000  # images; to make the directories of more takes minutes
FRAME = bytes(450)  # what a change of an image with five layers takes


def fill(store: Path, images: int, *, own_layers: bool = False) -> None:
    """Write the checkpoint of a store with a number of images, and their layers; each has perhaps one of its own."""
    message = DockerProvisionerImages()
    for number in range(images):
        layers = [*LAYERS[1:], DiffID(f"sha256:{number + 1000:064x}")] if own_layers else LAYERS
        for layer in layers if own_layers or number == 0 else []:
            (store / "layers" / layer.replace(":", "-") / "rootfs").mkdir(parents=True, exist_ok=True)
        message.images.add(name=f"example.com/team/image{number}:latest", layer_ids=layers)
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
    if images <= MOST_OWN_LAYERS:
        measure_images(directory, images, rows)


def measure_images(directory: Path, images: int, rows: Rows) -> None:
    """Measure what a program with a local store waits for, where each image has a layer of its own."""
    fill(directory / "images", images, own_layers=True)
    tiny = [
        write_docker_archive(directory / f"{number}.tar", [write_layer(directory / "layer", Shape("", 1, 100), number)])
        for number in range(20)
    ]
    with LocalStore.start(directory / "images", workers=2) as store:
        store.put("first", tiny[0]).get(timeout=TIMEOUT)  # starts the workers

        def put(number: int) -> None:
            store.put(f"new{number}", tiny[number + 1]).get(timeout=TIMEOUT)

        many = f"{images:,} images"
        rows.add(f"put of a tiny image beside {many}", seconds=one_by_one(put, len(tiny) - 1))
        listed = one_by_one(lambda _: store.list().get(timeout=TIMEOUT), 20)
        rows.add(f"list of a local store, {many} with a layer each", seconds=listed)


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
