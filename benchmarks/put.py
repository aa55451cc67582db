"""How long does it take until an archive of docker save lies unpacked on disk: ours, GNU tar, podman, umoci?

    put.py [ARCHIVE] [--work DIR] [--rounds N] [--workers N] [--json FILE] [--quick]

All take turns, round by round, each into a fresh directory; in between, what they wrote is synced, untimed. It is all
deleted at the very end: ext4 makes files slowly right after a mass deletion. GNU tar verifies nothing, and nobody
syncs what it unpacked, save ours where the row says `durable`.

- bare layers: taken out of the archive before, untimed; two processes of GNU tar at a time unpack them.
- Mesos' way: GNU tar unpacks the archive, then all its layers at once, each into a folder, which is then moved.
- ours: a fresh Python process each time. `put` is from the call until the future is ready, and includes the start of
  the worker processes; `whole process` includes Python's start and end.
- podman load: into a store of its own. It keeps layers apart, as ours does.
- umoci unpack: all layers into one tree, from an OCI layout that skopeo made before, untimed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from processes import ProgramFailedError, Run, peak_of, run, tree
from surroundings import file_system, machine, versions

from pykka_imagestore import LocalStore

BASELINE = "GNU tar, bare layers, two at a time"
TIMEOUT = 3600


@dataclass
class Inputs:
    """What the contestants get.

    Attributes:
        layers: Names of the archive's distinct layers, as files below ``bare``.
        tiny: An archive of a small image.
    """

    archive: Path
    bare: Path
    layers: list[str]
    tiny: Path
    workers: int | None


@dataclass
class Row:
    """What was measured of one thing, round by round."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Rows(dict[str, Row]):
    """By name, in the order in which they were first measured."""

    def add(self, name: str, seconds: float, peak_bytes: int = 0) -> None:
        row = self.setdefault(name, Row())
        row.seconds.append(seconds)
        row.peak_bytes.append(peak_bytes)


Contestant = Callable[[Inputs, Path, Rows], None]


# -- the contestants: each gets a fresh directory, and adds what it measured


def bare_layers(inputs: Inputs, directory: Path, rows: Rows) -> None:
    layers = sorted(inputs.layers, key=lambda layer: (inputs.bare / layer).stat().st_size, reverse=True)
    begin = time.perf_counter()
    peak_bytes = untar_all(2, [(inputs.bare / layer, directory / str(n)) for n, layer in enumerate(layers)])
    rows.add(BASELINE, time.perf_counter() - begin, peak_bytes)


def mesos_way(inputs: Inputs, directory: Path, rows: Rows) -> None:
    image, staged, store = directory / "image", directory / "staged", directory / "store"
    begin = time.perf_counter()
    peaks = [untar_all(1, [(inputs.archive, image)])]
    peaks += [
        untar_all(len(inputs.layers), [(image / layer, staged / str(n)) for n, layer in enumerate(inputs.layers)])
    ]
    store.mkdir()
    for layer in list(staged.iterdir()):
        layer.rename(store / layer.name)
    rows.add("GNU tar, Mesos' way", time.perf_counter() - begin, max(peaks))


def ours(inputs: Inputs, directory: Path, rows: Rows) -> None:
    done, put = run_ours("put", inputs, directory)
    rows.add("ours, put (no final sync)", put["seconds"], put["worker_peak_bytes"])
    rows.add("ours, whole process (no final sync)", done.seconds, done.peak_bytes)


def ours_durable(inputs: Inputs, directory: Path, rows: Rows) -> None:
    _, put = run_ours("put", inputs, directory, durable=True)
    rows.add("ours, put, durable (all synced)", put["seconds"], put["worker_peak_bytes"])


def ours_meanwhile(inputs: Inputs, directory: Path, rows: Rows) -> None:
    _, latencies = run_ours("latencies", inputs, directory)
    for name, seconds in latencies.items():
        rows.add(name, seconds)


class Podman:
    """``podman load`` with the first storage driver that works here."""

    def __init__(self, inputs: Inputs, directory: Path) -> None:
        for self.driver in ("overlay", "vfs"):
            try:
                self._load(inputs.tiny, directory / self.driver)
                return
            except ProgramFailedError as error:
                failure = error
        raise failure

    def __call__(self, inputs: Inputs, directory: Path, rows: Rows) -> None:
        loaded = self._load(inputs.archive, directory)
        rows.add(f"podman load ({self.driver})", loaded.seconds, loaded.peak_bytes)

    def _load(self, archive: Path, directory: Path) -> Run:
        (directory / "tmp").mkdir(parents=True)
        folders = ("--root", directory / "root", "--runroot", directory / "run", "--tmpdir", directory / "libpod")
        environment = {**os.environ, "TMPDIR": str(directory / "tmp")}
        return run("podman", *folders, "--storage-driver", self.driver, "load", "-i", archive, env=environment)


class Umoci:
    """``umoci unpack`` of an OCI layout."""

    def __init__(self, inputs: Inputs, directory: Path) -> None:
        directory.mkdir()
        self._image = f"{directory / 'oci'}:bench"
        run("skopeo", "--tmpdir", directory, "copy", f"docker-archive:{inputs.archive}:@0", f"oci:{self._image}")

    def __call__(self, _: Inputs, directory: Path, rows: Rows) -> None:
        unpacked = run("umoci", "unpack", "--image", self._image, directory / "bundle")
        rows.add("umoci unpack", unpacked.seconds, unpacked.peak_bytes)


def untar_all(processes: int, archives: list[tuple[Path, Path]]) -> int:
    """Unpack with GNU tar; return the memory of the largest process."""

    def untar(archive: Path, directory: Path) -> int:
        directory.mkdir(parents=True)
        return run("tar", "-xf", archive, "-C", directory).peak_bytes

    with ThreadPoolExecutor(processes) as threads:
        return max(threads.map(lambda item: untar(*item), archives))


# -- ours, in a process of its own


def run_ours(what: str, inputs: Inputs, directory: Path, *, durable: bool = False) -> tuple[Run, dict[str, float]]:
    request = {
        "what": what,
        "archive": str(inputs.archive),
        "tiny": str(inputs.tiny),
        "store": str(directory / "store"),
    }
    done = run(
        sys.executable, __file__, "--ours", json.dumps({**request, "workers": inputs.workers, "durable": durable})
    )
    return done, json.loads(done.output)


def measure_ours(request: dict[str, object]) -> dict[str, float]:
    with LocalStore.start(request["store"], workers=request["workers"], durable=request["durable"]) as store:
        if request["what"] == "put":
            seconds = seconds_of(lambda: store.put("big", request["archive"]).get(timeout=TIMEOUT))
            return {"seconds": seconds, "worker_peak_bytes": max(map(peak_of, tree(os.getpid())))}
        return measure_latencies(store, request["archive"], request["tiny"])


def measure_latencies(store: LocalStore, archive: str, tiny: str) -> dict[str, float]:
    store.put("tiny", tiny).get(timeout=TIMEOUT)
    put, gets = store.put("big", archive), []
    while not put.done():
        gets.append(seconds_of(lambda: store.get("tiny").get(timeout=TIMEOUT)))
        time.sleep(0.001)
    put.get(timeout=0)
    again = [seconds_of(lambda: store.put("big", archive).get(timeout=TIMEOUT)) for _ in range(20)]
    idle = [seconds_of(lambda: store.get("big").get(timeout=TIMEOUT)) for _ in range(200)]
    return {
        "put again": statistics.median(again),
        "get": statistics.median(idle),
        "get of another image while a put runs": statistics.median(gets),
        "... 99 of 100 are no slower than": statistics.quantiles([*gets, gets[-1]], n=100)[-1],
        "... the slowest": max(gets),
    }


def seconds_of(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


# -- inputs


def prepare(archive: Path, work: Path, workers: int | None) -> Inputs:
    bare = work / "bare"
    untar_all(1, [(archive, bare)])
    manifest = bare / "manifest.json"
    if not manifest.exists():
        sys.exit(f"put.py: {archive} has no manifest.json; an archive of docker save 1.10 or later is needed")
    layers = [layer for image in json.loads(manifest.read_text()) for layer in image["Layers"]]
    tiny = write_archive(work / "tiny.tar", "tiny:1", layers=1, files=10)
    return Inputs(archive, bare, list(dict.fromkeys(layers)), tiny, workers)


def write_archive(path: Path, name: str, layers: int, files: int) -> Path:
    """Write an archive as docker save does."""
    members = {}
    for layer in range(layers):
        data = tar_of({f"layer{layer}/{file // 100}/{file}": b"%d\n" % file * 200 for file in range(files)})
        members[f"{hashlib.sha256(data).hexdigest()}.tar"] = data
    diff_ids = [f"sha256:{member.removesuffix('.tar')}" for member in members]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    encoded = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": list(members)}]).encode()
    path.write_bytes(tar_of({config_name: encoded, **members, "manifest.json": manifest}))
    return path


def tar_of(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return data.getvalue()


def choose_contestants(inputs: Inputs, work: Path) -> list[Contestant]:
    contestants: list[Contestant] = [bare_layers, ours, mesos_way, ours_durable, ours_meanwhile]
    for tools, peer in ((("podman",), Podman), (("umoci", "skopeo"), Umoci)):
        absent = [tool for tool in tools if shutil.which(tool) is None]
        try:
            if absent:
                raise ProgramFailedError(f"{absent[0]} is not installed")
            contestants.append(peer(inputs, work / tools[0]))
        except ProgramFailedError as error:
            print(f"without {tools[0]}: {error}", file=sys.stderr)
    return contestants


def require_space(work: Path, archive: Path, contestants: int, rounds: int) -> None:
    needed = archive.stat().st_size * (contestants + 1) * rounds
    free = shutil.disk_usage(work).free
    if needed > free:
        sys.exit(
            f"put.py: {rounds} rounds may need {needed / 1e9:.0f} GB in {work}, {free / 1e9:.0f} GB are free: "
            "choose fewer --rounds, or another --work"
        )


# -- the run


def measure(inputs: Inputs, contestants: list[Contestant], work: Path, rounds: int) -> Rows:
    rows = Rows()
    for number in range(rounds):
        turn = number % len(contestants)
        for place, contestant in enumerate([*contestants[turn:], *contestants[:turn]]):
            directory = work / f"round{number}" / str(place)
            directory.mkdir(parents=True)
            for path in (inputs.archive, *(inputs.bare / layer for layer in inputs.layers)):
                subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)  # into the page cache
            subprocess.run(["sync", "--file-system", work], check=True)
            contestant(inputs, directory, rows)
        print(f"round {number + 1} of {rounds} is done", file=sys.stderr)
    return rows


def print_table(rows: Rows, title: str) -> None:
    baseline = rows[BASELINE].median
    print(title, "", f"{'seconds, median':<40}{'':>9}{'least':>9}{'most':>9}{'ratio':>8}{'peak MB':>9}", sep="\n")
    for name, row in sorted(rows.items(), key=lambda item: item[1].median):
        if any(row.peak_bytes):
            ratio, peak = row.median / baseline, statistics.median(row.peak_bytes) / 1e6
            times = f"{row.median:>9.3f}{min(row.seconds):>9.3f}{max(row.seconds):>9.3f}"
            print(f"{name:<40}{times}{ratio:>8.2f}{peak:>9.1f}")
    print("", f"{'milliseconds, median of rounds':<49}{'least':>9}{'most':>9}", sep="\n")
    for name, row in rows.items():
        if not any(row.peak_bytes):
            least, most = min(row.seconds) * 1000, max(row.seconds) * 1000
            print(f"{name:<40}{row.median * 1000:>9.2f}{least:>9.2f}{most:>9.2f}")


def report(rows: Rows, archive: Path, layers: int, work: Path, rounds: int) -> dict[str, object]:
    return {
        "benchmark": "put",
        "archive": {"name": archive.name, "bytes": archive.stat().st_size, "layers": layers},
        "rounds": rounds,
        "baseline": BASELINE,
        "machine": machine(),
        "file_system": file_system(work),
        "versions": versions("tar", "podman", "umoci", "skopeo"),
        "results": {
            name: {
                "median_seconds": row.median,
                "ratio": row.median / rows[BASELINE].median,
                "seconds": row.seconds,
                "peak_bytes": row.peak_bytes,
            }
            for name, row in rows.items()
        },
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="default: a small one, made of generated files")
    parser.add_argument("--work", type=Path, help="where all is written (default: the folder for temporary files)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="of ours; default: the CPUs that this process may use")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    parser.add_argument("--quick", action="store_true", help="one round of a small archive: does it run at all?")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.ours:
        print(json.dumps(measure_ours(json.loads(arguments.ours))))
        return
    rounds = 1 if arguments.quick else arguments.rounds
    work = Path(tempfile.mkdtemp(prefix="bench-put-", dir=arguments.work))
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["rm", "-rf", work], check=True)
        archive = arguments.archive
        if archive is None or arguments.quick:
            archive = write_archive(work / "generated.tar", "generated:1", 3, 300 if arguments.quick else 10_000)
        inputs = prepare(archive.absolute(), work, arguments.workers)
        contestants = choose_contestants(inputs, work)
        require_space(work, archive, len(contestants), rounds)
        rows = measure(inputs, contestants, work, rounds)
        result = report(rows, archive, len(inputs.layers), work, rounds)
        size = f"{archive.stat().st_size / 1e6:.0f} MB, {len(inputs.layers)} layers"
        print_table(rows, f"{archive.name}, {size}, {rounds} rounds, on {result['file_system']['type']}")
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
