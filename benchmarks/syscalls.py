"""How many system calls does an entry of a layer cost: ours, GNU tar, cp -r, Python's tarfile? How many Python calls?

    syscalls.py [--files N] [--bytes N] [--on DIR] [--json FILE] [--markdown] [--quick]

strace counts the calls for a made-up layer of N files, one directory for every 20, and for one of twice as many. The
difference, divided by the additional entries, is the cost of an entry, so no program's start or end counts. The counts
do not depend on the machine's load, except where several processes wait for each other: in the last row, a whole put by
a store with two workers.

cProfile counts calls of functions, ours in Python and built-in ones, in the same way, for ours in one process.

The files' owner is root, as in most layers. If another user runs this, some calls fail.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from places import opened, work_directory
from rows import add_output_arguments
from samples import FILES_PER_DIRECTORY, Shape, write_docker_archive, write_layer
from surroundings import file_system, machine, versions

from pykka_imagestore.jobs.archive.layer_file import layer_file
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.unpack.one_pass import unpack

UNPACK = """
import os, sys
from pykka_imagestore.jobs.archive.layer_file import layer_file
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.unpack.one_pass import unpack
root = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECTORY)
layer = layer_file(sys.argv[1])
with open_blob(layer, is_verified=True) as source:
    unpack(source, layer, root, sys.argv[2], None)
"""
TARFILE = "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter='tar')"
OURS = Path(__file__).with_name("ours.py")
LEAST_SHOWN = 0.01  # calls an entry


def commands(layer: Path, directory: Path, *, quick: bool) -> dict[str, list[object]]:
    """Return the traced commands by name; their inputs are made first, untraced."""
    tree = directory / "tree"
    targets = {name: directory / name for name in ("ours", "tar", "copy", "tarfile")}
    for path in (tree, *targets.values()):
        path.mkdir(parents=True)
    subprocess.run(["tar", "-xf", layer, "-C", tree], check=True)
    archive = write_docker_archive(directory / "archive.tar", [layer])
    put = {"archive": archive, "store": directory / "store", "workers": 2, "durable": False, "warm_up": None}
    first: dict[str, list[object]] = {
        "ours, one process": [sys.executable, "-c", UNPACK, layer, targets["ours"]],
        "GNU tar": ["tar", "-xf", layer, "-C", targets["tar"]],
        "cp -r": ["cp", "-r", tree, targets["copy"]],
    }
    if quick:
        return first
    if hasattr(tarfile, "tar_filter"):  # not yet in Debian 12's Python
        first["Python's tarfile"] = [sys.executable, "-c", TARFILE, layer, targets["tarfile"]]
    return first | {
        "ours, a put, two workers": [sys.executable, OURS, json.dumps(put, default=str)],
    }


def count(command: list[object], summary: Path) -> Counter[str]:
    """Run a command, and return how often it and its children made each system call."""
    strace: list[object] = ["strace", "-f", "-c", "-o", summary]
    subprocess.run([str(part) for part in (*strace, *command)], check=True, stdout=subprocess.DEVNULL)
    calls: Counter[str] = Counter()
    for line in summary.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] += int(fields[3])
    return calls


def measure(files: int, mean_bytes: int, work: Path, *, quick: bool) -> dict[str, dict[str, float]]:
    """Return the calls per entry of each."""
    counted: list[dict[str, Counter[str]]] = []
    for number, size in enumerate((files, 2 * files)):
        layer = write_layer(work / f"{number}.tar", Shape("", size, mean_bytes))
        traced = commands(layer, work / str(number), quick=quick)
        counted.append({name: count(command, work / "summary") for name, command in traced.items()})
    entries = files + files // FILES_PER_DIRECTORY
    few, many = counted
    return {
        name: {call: (calls[call] - few[name][call]) / entries for call, _ in calls.most_common()}
        for name, calls in many.items()
    }


def count_in_python(files: int, mean_bytes: int, work: Path) -> dict[str, float]:
    """Return how often each function of ours, and each built-in one, is called per entry."""
    counted: list[Counter[str]] = []
    for size in (files, 2 * files):
        layer = write_layer(work / "profiled.tar", Shape("", size, mean_bytes))
        rootfs = work / f"profiled{size}"
        rootfs.mkdir()
        with opened(rootfs) as root, cProfile.Profile() as profile:
            blob = layer_file(str(layer))
            with open_blob(blob, is_verified=True) as source:
                unpack(source, blob, root, str(rootfs), None)
        calls: Counter[str] = Counter()
        for (path, _, function), (_, count, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            calls[function if path == "~" else f"{Path(path).name}: {function}"] += count
        counted.append(calls)
    few, many = counted
    entries = files + files // FILES_PER_DIRECTORY
    return {function: (many[function] - few[function]) / entries for function, _ in many.most_common()}


def print_tables(results: Mapping[str, Mapping[str, float]], line: Callable[[str, str, str], str]) -> None:
    print(line("calls an entry", "all", "which"))
    for name, calls in results.items():
        shown = sorted(((each, call) for call, each in calls.items() if each >= LEAST_SHOWN), reverse=True)
        which = ", ".join(f"{call} {each:.2f}" for each, call in shown)
        print(line(name, f"{sum(calls.values()):.2f}", which))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="a multiple of 20")
    parser.add_argument("--bytes", type=int, default=3000, help="of a file, on average")
    parser.add_argument("--on", type=Path, metavar="DIR", help="where to write (default: for temporary files)")
    add_output_arguments(parser)
    arguments = parser.parse_args()
    files = 200 if arguments.quick else arguments.files
    if shutil.which("strace") is None:
        sys.exit("syscalls.py: strace is not installed")
    with work_directory(arguments.on) as work:
        results = measure(files, arguments.bytes, work, quick=arguments.quick)
        in_python = count_in_python(files, arguments.bytes, work)
        on = file_system(work)
    if arguments.markdown:
        print_tables(results, lambda *cells: f"| {' | '.join(cells)} |" + "\n| --- | ---: | --- |" * ("all" in cells))
    else:
        print_tables(results, lambda name, total, which: f"{name:<26}{total:>6}  {which}")
    built_in = sum(each for function, each in in_python.items() if function.startswith(("<built-in", "<method")))
    ours = sum(in_python.values()) - built_in
    print(f"\nours, calls of Python functions an entry: {ours:.1f}; of built-in ones: {built_in:.1f}")
    if arguments.json:
        facts = {"benchmark": "syscalls", "title": "System calls for each entry", "files": files}
        surroundings = {"machine": machine(), "versions": versions("strace", "tar", "cp"), "file_system": on}
        document = {**facts, "mean_bytes": arguments.bytes, **surroundings, "results": results, "python": in_python}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
