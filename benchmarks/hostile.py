"""What do archives that repeat one thing cost in CPU, memory and disk: for n of it, 2n and 4n?

    hostile.py [ATTACK ...] [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--time-limit SECONDS] [--json FILE] [--quick]

An ATTACK is a part of a row's name in hostile_archives.py; by default all rows are measured. Each archive is put into a
new store, in a process of its own. A row says how the put ended: "stored", or the error that refused the archive.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from hostile_archives import ATTACKS, Attack
from ours import cpu_seconds, seconds_of
from places import Places, add_place_arguments, work_directory
from processes import peak_of, tree
from rows import Column, Rows, add_output_arguments, print_table, write_json

from pykka_imagestore import LocalStore, NotFoundError

INTERVAL = 0.02  # seconds
TIMEOUT = 600  # seconds
COLUMNS = [
    Column("archive MB", lambda row: f"{row.median('archive_bytes') / 1e6:.1f}"),
    Column("seconds", lambda row: f"{row.median():.2f}"),
    Column("CPU seconds", lambda row: f"{row.median('cpu_seconds'):.2f}"),
    Column("another waited", lambda row: f"{row.median('answer_seconds'):.2f}"),
    Column("agent peak MB", lambda row: f"{row.median('agent_bytes') / 1e6:.0f}"),
    Column("worker peak MB", lambda row: f"{row.median('worker_bytes') / 1e6:.0f}"),
    Column("open files", lambda row: f"{row.median('open_files'):.0f}"),
    Column("counted MB", lambda row: f"{row.median('counted_bytes') / 1e6:.1f}"),
    Column("on disk MB", lambda row: f"{row.median('disk_bytes') / 1e6:.1f}"),
]


def measure_attack(archive: str, store: str, loads: bool, time_limit: float) -> tuple[str, dict[str, float]]:
    """Put an archive into a new store; return how that ended and what it cost."""
    with LocalStore.start(store, workers=2, durable=False) as ours:
        with suppress(NotFoundError):
            ours.get("none", lease=True).get(timeout=TIMEOUT)  # opens the store
        disk_before, cpu_before, deadline = disk_bytes(Path(store)), cpu_seconds(), time.monotonic() + time_limit
        begin = time.perf_counter()
        put = ours.load(archive) if loads else ours.put("none", archive)
        answers, open_files = [0.0], 0
        while not put.done():
            open_files = max(open_files, len(list(Path("/proc/self/fd").iterdir())))
            answers.append(seconds_of(ours.get("none", lease=True).recover(lambda _: None).get))
            time.sleep(INTERVAL)
            if time.monotonic() > deadline:
                put.discard()
        seconds = time.perf_counter() - begin
        agent, *workers = map(peak_of, tree(os.getpid()))
        return _outcome(put.error()), {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds() - cpu_before,
            "answer_seconds": max(answers),
            "agent_bytes": agent,
            "worker_bytes": max(workers, default=0),
            "open_files": open_files,
            "counted_bytes": ours.usage().get(timeout=TIMEOUT).bytes,
            "disk_bytes": disk_bytes(Path(store)) - disk_before,
        }


def disk_bytes(directory: Path) -> int:
    """Return what a directory takes on disk, as ``du`` does."""
    done = subprocess.run(["du", "-s", "--block-size=1", directory], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def measure(name: str, attack: Attack, n: int, place: Path, time_limit: float, rows: Rows) -> None:
    archive = place / "hostile.tar"
    attack.write(archive, n)
    request = [archive, place / "store", str(attack.loads), str(time_limit)]
    command = [sys.executable, __file__, "--one", json.dumps(list(map(str, request)))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{name}, {n}: the store's process failed")
    outcome, values = json.loads(done.stdout)
    rows.add(f"{n:,}: {outcome}", archive_bytes=archive.stat().st_size, **values)


def _outcome(error: BaseException | None) -> str:
    return "stored" if error is None else type(error).__name__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", default=[""])
    add_place_arguments(parser)
    parser.add_argument("--time-limit", type=float, default=300, metavar="SECONDS", help="give up a put after so long")
    add_output_arguments(parser)
    options = parser.parse_args()
    groups: dict[str, Rows] = {}
    with work_directory(options.on) as directory:
        places = Places(directory, options.fresh_fs, options.fs)
        for name, attack in ATTACKS.items():
            if not any(part in name for part in options.attacks) or (options.quick and not attack.quick):
                continue
            least, rows = attack.quick if options.quick else attack.least, groups.setdefault(name, Rows())
            for n in (least,) if options.quick else (least, 2 * least, 4 * least):
                with places.fresh() as place:
                    measure(name, attack, n, place, options.time_limit, rows)
            print_table(name, rows, COLUMNS, markdown=options.markdown)
        on = places.file_system
    write_json(options.json, groups, benchmark="hostile", title="What hostile archives cost", file_system=on)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        archive, store, loads, time_limit = json.loads(sys.argv[2])
        print(json.dumps(measure_attack(archive, store, loads == "True", float(time_limit))))
    else:
        main()
