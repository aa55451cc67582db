"""What does a worker pool cost: a tiny task, the first result, the next result after a kill, a worker's memory?

    pool.py [--rounds N] [--workers N] [--json FILE] [--quick]

Our pool runs against concurrent.futures.ProcessPoolExecutor, multiprocessing.Pool and, if it is installed, Pebble,
which can kill a running task as ours can. All run the same functions and take turns, round by round, in one process, in
a different order each time. The others start their workers with a fork server, which is safe beside threads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import operator
import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from surroundings import machine, versions

from pykka_imagestore.runtime import WorkerPool

try:
    import pebble
except ImportError:
    pebble = None  # it is not a dependency

TIMEOUT = 60
# It imports no module of ours.
DESCRIBE = """(
    [int(line.split()[1]) * 1024 / 1e6 for line in open("/proc/self/status") if line.startswith("VmRSS:")][0],
    len(__import__("sys").modules),
)"""
CONTEXT = multiprocessing.get_context("forkserver")


class Ours:
    """Our pool."""

    def __init__(self, workers: int) -> None:
        self._pool = WorkerPool(workers)

    def start(self, function: Callable[[Any], Any], argument: object) -> Callable[[], object]:
        """Submit a task; return a function that waits for it."""
        future = self._pool.run(function, argument)
        return lambda: future.get(timeout=TIMEOUT)

    def kill_one(self) -> None:
        """Kill a running task."""
        future = self._pool.run(time.sleep, TIMEOUT)
        time.sleep(0.2)
        future.discard()
        future.recover(lambda _: None).get(timeout=TIMEOUT)

    def close(self) -> None:
        """End the pool."""
        self._pool.close()


class Executor:
    """The standard library's executor, which cannot kill a task."""

    kill_one = None

    def __init__(self, workers: int) -> None:
        self._pool = ProcessPoolExecutor(workers, mp_context=CONTEXT)

    def start(self, function: Callable[[Any], Any], argument: object) -> Callable[[], object]:
        future = self._pool.submit(function, argument)
        return lambda: future.result(TIMEOUT)

    def close(self) -> None:
        self._pool.shutdown()


class Multiprocessing:
    """The standard library's older pool, which cannot kill a task either."""

    kill_one = None

    def __init__(self, workers: int) -> None:
        self._pool = CONTEXT.Pool(workers)

    def start(self, function: Callable[[Any], Any], argument: object) -> Callable[[], object]:
        result = self._pool.apply_async(function, (argument,))
        return lambda: result.get(TIMEOUT)

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


class Pebble:
    """Pebble's pool, which kills the worker of a task that is cancelled."""

    def __init__(self, workers: int) -> None:
        self._pool = pebble.ProcessPool(workers, context=CONTEXT)

    def start(self, function: Callable[[Any], Any], argument: object) -> Callable[[], object]:
        future = self._pool.schedule(function, args=(argument,))
        return lambda: future.result(TIMEOUT)

    def kill_one(self) -> None:
        future = self._pool.schedule(time.sleep, args=(TIMEOUT,))
        time.sleep(0.2)
        future.cancel()

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()


def contestants() -> dict[str, type]:
    """Return each kind of pool, by name."""
    found: dict[str, type] = {"ours": Ours, "ProcessPoolExecutor": Executor, "multiprocessing.Pool": Multiprocessing}
    return found | ({"Pebble": Pebble} if pebble else {})


def measure_once(kind: type, workers: int, tasks: int) -> dict[str, float]:
    """Return what one new pool of this kind costs."""
    begin = time.perf_counter()
    pool = kind(workers)
    try:
        pool.start(operator.neg, 1)()
        figures = {"first result, ms": 1000 * (time.perf_counter() - begin)}
        for result in [pool.start(time.sleep, 0.05) for _ in range(workers)]:
            result()  # now all workers have started
        begin = time.perf_counter()
        for number in range(tasks):
            pool.start(operator.neg, number)()
        figures["one by one, a second"] = tasks / (time.perf_counter() - begin)
        begin = time.perf_counter()
        for result in [pool.start(operator.neg, number) for number in range(3 * tasks)]:
            result()
        figures["in a batch, a second"] = 3 * tasks / (time.perf_counter() - begin)
        if pool.kill_one is not None and workers == 1:
            pool.kill_one()
            begin = time.perf_counter()
            pool.start(operator.neg, 1)()
            figures["next result after a kill, ms"] = 1000 * (time.perf_counter() - begin)
        return figures
    finally:
        pool.close()


def measure(workers: int, rounds: int, tasks: int) -> dict[str, dict[str, list[float]]]:
    """Return all figures of all rounds for each kind of pool."""
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in contestants()}
    for _ in range(rounds):
        for name, kind in random.sample(list(contestants().items()), len(rows)):
            figures = measure_once(kind, workers, tasks)
            # A kill matters most with one worker.
            figures |= {key: value for key, value in measure_once(kind, 1, 1).items() if "kill" in key}
            for key, value in figures.items():
                rows[name].setdefault(key, []).append(value)
    return rows


def describe_workers() -> dict[str, tuple[float, int]]:
    """Return a worker's RSS in MB and its number of modules, when it has done nothing but report them."""
    described = {}
    for name, kind in contestants().items():
        pool = kind(1)
        described[name] = pool.start(eval, DESCRIBE)()
        pool.close()
    return described


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tasks", type=int, default=2000, help="a round, one by one; three times as many in a batch")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that it works")
    arguments = parser.parse_args()
    rounds, tasks = (1, 20) if arguments.quick else (arguments.rounds, arguments.tasks)
    rows = measure(arguments.workers, rounds, tasks)
    workers = describe_workers()
    keys = list(dict.fromkeys(key for figures in rows.values() for key in figures))
    print(f"Pools of {arguments.workers}; medians of {rounds} rounds.\n")
    print(f"{'':<30}" + "".join(f"{name:>22}" for name in rows))
    for key in keys:
        print(f"{key:<30}" + "".join(f"{statistics.median(rows[name].get(key, [0])) or 0:>22.1f}" for name in rows))
    for place, key in enumerate(("a worker's RSS, MB", "a worker's modules")):
        print(f"{key:<30}" + "".join(f"{workers.get(name, (0, 0))[place]:>22.1f}" for name in rows))
    if arguments.json:
        found = {
            "question": "tiny tasks a second, milliseconds to the first and next result, a worker's memory",
            "machine": machine(),
            "versions": versions(),
            "workers": arguments.workers,
            "rounds": rounds,
            "rows": rows,
            "worker_rss_mb_and_modules": workers,
        }
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
