"""What an archive repeats: time and memory grow with it and no faster, and stop, within the memory of a worker."""

from __future__ import annotations

import os
import re
import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.images import worker_pids
from support.processes import TIMEOUT

from pykka_imagestore import LimitError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.answers.allowlist import ANSWERS
from pykka_imagestore.jobs.hash_layer import hash_layer
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer
from pykka_imagestore.runtime import WorkerPool
from pykka_imagestore.workers import MAX_WORKER_BYTES

pytestmark = pytest.mark.combinations

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "hostile_totals.py"
TOTALS = runpy.run_path(str(BENCHMARK))["TOTALS"]
TICKS = os.sysconf("SC_CLK_TCK")
LEAST_SECONDS = 0.2  # of CPU: below that, starting and stopping is what is measured


@dataclass(frozen=True)
class Cost:
    """What a worker took for an archive, and the limit that ended it, or nothing."""

    limit: str
    seconds: float
    peak_bytes: int


def put(archive: Path, directory: Path) -> Cost:
    """Do all that a put has workers do, in one that has no more memory than they are said to need."""
    with WorkerPool(1, name="totals", memory_limit_bytes=MAX_WORKER_BYTES, answers=ANSWERS) as pool:
        pool.run(os.path.exists, "/").get(timeout=TIMEOUT)
        (worker,) = worker_pids("totals")
        before, limit = cpu_seconds(worker), ""
        try:
            index = pool.run(untar_image, UntarImage(str(archive), str(directory / "inflated"))).get(timeout=TIMEOUT)
            for layer in {layer.place: layer for image in index.images for layer in image.layers}.values():
                if index.images[0].diff_ids is None:
                    pool.run(hash_layer, layer).get(timeout=TIMEOUT)
                else:
                    pool.run(untar_layer, UntarLayer(layer, str(directory / "layer"))).get(timeout=TIMEOUT)
        except LimitError as error:
            limit = error.limit
        return Cost(limit, cpu_seconds(worker) - before, peak_bytes(worker))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid: int) -> int:
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) << 10


@pytest.mark.parametrize("attack", TOTALS)
def test_what_is_repeated_costs_in_proportion_and_ends_within_a_workers_memory(tmp_path, attack):
    write, least = TOTALS[attack]
    costs = []
    for n in (least, 2 * least, 4 * least):
        write(tmp_path / "hostile.tar", n)
        costs.append(put(tmp_path / "hostile.tar", tmp_path))
        remove_tree(str(tmp_path / "layer"))

    assert max(cost.peak_bytes for cost in costs) < MAX_WORKER_BYTES
    assert costs[2].seconds < 2 * 4 * max(costs[0].seconds, LEAST_SECONDS)
