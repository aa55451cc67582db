"""How soon does a store answer: a second put, a get, and a get while it puts another image?

    latency.py [ARCHIVE] [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--rounds N] [--workers N] [--json FILE] [--quick]

Each round has a fresh store in this process. By default a docker-archive is made up.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from ours import TIMEOUT, seconds_of
from places import Places, add_place_arguments, read_into_cache, work_directory
from rows import Column, Rows, add_output_arguments, print_table, write_json
from samples import Shape, write_docker_archive, write_layer

from pykka_imagestore import LocalStore

MILLISECONDS = [
    Column("ms, median", lambda row: f"{row.median() * 1000:.2f}"),
    Column("least", lambda row: f"{min(row.seconds) * 1000:.2f}"),
    Column("most", lambda row: f"{max(row.seconds) * 1000:.2f}"),
]


def measure(store: LocalStore, archive: Path, tiny: Path, rows: Rows) -> None:
    store.put("tiny", tiny).get(timeout=TIMEOUT)
    put, gets = store.put("big", archive), []
    while not put.done():
        gets.append(seconds_of(lambda: store.get("tiny").get(timeout=TIMEOUT)))
        time.sleep(0.001)
    put.get(timeout=0)
    again = [seconds_of(lambda: store.put("big", archive).get(timeout=TIMEOUT)) for _ in range(20)]
    idle = [seconds_of(lambda: store.get("big").get(timeout=TIMEOUT)) for _ in range(200)]
    rows.add("put again", seconds=statistics.median(again))
    rows.add("get", seconds=statistics.median(idle))
    rows.add("get of another image while a put runs", seconds=statistics.median(gets))
    rows.add("... 99 of 100 are no slower than", seconds=statistics.quantiles([*gets, gets[-1]], n=100)[-1])
    rows.add("... the slowest", seconds=max(gets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="of an image with one name")
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="default: the CPUs that this process may use")
    add_output_arguments(parser)
    arguments = parser.parse_args()
    rounds, rows = 1 if arguments.quick else arguments.rounds, Rows()
    with work_directory(arguments.on) as work:
        tiny = write_docker_archive(work / "tiny.tar", [write_layer(work / "t", Shape("", 10, 1000))])
        files = 100 if arguments.quick else 20_000
        archive = arguments.archive or write_docker_archive(
            work / "big.tar", [write_layer(work / "b", Shape("", files, 8000), seed=1)]
        )
        read_into_cache(archive)
        places = Places(work, arguments.fresh_fs, arguments.fs)
        for _ in range(rounds):
            with (
                places.fresh() as directory,
                LocalStore.start(directory, workers=arguments.workers, durable=False) as store,
            ):
                measure(store, archive, tiny, rows)
        on = places.file_system
    print_table(f"{archive.name}; {rounds} rounds", rows, MILLISECONDS, markdown=arguments.markdown)
    title = "Seconds until a store answers"
    write_json(arguments.json, {archive.name: rows}, benchmark="latency", title=title, rounds=rounds, file_system=on)


if __name__ == "__main__":
    main()
