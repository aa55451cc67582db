"""What does a call cost: a message to an actor, an async method, a task in a worker process?

    runtime.py [--rounds N] [--calls N] [--json FILE] [--quick]

One caller makes one call after another and waits for each answer. The contestants take turns, round by round, in one
process, in a different order each time. Each pool has one worker process, which is started before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import operator
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pykka
from surroundings import machine, versions

from pykka_imagestore.runtime import Actor, Future, WorkerPool, dispatch

TIMEOUT = 600
ASK, TASK = "plain Pykka: ask", "plain ProcessPoolExecutor: task"
CALLS_PER_TASK = 10  # a task takes some ten times as long as a message


class Plain(pykka.ThreadingActor):
    def on_receive(self, message: int) -> int:
        return -message


class Ours(Actor):
    def on_receive(self, message: int) -> int:
        return -message

    def negate(self, number: int) -> int:
        return -number

    async def negate_async(self, number: int) -> int:
        return -number

    async def negate_elsewhere(self, other: pykka.ActorRef[Ours], number: int) -> int:
        return await dispatch(other, Ours.negate, number)


def start_contestants(stack: ExitStack) -> dict[str, Callable[[], object]]:
    """Return one call of each kind, by name; the stack stops what they use."""
    stack.callback(pykka.ActorRegistry.stop_all, timeout=TIMEOUT)
    plain, ours, other = Plain.start(), Ours.start(), Ours.start()
    pool = stack.enter_context(WorkerPool(1))
    context = multiprocessing.get_context("forkserver")
    executor = stack.enter_context(ProcessPoolExecutor(1, mp_context=context))

    def get(future: Future[int]) -> int:
        return future.get(timeout=TIMEOUT)

    return {
        ASK: lambda: plain.ask(1, timeout=TIMEOUT),
        "ours: ask": lambda: ours.ask(1, timeout=TIMEOUT),
        "ours: dispatch, plain method": lambda: get(dispatch(ours, Ours.negate, 1)),
        "ours: dispatch, async method": lambda: get(dispatch(ours, Ours.negate_async, 1)),
        "ours: ... that awaits another actor": lambda: get(dispatch(ours, Ours.negate_elsewhere, other, 1)),
        TASK: lambda: executor.submit(operator.neg, 1).result(TIMEOUT),
        "ours: pool task": lambda: get(pool.run(operator.neg, 1)),
    }


def measure(contestants: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Return the calls per second of each round for each contestant."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()  # starts whatever must be started
    for _ in range(rounds):
        for name in random.sample(list(contestants), len(contestants)):
            call, times = contestants[name], max(1, calls // (CALLS_PER_TASK if "task" in name else 1))
            begin = time.perf_counter()
            for _ in range(times):
                call()
            rates[name].append(times / (time.perf_counter() - begin))
    return rates


def report(rates: dict[str, list[float]], rounds: int, calls: int) -> dict[str, object]:
    """Return what was measured, and with what, for JSON."""
    medians = {name: statistics.median(each) for name, each in rates.items()}
    return {
        "question": "calls a second, one after the other",
        "machine": machine(),
        "versions": versions(),
        "rounds": rounds,
        "calls": calls,
        "rows": {
            name: {
                "median_per_second": medians[name],
                "per_second": each,
                "cost_ratio": cost(name, medians),
                "compared_with": TASK if "task" in name else ASK,
            }
            for name, each in rates.items()
        },
    }


def cost(name: str, medians: dict[str, float]) -> float:
    """Return the cost of a call as a multiple of the plain call's."""
    return medians[TASK if "task" in name else ASK] / medians[name]


def print_table(rates: dict[str, list[float]], rounds: int) -> None:
    medians = {name: statistics.median(each) for name, each in rates.items()}
    print(f"Calls a second, one after the other; {rounds} rounds. Cost: time a call, against the plain one's.\n")
    print(f"{'':<38}{'median':>9}{'least':>9}{'most':>9}{'cost':>8}")
    for name, each in rates.items():
        print(f"{name:<38}{medians[name]:>9.0f}{min(each):>9.0f}{max(each):>9.0f}{cost(name, medians):>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--calls", type=int, default=2000, help="calls a round")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that it works")
    arguments = parser.parse_args()
    rounds, calls = (2, 50) if arguments.quick else (arguments.rounds, arguments.calls)
    with ExitStack() as stack:
        rates = measure(start_contestants(stack), rounds, calls)
    print_table(rates, rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(report(rates, rounds, calls), indent=2) + "\n")


if __name__ == "__main__":
    main()
