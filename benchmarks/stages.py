"""How long does each stage of a put take alone, in one process?

    stages.py [ARCHIVE] [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--rounds N] [--json FILE] [--quick]

By default a docker-archive is made up. Its layers are inflated before, untimed, and compressed again with gzip 6 and
zstd 3. Each stage processes all of them, one after the other. The stages take turns, round by round.

- index: untar_image of the archive.
- read: the bytes of the plain layers, from the page cache, in blocks as untar_layer reads them.
- inflate: the compressed layers, reading included; MB is of the output.
- hash: SHA-256, over one block in the cache, as often as it takes.
- parse: read_entries over the plain layers in memory; bodies are skipped.
- write: unpack of the plain layers into fresh directories, which includes reading, hashing and parsing.
- untar_layer: the whole job, by how the layers are stored.

User and system are the seconds of this process outside and inside the kernel; µs per entry is their sum.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from places import Places, add_place_arguments, opened, read_into_cache, work_directory
from rows import SECONDS, Column, Rows, add_output_arguments, print_table, write_json
from samples import MEDIA_TYPES, Shape, compress, write_docker_archive, write_layer

from pykka_imagestore.core.byte_source import BLOCK_BYTES
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.jobs.archive.layer_file import layer_file
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.unpack.inflate import MAGIC_BYTES, inflate
from pykka_imagestore.jobs.unpack.one_pass import unpack
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer

COLUMNS = (
    *SECONDS,
    Column("user", lambda row: f"{row.median('user_seconds'):.3f}"),
    Column("system", lambda row: f"{row.median('system_seconds'):.3f}"),
    Column("MB/s", lambda row: f"{row.median('mb_per_second'):.0f}"),
    Column("entries/s", lambda row: f"{row.median('entries_per_second'):.0f}"),
    Column("µs an entry", lambda row: f"{row.median('cpu_microseconds_per_entry'):.1f}"),
)
Stage = Callable[[Path], object]  # its argument is a fresh directory


class Bytes:
    """A tar in memory, as a ``Source``."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        start = self._position
        self._position += size
        return self._data[start : self._position]

    def skip(self, size: int) -> None:
        self._position += size


def read(layers: list[LayerBlob], _: Path) -> None:
    for layer in layers:
        with open_blob(layer, is_verified=True) as reader:
            while reader.read(BLOCK_BYTES):
                pass


def inflate_all(layers: list[LayerBlob], _: Path) -> None:
    for layer in layers:
        with open_blob(layer, is_verified=True) as reader:
            inflated = inflate(reader, reader.peek(MAGIC_BYTES))
            while inflated.read(BLOCK_BYTES):
                pass


def hash_block(size: int, __: Path) -> None:
    block, computed = os.urandom(BLOCK_BYTES), hashlib.sha256()
    for _ in range(size // BLOCK_BYTES):
        computed.update(block)


def parse(layers: list[mmap.mmap], _: Path) -> int:
    entries = 0
    for layer in layers:
        source = Bytes(layer)
        for entry in read_entries(source):
            source.skip(entry.size)
            entries += 1
    return entries


def write(layers: list[LayerBlob], directory: Path) -> None:
    for number, layer in enumerate(layers):
        rootfs = directory / str(number)
        rootfs.mkdir()
        with opened(rootfs) as root, open_blob(layer, is_verified=True) as source:
            unpack(source, layer, root, str(rootfs), None)


def untar(layers: list[LayerBlob], directory: Path) -> None:
    for number, layer in enumerate(layers):
        untar_layer(UntarLayer(layer, str(directory / str(number))))


# -- the run


def stages_of(archive: Path, work: Path, stack: ExitStack) -> tuple[dict[str, Stage], int, int]:
    """Return the stages by name, the bytes of all plain layers, and their entries."""
    index = untar_image(UntarImage(str(archive), str(work / "inflated")))
    stored: dict[str, list[LayerBlob]] = {compression: [] for compression in MEDIA_TYPES}
    in_memory = []
    for number, layer in enumerate(index.images[0].layers):
        plain = work / f"layer{number}"
        with open_blob(layer, is_verified=True) as reader, plain.open("wb") as target:
            inflated = inflate(reader, reader.peek(MAGIC_BYTES))
            while block := inflated.read(BLOCK_BYTES):
                target.write(block)
        for compression, blobs in stored.items():
            path = compress(plain, compression)
            blobs.append(layer_file(str(path)))
            read_into_cache(path)
        file = stack.enter_context(plain.open("rb"))
        in_memory.append(stack.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)))
    total = sum(layer.size for layer in stored["plain"])
    index_again = UntarImage(str(archive), str(work / "inflated-again"))
    stages: dict[str, Stage] = {
        "index": lambda _: untar_image(index_again),
        "read": partial(read, stored["plain"]),
        "inflate, gzip (isal)": partial(inflate_all, stored["gzip"]),
        "inflate, zstd": partial(inflate_all, stored["zstd"]),
        "hash": partial(hash_block, total),
        "parse": partial(parse, in_memory),
        "write": partial(write, stored["plain"]),
        **{f"untar_layer, {compression}": partial(untar, blobs) for compression, blobs in stored.items()},
    }
    return stages, total, parse(in_memory, work)


def measure(stages: dict[str, Stage], size: int, entries: int, places: Places, rounds: int) -> Rows:
    rows, names = Rows(), list(stages)
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            with places.fresh() as directory:
                before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
                stages[name](directory)
                seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
            user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
            rows.add(name, seconds=seconds, user_seconds=user, system_seconds=system)
            if name == "index":
                continue
            rows.add(
                name,
                mb_per_second=size / seconds / 1e6,
                entries_per_second=entries / seconds,
                cpu_microseconds_per_entry=(user + system) / entries * 1e6,
            )
        print(f"round {number + 1} of {rounds} is done", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="a docker-archive, an OCI archive or an OCI layout")
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    add_output_arguments(parser)
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    with work_directory(arguments.on) as work, ExitStack() as stack:
        shape = Shape("", 100 if arguments.quick else 20_000, 8000)
        archive = arguments.archive or write_docker_archive(work / "made-up.tar", [write_layer(work / "l", shape)])
        stages, size, entries = stages_of(archive.resolve(), work, stack)
        places = Places(work, arguments.fresh_fs, arguments.fs)
        rows = measure(stages, size, entries, places, rounds)
        on = places.file_system
    group = f"{archive.name}: layers of {size / 1e6:.0f} MB, {entries} entries"
    print_table(f"{group}; {rounds} rounds", rows, COLUMNS, markdown=arguments.markdown)
    facts: dict[str, Any] = {
        "benchmark": "stages",
        "title": "Seconds of each stage, alone",
        "rounds": rounds,
        "file_system": on,
    }
    write_json(arguments.json, {group: rows}, **facts, bytes=size, entries=entries)


if __name__ == "__main__":
    main()
