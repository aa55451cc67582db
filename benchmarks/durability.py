"""What does it cost to make an image's layers durable: syncfs or fsync of each file, for each layer or once?

    durability.py [ARCHIVE] [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--rounds N] [--workers N] [--json FILE] [--quick]

The layers are unpacked by worker processes, as in a put. The ways take turns, each into a fresh directory. Use
--fresh-fs on the disk in question.

- nothing synced: what unpacking alone takes.
- syncfs for each layer, in its worker: the worker waits, and unpacks nothing meanwhile.
- syncfs for each layer, beside: the worker goes on with the next layer.
- syncfs beside, and every 256 MiB while layers are unpacked: the disk is kept busy from the beginning.
- syncfs once, at the end.
- fsync of each file, in the layer's worker.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from durable_jobs import unpack, unpack_and_sync, unpack_and_sync_files
from ours import TIMEOUT
from places import Places, add_place_arguments, read_into_cache, work_directory
from rows import SECONDS, Rows, add_output_arguments, print_table, ratio_to, write_json
from samples import Shape, write_docker_archive, write_layer

from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
from pykka_imagestore.jobs.untar_layer import UntarLayer
from pykka_imagestore.runtime import Future, WorkerPool, collect

NOTHING = "nothing synced"
EVERY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """A way to do it: the worker's function, and what runs beside it."""

    job: Callable[[UntarLayer], LayerCounts]
    beside: bool = False
    early: bool = False
    once: bool = False


WAYS = {
    NOTHING: Way(unpack),
    "syncfs for each layer, in its worker": Way(unpack_and_sync),
    "syncfs for each layer, beside": Way(unpack, beside=True),
    "syncfs beside, and every 256 MiB": Way(unpack, beside=True, early=True),
    "syncfs once, at the end": Way(unpack, once=True),
    "fsync of each file": Way(unpack_and_sync_files),
}


class Beside:
    """Syncs in a thread; all that wait share the next sync."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self._bytes: dict[str, int] = {}
        self._synced_bytes = 0

    def sync(self) -> None:
        self._thread.submit(Disk().sync_file_system, self._directory).result()

    def note(self, layer: str, counts: LayerCounts) -> None:
        with self._lock:
            self._bytes[layer] = counts.size_bytes
            total = sum(self._bytes.values())
            if total < self._synced_bytes + EVERY_BYTES:
                return
            self._synced_bytes = total
        self._thread.submit(Disk().sync_file_system, self._directory)


def measure(way: Way, pool: WorkerPool, requests: list[UntarLayer], directory: Path) -> float:
    begin = time.perf_counter()
    beside = Beside(directory)
    with ThreadPoolExecutor(len(requests)) as waiting:

        def run(request: UntarLayer) -> None:
            def note(counts: LayerCounts) -> None:
                beside.note(request.target, counts)

            job: Future[LayerCounts] = pool.run(way.job, request, on_report=note if way.early else None)
            job.get(timeout=TIMEOUT)
            if way.beside:
                beside.sync()

        list(waiting.map(run, requests))
    if way.once:
        Disk().sync_file_system(directory)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path)
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int)
    add_output_arguments(parser)
    arguments = parser.parse_args()
    rounds, rows = 1 if arguments.quick else arguments.rounds, Rows()
    with work_directory(arguments.on) as work, WorkerPool(arguments.workers) as pool:
        files = 100 if arguments.quick else 20_000
        archive = arguments.archive or write_docker_archive(
            work / "big.tar", [write_layer(work / f"l{n}", Shape("", files // (n + 1), 8000), seed=n) for n in range(3)]
        )
        read_into_cache(archive)
        image = untar_image(UntarImage(str(archive.resolve()), str(work / "inflated"))).images[0]
        layers = sorted(image.layers, key=lambda layer: layer.cost, reverse=True)
        places = Places(work, arguments.fresh_fs, arguments.fs)
        collect([pool.run(time.sleep, 0.1) for _ in range(pool.workers)]).get(timeout=TIMEOUT)
        for _ in range(rounds):
            for name, way in WAYS.items():
                with places.fresh() as directory:
                    first = UntarLayer(layers[0], str(directory / "0"))
                    requests = [
                        replace(first, layer=layer, target=str(directory / str(n))) for n, layer in enumerate(layers)
                    ]
                    rows.add(name, seconds=measure(way, pool, requests, directory))
        on = places.file_system
    columns = (*SECONDS, ratio_to(rows[NOTHING]))
    print_table(f"{archive.name}; {rounds} rounds", rows, columns, markdown=arguments.markdown)
    title = "Seconds until an image's layers are durable"
    write_json(arguments.json, {archive.name: rows}, benchmark="durability", title=title, rounds=rounds, file_system=on)


if __name__ == "__main__":
    main()
