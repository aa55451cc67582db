"""How long do several processes take to put the same image into one store, and how soon is an image pruned?

    sharing.py [ARCHIVE] [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--rounds N] [--processes 1,8] [--json FILE] [--quick]

Each process starts its own store and worker processes, and all begin to put at the same time. The time until the last
one has the image is measured. Then the image is pruned in one call. `rm -rf` deletes a copy of the layers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ours import TIMEOUT, seconds_of
from places import Places, add_place_arguments, read_into_cache, work_directory
from processes import run
from rows import SECONDS, Rows, add_output_arguments, print_table, write_json
from samples import Shape, write_docker_archive, write_layer

from pykka_imagestore import LocalStore

PROGRAM = """
import json, sys
from pykka_imagestore import LocalStore
request = json.loads(sys.argv[1])
with LocalStore.start(request["store"], durable=request["durable"]) as store:
    store.recover().get(timeout=60)
    print("ready", flush=True)
    sys.stdin.readline()
    store.put("big", request["archive"], request["sandbox"]).get(timeout=3600)
    print("done", flush=True)
    sys.stdin.readline()
"""


def put_together(archive: Path, directory: Path, processes: int, durable: bool) -> tuple[float, int]:
    """Put an image in several processes at once; return the seconds until all have it, and the layers unpacked."""
    sandbox = directory / f"sandbox{processes}{durable}"
    request = {"store": str(directory / "store"), "durable": durable, "archive": str(archive), "sandbox": str(sandbox)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    agents = [subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(request)], **pipes) for _ in range(processes)]
    inputs = [agent.stdin for agent in agents if agent.stdin]
    outputs = [agent.stdout for agent in agents if agent.stdout]
    for output in outputs:
        output.readline()
    begin = time.perf_counter()
    for each in inputs:
        each.write("go\n")
        each.flush()
    for output in outputs:
        output.readline()
    seconds = time.perf_counter() - begin
    for agent in agents:
        agent.communicate()
    unpacked = sum(" entries, " in line for line in (sandbox / "stdout").read_text().splitlines())
    return seconds, unpacked


def measure_puts(archive: Path, places: Places, processes: int, durable: bool, rows: Rows) -> None:
    with places.fresh() as directory:
        seconds, unpacked = put_together(archive, directory, processes, durable)
        name = f"put, {processes} process{'es' * (processes > 1)}{', durable' * durable}"
        rows.add(name, seconds=seconds, unpacked=unpacked)


def measure_removal(archive: Path, places: Places, rows: Rows) -> None:
    with places.fresh() as directory, LocalStore.start(directory / "store", durable=False) as store:
        store.put("big", archive).get(timeout=TIMEOUT)
        run("cp", "-a", directory / "store" / "layers", directory / "copy")
        subprocess.run(["sync", "--file-system", directory], check=True)
        begin = time.perf_counter()
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        rows.add("prune, until its caller may go on", seconds=time.perf_counter() - begin)
        store.swept().get(timeout=TIMEOUT)
        rows.add("prune, until all is deleted", seconds=time.perf_counter() - begin)
        rows.add("rm -rf", seconds=seconds_of(lambda: run("rm", "-rf", directory / "copy")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path)
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=lambda text: list(map(int, text.split(","))), default=[1, 8])
    add_output_arguments(parser)
    arguments = parser.parse_args()
    rounds, rows = 1 if arguments.quick else arguments.rounds, Rows()
    with work_directory(arguments.on) as work:
        files = 100 if arguments.quick else 20_000
        archive = arguments.archive or write_docker_archive(
            work / "big.tar", [write_layer(work / f"l{n}", Shape("", files // (n + 1), 8000), seed=n) for n in range(3)]
        )
        read_into_cache(archive)
        places = Places(work, arguments.fresh_fs, arguments.fs)
        for _ in range(rounds):
            for processes in [1, 2] if arguments.quick else arguments.processes:
                for durable in (False, True):
                    measure_puts(archive.resolve(), places, processes, durable, rows)
        for _ in range(rounds):
            measure_removal(archive, places, rows)
        on = places.file_system
    print_table(f"{archive.name}; {rounds} rounds", rows, SECONDS, markdown=arguments.markdown)
    title = "Seconds until all processes have an image"
    write_json(arguments.json, {archive.name: rows}, benchmark="sharing", title=title, rounds=rounds, file_system=on)


if __name__ == "__main__":
    main()
