"""How long does it take to unpack an image archive onto disk: with ours, GNU tar, and common image tools?

    put.py [ARCHIVE ...] [--on DIR] [--fresh-fs SIZE [--fs TYPE]] [--rounds N] [--workers 1,2,4] [--durable] [--json F]

An archive is a docker-archive, an OCI archive, or an OCI layout. By default, one of each of the first two is made up.
The contestants take turns, round by round, each into a fresh directory. What a run wrote is synced after it, untimed.
Nothing is deleted before the end, because ext4 makes files slowly right after a mass deletion. With --fresh-fs each run
has a file system of its own, which takes less room. The archive's content is in the page cache. Only ours syncs what it
unpacked, in the rows of --durable; only ours and the image tools verify anything.

- GNU tar, bare layers: the layers were taken out of the archive before, untimed, as they are stored; two at a time.
- GNU tar, Mesos' way: the archive, then all its layers at once, each into a directory, which is then moved.
- ours: a fresh Python process each time. `put` is the time from the call until the future is ready: with the start of
  the worker processes or, `before`, without it, in an agent that has already put something. `process` is the whole
  process, with Python's start and end. The memory is that of our largest process.
- podman load, skopeo copy: into a store of their own. They keep layers apart, as ours does.
- umoci unpack: all layers into one tree, from an OCI layout that skopeo made before, untimed.
- docker load, ctr images import: if a daemon answers; docker's only if it has no images. The daemon writes to its own
  directory, wherever that is. What it loaded is removed again, untimed, and the memory is the client's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ours import add_workers_argument, counted, put_in_new_process, workers_of
from places import Places, add_place_arguments, read_into_cache, work_directory
from processes import ProgramFailedError, Run, run
from rows import PEAK, SECONDS, Rows, add_output_arguments, print_table, ratio_to, write_json
from samples import Shape, compress, write_docker_archive, write_layer, write_oci_archive

from pykka_imagestore.core.byte_source import BLOCK_BYTES
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image

BASELINE = "GNU tar, bare layers, two at a time"
DRIVERS = ("overlay", "vfs")
DAEMON_TIMEOUT = 5
TOOLS = ("tar", "podman", "skopeo", "umoci", "docker", "ctr")


@dataclass(frozen=True, slots=True)
class Image:
    """What the contestants unpack.

    Attributes:
        form: The form as skopeo spells it: docker-archive, oci-archive, or oci.
        bare: The image's distinct layers, each as a file of its own, the largest first.
        names: The layers' names in the archive.
        layout: The image as an OCI layout, for umoci; None without skopeo.
    """

    form: str
    path: Path
    bare: list[Path]
    names: list[str]
    layout: Path | None

    @property
    def title(self) -> str:
        files = self.path.rglob("*") if self.path.is_dir() else (self.path,)
        size = sum(file.stat().st_size for file in files if file.is_file())
        return f"{self.path.name}: {self.form}, {size / 1e6:.0f} MB, {len(self.bare)} layers"


Contestant = Callable[[Image, Path, Rows], None]


# -- GNU tar


def bare_layers(image: Image, directory: Path, rows: Rows) -> None:
    begin = time.perf_counter()
    peak_bytes = untar_all(2, [(layer, directory / layer.name) for layer in image.bare])
    rows.add(BASELINE, seconds=time.perf_counter() - begin, peak_bytes=peak_bytes)


def mesos_way(image: Image, directory: Path, rows: Rows) -> None:
    unpacked, staged, store = directory / "image", directory / "staged", directory / "store"
    begin = time.perf_counter()
    peaks = [untar_all(1, [(image.path, unpacked)])]
    layers = [(unpacked / name, staged / str(number)) for number, name in enumerate(image.names)]
    peaks.append(untar_all(len(layers), layers))
    store.mkdir()
    for layer in list(staged.iterdir()):
        layer.rename(store / layer.name)
    rows.add("GNU tar, Mesos' way", seconds=time.perf_counter() - begin, peak_bytes=max(peaks))


def untar_all(processes: int, archives: Sequence[tuple[Path, Path]]) -> int:
    """Unpack with GNU tar, a number at a time; return the memory of the largest process."""

    def untar(archive: Path, directory: Path) -> int:
        directory.mkdir(parents=True)
        return run("tar", "-xf", archive, "-C", directory).peak_bytes

    with ThreadPoolExecutor(processes) as threads:
        return max(threads.map(lambda item: untar(*item), archives))


# -- ours


def ours(workers: int, durable: bool, image: Image, directory: Path, rows: Rows) -> None:
    process, put = put_in_new_process(image.path, directory / "store", workers, durable=durable)
    how = f"{counted(workers)}{', durable' * durable}"
    rows.add(f"ours, put, {how}", **put)
    rows.add(f"ours, process, {how}", seconds=process.seconds, peak_bytes=process.peak_bytes)


def ours_running(workers: int, tiny: Image, image: Image, directory: Path, rows: Rows) -> None:
    _, put = put_in_new_process(image.path, directory / "store", workers, warm_up=tiny.path)
    rows.add(f"ours, put, {counted(workers)}, another put before", **put)


# -- the tools; each instance was tried on a small image when it was made


class Podman:
    def __init__(self, tiny: Image, directory: Path) -> None:
        self._driver = first_that_works(lambda driver: self._load(driver, tiny, directory / driver))

    def __call__(self, image: Image, directory: Path, rows: Rows) -> None:
        loaded = self._load(self._driver, image, directory)
        rows.add(f"podman load ({self._driver})", seconds=loaded.seconds, peak_bytes=loaded.peak_bytes)

    def _load(self, driver: str, image: Image, directory: Path) -> Run:
        (directory / "tmp").mkdir(parents=True)
        directories = ("--root", directory / "root", "--runroot", directory / "run", "--tmpdir", directory / "libpod")
        environment = {**os.environ, "TMPDIR": str(directory / "tmp")}
        return run("podman", *directories, "--storage-driver", driver, "load", "-i", image.path, env=environment)


class Skopeo:
    def __init__(self, tiny: Image, directory: Path) -> None:
        self._driver = first_that_works(lambda driver: self._copy(driver, tiny, directory / driver))

    def __call__(self, image: Image, directory: Path, rows: Rows) -> None:
        copied = self._copy(self._driver, image, directory)
        name = f"skopeo copy to containers-storage ({self._driver})"
        rows.add(name, seconds=copied.seconds, peak_bytes=copied.peak_bytes)

    def _copy(self, driver: str, image: Image, directory: Path) -> Run:
        (directory / "tmp").mkdir(parents=True)
        target = f"containers-storage:[{driver}@{directory / 'root'}+{directory / 'run'}]localhost/bench:1"
        return skopeo_copy(image.form, image.path, target, directory / "tmp")


class Umoci:
    def __init__(self, tiny: Image, directory: Path) -> None:
        self._unpack(tiny, directory)

    def __call__(self, image: Image, directory: Path, rows: Rows) -> None:
        unpacked = self._unpack(image, directory)
        rows.add("umoci unpack", seconds=unpacked.seconds, peak_bytes=unpacked.peak_bytes)

    def _unpack(self, image: Image, directory: Path) -> Run:
        if image.layout is None:
            raise ProgramFailedError("it needs an OCI layout, and skopeo to make one")
        return run("umoci", "unpack", "--image", f"{image.layout}:bench", directory / "bundle")


class Docker:
    def __init__(self, tiny: Image, directory: Path) -> None:
        require_answer("docker", "info")
        if run("docker", "images", "--all", "--quiet").output.strip():  # they may share layers, and be needed
            raise ProgramFailedError("its daemon has images; only one without any is measured")
        self(tiny, directory, Rows())

    def __call__(self, image: Image, _: Path, rows: Rows) -> None:
        loaded = run("docker", "load", "-i", image.path)
        rows.add("docker load (daemon)", seconds=loaded.seconds, peak_bytes=loaded.peak_bytes)
        for line in loaded.output.splitlines():
            if line.startswith("Loaded image"):
                run("docker", "image", "rm", "--force", line.partition(": ")[2])


class Ctr:
    def __init__(self, tiny: Image, directory: Path) -> None:
        require_answer("ctr", "version")
        self(tiny, directory, Rows())

    def __call__(self, image: Image, _: Path, rows: Rows) -> None:
        namespace = ("ctr", "--namespace", "pykka-imagestore-bench")
        loaded = run(*namespace, "images", "import", image.path)
        rows.add("ctr images import (daemon)", seconds=loaded.seconds, peak_bytes=loaded.peak_bytes)
        names = run(*namespace, "images", "list", "--quiet").output.split()
        run(*namespace, "images", "remove", "--sync", *names)


PEERS: dict[str, Callable[[Image, Path], Contestant]] = {
    "podman": Podman,
    "skopeo": Skopeo,
    "umoci": Umoci,
    "docker": Docker,
    "ctr": Ctr,
}


def first_that_works(attempt: Callable[[str], object]) -> str:
    """Return the first storage driver with which an attempt succeeds."""
    failure: ProgramFailedError | None = None
    for driver in DRIVERS:
        try:
            attempt(driver)
            return driver
        except ProgramFailedError as error:
            failure = failure or error
    raise failure or AssertionError


def require_answer(*command: str) -> None:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            status = process.wait(DAEMON_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            status = None
    if status != 0:
        raise ProgramFailedError("its daemon does not answer")


def skopeo_copy(form: str, path: Path, target: str, temporary: Path) -> Run:
    which = ":@0" if form == "docker-archive" else ""
    insecure = "--insecure-policy"  # without a policy.json everything would be refused
    return run("skopeo", insecure, "--tmpdir", temporary, "copy", f"{form}:{path}{which}", target)


# -- what they unpack


def prepare(archive: Path, directory: Path) -> Image:
    """Find out an archive's form, and take its layers out."""
    directory.mkdir()
    layers = untar_image(UntarImage(str(archive), str(directory / "inflated"))).images[0].layers
    distinct = {layer.place: layer for layer in layers}
    bare = []
    for number, layer in enumerate(distinct.values()):
        bare.append(directory / f"layer{number}")
        with open_blob(layer, is_verified=True) as source, bare[-1].open("wb") as target:
            while block := source.read(BLOCK_BYTES):
                target.write(block)
    form = form_of(archive)
    bare.sort(key=lambda layer: layer.stat().st_size, reverse=True)
    names = [layer.name for layer in distinct.values()]
    return Image(form, archive, bare, names, layout_of(form, archive, directory) if form != "docker-archive" else None)


def form_of(archive: Path) -> str:
    if archive.is_dir():
        return "oci"
    with tarfile.open(archive) as tar:
        return "docker-archive" if "manifest.json" in tar.getnames() else "oci-archive"


def layout_of(form: str, archive: Path, directory: Path) -> Path | None:
    """Return the image as a layout in which its name is bench; None if that is not possible."""
    if shutil.which("skopeo") is None:
        return None
    layout = directory / "layout"
    skopeo_copy(form, archive, f"oci:{layout}:bench", directory)
    return layout


def make_up(work: Path, name: str, layers: int, files: int) -> list[Path]:
    """Make up one image, and return it as a docker-archive and as an OCI archive with gzip."""
    directory = work / name
    directory.mkdir()
    plain = [
        write_layer(directory / f"{n}.tar", Shape("", files // (n + 1), 8000), seed=n) for n in range(layers)
    ]  # of different sizes, as in real images
    packed = [(compress(layer, "gzip"), "gzip", layer) for layer in plain]
    docker = write_docker_archive(directory / "docker.tar", plain)
    return [docker, write_oci_archive(directory / "oci.tar", packed)]


def choose_contestants(
    image: Image, tiny: Image, arguments: argparse.Namespace, places: Places, absent: dict[str, str]
) -> Iterator[Contestant]:
    yield bare_layers
    if image.path.is_file():
        yield mesos_way
    for workers in workers_of(arguments):
        yield partial(ours, workers, False)
        yield partial(ours_running, workers, tiny)
        if arguments.durable:
            yield partial(ours, workers, True)
    for tool, peer in PEERS.items():
        if tool == "umoci" and image.form == "docker-archive":
            continue
        try:
            if shutil.which(tool) is None:
                raise ProgramFailedError("it is not installed")
            with places.fresh() as directory:
                contestant = peer(tiny, directory)
            yield contestant
        except ProgramFailedError as error:
            absent[f"{tool}, {image.form}"] = str(error)
            print(f"{image.form}: without {tool}: {error}", file=sys.stderr)


# -- the run


def measure(
    contestants: Sequence[tuple[Image, Contestant]], places: Places, rounds: int, failed: dict[str, str]
) -> dict[str, Rows]:
    groups = {image.title: Rows() for image, _ in contestants}
    for number in range(rounds):
        turn = number % len(contestants)
        for image, contestant in [*contestants[turn:], *contestants[:turn]]:
            for path in (image.path, *image.bare, *([image.layout] if image.layout else [])):
                read_into_cache(path)
            with places.fresh() as directory:
                try:
                    contestant(image, directory, groups[image.title])
                except ProgramFailedError as error:
                    failed[f"round {number + 1}, {image.form}"] = str(error)
                    print(f"{image.form}: {error}", file=sys.stderr)
        print(f"round {number + 1} of {rounds} is done", file=sys.stderr)
    return groups


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="*", type=Path, help="docker-archives, OCI archives, or OCI layouts")
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    add_workers_argument(parser)
    parser.add_argument("--durable", action="store_true", help="also measure ours with everything synced")
    add_output_arguments(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    rounds = 1 if arguments.quick else arguments.rounds
    absent: dict[str, str] = {}
    failed: dict[str, str] = {}
    with work_directory(arguments.on) as work:
        places = Places(work, arguments.fresh_fs, arguments.fs)
        # As many layers as workers, so that afterwards all worker processes run.
        tiny_archives = make_up(work, "tiny", max(workers_of(arguments)), 10)
        tiny = [prepare(path, work / f"tiny{n}") for n, path in enumerate(tiny_archives)]
        archives = arguments.archives or make_up(work, "made-up", 3, 50 if arguments.quick else 20_000)
        images = [prepare(path.resolve(), work / f"image{n}") for n, path in enumerate(archives)]
        contestants = [
            (image, contestant)
            for image in images
            for contestant in choose_contestants(image, tiny[image.form != "docker-archive"], arguments, places, absent)
        ]
        groups = measure(contestants, places, rounds, failed)
        on = places.file_system
    for title, rows in groups.items():
        by_time = dict(sorted(rows.items(), key=lambda item: item[1].median()))
        columns = (*SECONDS, ratio_to(rows[BASELINE]), PEAK)
        print_table(f"{title}; {rounds} rounds", by_time, columns, markdown=arguments.markdown)
    title = "Seconds until an image archive lies unpacked"
    facts = {"benchmark": "put", "title": title, "rounds": rounds, "baseline": BASELINE, "file_system": on}
    write_json(arguments.json, groups, TOOLS, **facts, absent=absent, failed=failed)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
