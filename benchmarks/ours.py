"""Put an archive into one of our stores, in a fresh process each time, for the other scripts.

ours.py REQUEST     the request is JSON, and so is the result
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from processes import Run, peak_of, run, tree

from pykka_imagestore import LocalStore

TIMEOUT = 3600
_TICKS = os.sysconf("SC_CLK_TCK")


def put_in_new_process(
    archive: Path, store: Path, workers: int | None, *, durable: bool = False, warm_up: Path | None = None
) -> tuple[Run, dict[str, float]]:
    """Put an archive into a new store.

    Args:
        warm_up: An archive to put before, so that the worker processes already run.

    Returns:
        What the whole process took, and what the put alone took from the call until the future was ready: ``seconds``,
        ``cpu_seconds`` of all our processes, and ``peak_bytes`` of the largest worker.
    """
    request = {
        "archive": str(archive),
        "store": str(store),
        "workers": workers,
        "durable": durable,
        "warm_up": warm_up and str(warm_up),
    }
    done = run(sys.executable, __file__, json.dumps(request))
    return done, json.loads(done.output)


def measure_put(archive: str, store: str, workers: int | None, durable: bool, warm_up: str | None) -> dict[str, float]:
    with LocalStore.start(store, workers=workers, durable=durable) as ours:
        if warm_up is not None:
            ours.put("tiny", warm_up).get(timeout=TIMEOUT)
        cpu_before = cpu_seconds()
        seconds = seconds_of(lambda: ours.put("big", archive).get(timeout=TIMEOUT))
        _, *workers_of_ours = tree(os.getpid())
        peak_bytes = max(map(peak_of, workers_of_ours))
        return {"seconds": seconds, "cpu_seconds": cpu_seconds() - cpu_before, "peak_bytes": peak_bytes}


def cpu_seconds() -> float:
    """Return the CPU time of this process and all its descendants."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in tree(os.getpid())]
    return sum(int(field[11]) + int(field[12]) for field in fields) / _TICKS


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=lambda text: [int(number) for number in text.split(",")],
        help="of ours, several numbers with commas; default: 1, 2, and the CPUs that this process may use",
    )


def workers_of(arguments: argparse.Namespace) -> list[int]:
    cpus = len(os.sched_getaffinity(0))
    return arguments.workers or ([2] if arguments.quick else sorted({1, 2, cpus}))


def counted(workers: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}"


def seconds_of(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(json.dumps(measure_put(**json.loads(sys.argv[1]))))
