"""How long does it take to copy a root file system out of its layers: ours, cp -a? How much of it is the kernel's?

    rootfs_copy.py [LAYER.tar ...] [--on DIR] [--fresh-fs SIZE] [--fs TYPE ...] [--rounds N] [--workers N] [--json FILE]
                   [--quick]

Ours merges the layers and copies what is visible, in worker processes that run already. ``cp -a`` copies a tree that
is merged already, in a plain directory of the same file system; and, where an overlay can be mounted, out of that.
Nothing is synced. The contestants take turns. With --fresh-fs (needs root) each run has a new file system, a copy of
one that the layers and the merged tree were written to, with all of them in the cache; --fs names its types.

CPU seconds are those of all processes of a contestant; what of them the kernel took is the least that its way of
copying can take on one CPU, since no program could call the kernel in no time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ours import TIMEOUT
from places import loop_file, read_into_cache, unmount_below, work_directory
from processes import tree
from rows import SECONDS, Column, Row, Rows, add_output_arguments, print_table, write_json
from samples import Shape, write_layer
from surroundings import file_system

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore._proto.stack_pb2 import StackRecord
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import Reads, RootfsRequest, StackLayer
from pykka_imagestore.jobs.archive.layer_file import layer_file
from pykka_imagestore.jobs.fill_rootfs import fill_rootfs
from pykka_imagestore.jobs.make_stack import MakeStack, make_stack
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.link import Link
from pykka_imagestore.runtime import WorkerPool, collect

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
SHARING = ("xfs", "btrfs")
NICE = ("nice", "-n", "10")  # as our workers are, so that a busy machine slows all alike
TICKS = os.sysconf("SC_CLK_TCK")
CPU = (
    Column("CPU s", lambda row: f"{row.median('cpu_seconds'):.2f}"),
    Column("kernel's", lambda row: f"{row.median('kernel_seconds'):.2f}"),
)


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time of this process, its descendants, and those that have ended."""

    all: float
    kernel: float

    @classmethod
    def now(cls) -> Cpu:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        user, kernel = ended.ru_utime, ended.ru_stime
        for pid in tree(os.getpid()):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user += int(fields[11]) / TICKS
            kernel += int(fields[12]) / TICKS
        return cls(user + kernel, kernel)


# -- what is copied


def prepare(root: Path, layers: list[Path]) -> None:
    """Unpack layers below ``root``, with what they need on top, and the tree that they mean in ``flat/rootfs``."""
    for number, layer in enumerate(layers):
        untar_layer(UntarLayer(layer_file(str(layer)), str(root / f"layer{number}")))
    targets = tuple(str(root / f"layer{number}") for number in range(len(layers)))
    make_stack(MakeStack(targets, Reads.ANY, str(root / "stack")))
    for part in Copy().parts(request_for(root, "flat"), 1):
        fill_rootfs(part)


def request_for(root: Path, name: str) -> RootfsRequest:
    (root / name).mkdir()
    layers = []
    for path in sorted(root.glob("layer*")):
        record = LayerRecord.FromString((path / "layer.pb").read_bytes())
        layers.append(StackLayer(str(path / "rootfs"), WhiteoutFormat(record.whiteouts)))
    stack = StackRecord.FromString((root / "stack/stack.pb").read_bytes())
    if not stack.is_empty:
        layers.append(StackLayer(str(root / "stack/rootfs"), WhiteoutFormat(stack.whiteouts)))
    return RootfsRequest(tuple(layers), str(root / name), read_only=True)


class Sources:
    """Lends a directory with what ``prepare`` wrote, on a new file system each time if a size is given."""

    def __init__(self, work: Path, layers: list[Path], size: str | None, kind: str) -> None:
        self._base = work / kind
        self._kind = kind
        self._is_fresh = size is not None
        self._count = itertools.count()
        self._base.mkdir()
        if size is not None:
            subprocess.run(["truncate", "--size", size, loop_file(self._base)], check=True)
            subprocess.run([*MAKE[kind], loop_file(self._base)], check=True)
        with self._mounted(self._base):
            prepare(self._base, layers)

    @contextmanager
    def lend(self) -> Iterator[Path]:
        if not self._is_fresh:
            yield self._base
            return
        place = self._base.with_name(f"{self._kind}{next(self._count)}")
        place.mkdir()
        subprocess.run(["cp", "--sparse=always", loop_file(self._base), loop_file(place)], check=True)
        with self._mounted(place):
            yield place
        loop_file(place).unlink()

    @contextmanager
    def _mounted(self, place: Path) -> Iterator[None]:
        if self._is_fresh:
            subprocess.run(["mount", "-o", "loop", loop_file(place), place], check=True)
        try:
            yield
            subprocess.run(["sync", "--file-system", place], check=True)
        finally:
            unmount_below(place)


# -- contestants


def ours(pool: WorkerPool, backend: Copy, workers: int, root: Path, name: str) -> None:
    parts = backend.parts(request_for(root, name), workers)
    collect([pool.run(fill_rootfs, part) for part in parts]).get(timeout=TIMEOUT)


def warm_up(pool: WorkerPool, work: Path) -> None:
    """Have each worker import what it needs."""
    (work / "empty").mkdir()
    parts = Copy().parts(
        RootfsRequest((StackLayer(str(work / "empty"), WhiteoutFormat.NONE),), str(work)), pool.workers
    )
    collect([pool.run(fill_rootfs, part) for part in parts]).get(timeout=TIMEOUT)


def cp(options: tuple[str, ...], root: Path, name: str) -> None:
    subprocess.run([*NICE, "cp", *options, root / "flat/rootfs", root / name], check=True)


def cp_out_of_overlay(root: Path, name: str) -> None:
    subprocess.run([*NICE, "cp", "-a", root / "merged", root / name], check=True)


def mount_overlay(root: Path) -> bool:
    """Mount the layers at ``merged``; tell whether that can be done."""
    layers = [layer.path for layer in reversed(request_for(root, "unused").layers)]
    (root / "merged").mkdir()
    command = ["mount", "-t", "overlay", "-o", f"lowerdir={':'.join(layers)}", "none", str(root / "merged")]
    return len(layers) > 1 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def contestants(pool: WorkerPool, kind: str) -> dict[str, Callable[[Path, str], None]]:
    workers = pool.workers
    found: dict[str, Callable[[Path, str], None]] = {
        f"copy, {workers} workers": partial(ours, pool, Copy(), workers),
        "copy, 1 worker": partial(ours, pool, Copy(), 1),
        "cp -a": partial(cp, ("-a",)),
        f"link, {workers} workers": partial(ours, pool, Link(), workers),
        "cp -al": partial(cp, ("-al",)),
    }
    if kind in SHARING:
        found["cp -a --reflink=always"] = partial(cp, ("-a", "--reflink=always"))
    else:
        found["cp -a out of an overlay"] = cp_out_of_overlay
    return found


def times_as_fast_as(baseline: Row) -> Column:
    return Column("times as fast", lambda row: f"{baseline.median() / row.median():.2f}")


def measure(sources: Sources, name: str, contestant: Callable[[Path, str], None], rows: Rows, number: int) -> None:
    with sources.lend() as root:
        if contestant is cp_out_of_overlay and not (root / "merged").exists() and not mount_overlay(root):
            return
        read_all(root)
        time.sleep(1 if number else 0)  # what the kernel still had to write is written by then
        cpu, begin = Cpu.now(), time.perf_counter()
        contestant(root, f"out-{number}-{name.replace(' ', '-')}")
        seconds, after = time.perf_counter() - begin, Cpu.now()
    rows.add(name, seconds=seconds, cpu_seconds=after.all - cpu.all, kernel_seconds=after.kernel - cpu.kernel)


def read_all(root: Path) -> None:
    """Have all that is copied in the cache, names, attributes and contents."""
    subprocess.run(
        ["tar", "--create", "--one-file-system", "--file=-", "."], cwd=root, stdout=subprocess.DEVNULL, check=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", type=Path, help="default: some of 20,000 files")
    parser.add_argument("--on", type=Path, metavar="DIR", help="where to write (default: for temporary files)")
    parser.add_argument("--fresh-fs", metavar="SIZE", help="a new file system of so much (8G) for each run; needs root")
    parser.add_argument("--fs", nargs="+", choices=MAKE, default=["ext4"], help="its types (default: ext4)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int)
    add_output_arguments(parser)
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    groups: dict[str, Rows] = {}
    with work_directory(arguments.on) as work, WorkerPool(arguments.workers or 2) as pool:
        files = 100 if arguments.quick else 20_000
        layers = arguments.layers or [
            write_layer(work / f"l{n}", Shape("", files // (n + 1), 8000), seed=n) for n in range(3)
        ]
        for layer in layers:
            read_into_cache(layer)
        collect([pool.run(time.sleep, 0.1) for _ in range(pool.workers)]).get(timeout=TIMEOUT)
        warm_up(pool, work)
        for kind in arguments.fs if arguments.fresh_fs else ["here"]:
            sources, rows = Sources(work, layers, arguments.fresh_fs, kind), groups.setdefault(kind, Rows())
            for number in range(rounds):
                for name, contestant in contestants(pool, kind).items():
                    measure(sources, name, contestant, rows, number)
            columns = (*SECONDS, *CPU, times_as_fast_as(rows["cp -a --reflink=always" if kind in SHARING else "cp -a"]))
            print_table(f"{kind}; {rounds} rounds", rows, columns, markdown=arguments.markdown)
        on = {"type": f"{', '.join(groups)}, a fresh one for each run"} if arguments.fresh_fs else file_system(work)
    title = "Seconds until a root file system is copied"
    write_json(arguments.json, groups, benchmark="rootfs_copy", title=title, rounds=rounds, file_system=on)


if __name__ == "__main__":
    main()
