"""How long does one layer take, by shape and compression, and does it use every core? How long does its removal take?

    layers.py [--layer FILE ...] [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--rounds N] [--workers 1,2] [--json F]

By default two layers are made up, the same each time: many small files, and few large ones. Each is unpacked plain,
with gzip and with zstd. A file for --layer is a plain tar. The contestants take turns, round by round, each into a
fresh directory.

- GNU tar -x of the file; a compressed one comes through a pipe from zcat or zstd.
- ours: an OCI archive of that one layer is put into a store without final sync, after another one, so that the worker
  processes already run. The time of the put includes its index, the layer's rename, and the image's record.
- cp -r: of the tree that GNU tar made before, untimed, with its files still in the page cache.
- removed, at the end: what GNU tar had unpacked, by rm -rf, and by remove_tree in one worker process and in two at
  once.

Cores are processor seconds per second.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ours import TIMEOUT, add_workers_argument, counted, put_in_new_process, seconds_of, workers_of
from places import Places, add_place_arguments, read_into_cache, work_directory
from processes import run
from rows import PEAK, SECONDS, Column, Rows, add_output_arguments, print_table, ratio_to, write_json
from samples import MEDIA_TYPES, Shape, compress, write_layer, write_oci_archive

from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.runtime import WorkerPool

SHAPES = (Shape("many small files", 40_000, 3_000), Shape("few large files", 12, 32_000_000))
TINY_SHAPES = (Shape("tiny", 100, 300),)
TAR, RM = "GNU tar", "rm -rf"
UNPACK = {
    "plain": 'tar -xf "$1" -C "$2"',
    "gzip": 'zcat "$1" | tar -xf - -C "$2"',
    "zstd": 'zstd -dcq "$1" | tar -xf - -C "$2"',
}
CORES = Column("cores", lambda row: f"{row.median('cpu_seconds') / row.median():.2f}")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer in one compression, and an archive that holds nothing else."""

    compression: str
    stored: Path
    archive: Path


Contestant = Callable[[Path, Rows], None]


def gnu_tar(layer: Layer, directory: Path, rows: Rows) -> None:
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("sh", "-ec", UNPACK[layer.compression], "sh", layer.stored, directory)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows.add(TAR, seconds=done.seconds, cpu_seconds=cpu_between(begin, end), peak_bytes=done.peak_bytes)


def ours(layer: Layer, workers: int, warm_up: Path, directory: Path, rows: Rows) -> None:
    _, put = put_in_new_process(layer.archive, directory / "store", workers, warm_up=warm_up)
    rows.add(f"ours, {counted(workers)}", **put)


def copy(layer: Path, directory: Path, rows: Rows) -> None:
    """Copy what the layer unpacks to; the unpacking is not timed."""
    tree = unpack_tree(layer, directory)
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("cp", "-r", tree, directory / "copy")
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows.add("cp -r of the tree", seconds=done.seconds, cpu_seconds=cpu_between(begin, end), peak_bytes=done.peak_bytes)


def removal(layer: Path, workers: int, directory: Path, rows: Rows) -> None:
    """Remove a tree; with ``rm`` if there are no workers."""
    tree = unpack_tree(layer, directory)
    if not workers:
        rows.add(RM, seconds=run("rm", "-rf", tree).seconds)
        return
    with WorkerPool(workers) as pool:

        def remove(path: Path) -> None:
            for removed in [pool.run(remove_tree, str(path)) for _ in range(workers)]:
                removed.get(timeout=TIMEOUT)

        remove(directory / "nothing")  # starts the processes
        name = f"remove_tree, {counted(workers)}"
        rows.add(name, seconds=seconds_of(lambda: remove(tree)))


def unpack_tree(layer: Path, directory: Path) -> Path:
    tree = directory / "tree"
    tree.mkdir()
    run("tar", "-xf", layer, "-C", tree)
    subprocess.run(["sync", "--file-system", directory], check=True)
    return tree


def cpu_between(begin: resource.struct_rusage, end: resource.struct_rusage) -> float:
    return end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime


# -- the run


def choose_contestants(
    plain: Mapping[str, Path], compressions: Iterable[str], workers: list[int], work: Path
) -> tuple[list[tuple[str, Contestant]], list[Path]]:
    """Return the contestants, each with the group of its row, and the files that they read."""
    tiny = [write_layer(work / f"tiny{n}", Shape("", 10, 1000), seed=n) for n in range(max(workers))]
    warm_up = write_oci_archive(work / "tiny.tar", [(layer, "plain", layer) for layer in tiny])
    contestants: list[tuple[str, Contestant]] = []
    files = []
    for number, (name, path) in enumerate(plain.items()):
        for compression in compressions:
            archive = work / f"image{number}.{compression}"
            stored = compress(path, compression)
            layer = Layer(compression, stored, write_oci_archive(archive, [(stored, compression, path)]))
            files += [stored, archive]
            group = f"{name}, {compression}, {stored.stat().st_size / 1e6:.0f} MB"
            if compression != "zstd" or shutil.which("zstd"):
                contestants.append((group, partial(gnu_tar, layer)))
            if compression == "plain":
                contestants.append((group, partial(copy, path)))
            contestants += [(group, partial(ours, layer, count, warm_up)) for count in workers]
    return contestants, files


def measure(
    contestants: list[tuple[str, Contestant]], files: list[Path], places: Places, rounds: int
) -> dict[str, Rows]:
    groups = {group: Rows() for group, _ in contestants}
    for number in range(rounds):
        for file in files:
            read_into_cache(file)
        turn = number % len(contestants)
        for group, contestant in [*contestants[turn:], *contestants[:turn]]:
            with places.fresh() as directory:
                contestant(directory, groups[group])
        print(f"round {number + 1} of {rounds} is done", file=sys.stderr)
    return groups


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=Path, action="append", help="a plain tar, instead of the made-up layers")
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    add_workers_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the made-up layers")
    add_output_arguments(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    rounds = 1 if arguments.quick else arguments.rounds
    compressions = ("plain", "gzip") if arguments.quick else MEDIA_TYPES
    with work_directory(arguments.on) as work:
        plain = {}
        for number, layer in enumerate(arguments.layer or ()):
            plain[layer.name] = Path(shutil.copy(layer, work / f"layer{number}.tar"))
        for shape in () if plain else TINY_SHAPES if arguments.quick else SHAPES:
            name = f"{shape.files} files of {shape.mean_bytes / 1000:g} kB"
            plain[name] = write_layer(work / f"layer{shape.files}.tar", shape, arguments.seed)
        contestants, files = choose_contestants(plain, compressions, workers_of(arguments), work)
        places = Places(work, arguments.fresh_fs, arguments.fs)
        groups = measure(contestants, files, places, rounds)
        # Afterwards: files are made slowly where many were deleted just before.
        removals: list[tuple[str, Contestant]] = [
            (f"{name}, removed", partial(removal, path, count)) for name, path in plain.items() for count in (0, 1, 2)
        ]
        groups |= measure(removals, files, places, rounds)
        on = places.file_system
    for title, rows in groups.items():
        baseline = rows.get(TAR) or rows.get(RM)
        columns = (*SECONDS, *([ratio_to(baseline)] if baseline else []), *([CORES, PEAK] if RM not in rows else []))
        print_table(f"{title}; {rounds} rounds", rows, columns, markdown=arguments.markdown)
    title = "Seconds to unpack one layer, and to remove it"
    facts = {"benchmark": "layers", "title": title, "rounds": rounds, "seed": arguments.seed, "file_system": on}
    write_json(arguments.json, groups, ("tar", "gzip", "zstd"), **facts)


if __name__ == "__main__":
    main()
