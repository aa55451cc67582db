"""How long until an image is a root file system, and until it is gone: ours, podman, buildah, containerd, copies?

    rootfs.py [ARCHIVE] [--on DIR] [--fresh-fs SIZE] [--rounds N] [--only REGEX] [--json F] [--markdown] [--quick]

The archive is a docker-archive of one image; by default one is made up. It needs root. All that is mounted and started
is in namespaces of this run alone. With --fresh-fs each contestant has a file system of its own, of one kind.

Each contestant brings the image into a store of its own, untimed, and then gives trees that can be written: a file is
written into each. "provision" is the time from the call, or the start of a program, until the tree is there, "destroy"
the time until the caller may go on. The contestants take turns, round by round:

- right after a put: the first container after the image was brought in, whose bytes are still being written back.
- beside 1: everything is synced, and one container is there; 1 at a time, and then 50 at a time, asked for at once.
- beside 1,000: contestant after contestant, for what is mounted by one would slow down the others.
- copies: a copy of the whole tree, 1 at a time; the removals come last.
- sandboxes: ours alone, 1,000 made and removed, 100 at a time, and what is left of them in the end.

p99 is of all rounds; of fewer than 100 values it is the slowest. What we want to hold is told line by line at the end.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from pathlib import Path

from namespaces import go_alone
from places import Places, add_place_arguments, read_into_cache, work_directory
from processes import ProgramFailedError
from rootfs_bounds import AFTER_PUT, API, COPIES, SANDBOXES, Measured, bounds, crowded, print_bounds, quiet
from rootfs_ours import OURS, OursDurable, measure_sandboxes
from rootfs_peers import PEERS, Contestant, Image, layout_of
from rows import Column, Row, Rows, add_output_arguments, print_table, write_json
from samples import Shape, write_docker_archive, write_layer

from pykka_imagestore import StoreError

FAILURES = (ProgramFailedError, StoreError, OSError)  # OSError: of a full disk
TOOLS = ("podman", "buildah", "containerd", "ctr", "umoci", "cp", "mount")


@dataclass(frozen=True, slots=True)
class Effort:
    """How many are measured of everything; each is an option too.

    Attributes:
        in_a_round: The most that a contestant makes one at a time in a round; some make fewer.
    """

    rounds: int = 8
    in_a_round: int = 50
    batches: int = 3
    puts: int = 2
    copies: int = 2
    at_once: int = 50
    crowd: int = 1000
    sandboxes: int = 1000


QUICK = Effort(rounds=1, in_a_round=2, batches=1, puts=1, copies=1, at_once=2, crowd=3, sandboxes=4)


@dataclass
class Race:
    """What was measured so far, in a group for each act in each situation, and who failed at what."""

    groups: dict[str, Rows] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _names: Iterator[str] = field(default_factory=lambda: (f"bench{number}" for number in count()))

    def names(self, number: int) -> list[str]:
        """Return names that no container had yet."""
        return [next(self._names) for _ in range(number)]

    def turn(self, contestant: Contestant, situation: str, containers: int, at_once: int = 1) -> None:
        """Have a contestant make and remove a number of containers, some at once."""
        try:
            for _ in range(0, containers, at_once):
                self._make_and_remove(contestant, situation, self.names(at_once))
            contestant.settle()
        except FAILURES as error:
            self.failed[f"{contestant.name}, {situation}"] = str(error)
            print(f"{contestant.name}: {error}", file=sys.stderr)

    def _make_and_remove(self, contestant: Contestant, situation: str, containers: Sequence[str]) -> None:
        made = contestant.make(containers)
        for container in containers:
            write_into(contestant.tree(container))
        gone = contestant.remove(containers)
        self.note(contestant.name, situation, made, gone)

    def note(self, name: str, situation: str, made: Sequence[float], gone: Sequence[float]) -> None:
        for act, seconds in (("provision", made), ("destroy", gone)):
            for each in seconds:
                self.groups.setdefault(f"{act}, {situation}", Rows()).add(name, seconds=round(each, 7))
        if made and gone:
            self.groups[f"provision, {situation}"].add(name, a_second=round(len(made) / (max(made) + max(gone)), 3))


# -- the situations


def measure_after_put(race: Race, kinds: Sequence[type[Contestant]], image: Image, places: Places, puts: int) -> None:
    for number in range(puts):
        for kind in in_turn(kinds, number):
            with places.fresh() as directory, closing(kind(directory)) as contestant:
                contestant.load(image)
                race.turn(contestant, AFTER_PUT, 1)
        tell(f"right after a put: round {number + 1} of {puts}")


def measure_at_rest(
    race: Race, kinds: Sequence[type[Contestant]], image: Image, places: Places, effort: Effort
) -> None:
    with ExitStack() as stack:
        stations = {place: Station(kinds, place, image, places, stack) for place in {kind.place: 0 for kind in kinds}}
        contestants = [contestant for station in stations.values() for contestant in station.contestants]
        os.sync()
        for contestant in contestants:
            contestant.make(race.names(1))
        for number in range(effort.rounds):
            for contestant in in_turn(contestants, number):
                race.turn(contestant, quiet(1), min(contestant.at_rest, effort.in_a_round))
        tell("at rest, 1 at a time")
        for number in range(effort.batches):
            for contestant in in_turn(contestants, number):
                race.turn(contestant, quiet(effort.at_once), effort.at_once, effort.at_once)
        tell(f"at rest, {effort.at_once} at a time")
        for station in stations.values():
            measure_in_crowd(race, station.contestants, effort)
            station.close()


def measure_in_crowd(race: Race, contestants: Sequence[Contestant], effort: Effort) -> None:
    for _ in range(0, effort.crowd, effort.at_once):
        contestants[0].make(race.names(effort.at_once))
    os.sync()
    for number in range(max(1, effort.rounds // 4)):
        for contestant in in_turn(contestants, number):
            race.turn(contestant, crowded(1, effort.crowd), min(contestant.at_rest, effort.in_a_round))
    for contestant in contestants:
        race.turn(contestant, crowded(effort.at_once, effort.crowd), effort.at_once, effort.at_once)
    tell(f"beside {effort.crowd:,}: {', '.join(contestant.name for contestant in contestants)}")


def measure_copies(race: Race, kinds: Sequence[type[Contestant]], image: Image, places: Places, copies: int) -> None:
    with ExitStack() as stack:
        stations = [Station(kinds, place, image, places, stack) for place in {kind.place: 0 for kind in kinds}]
        contestants = [contestant for station in stations for contestant in station.contestants]
        made: list[tuple[Contestant, str]] = []
        for number in range(copies):
            for contestant in in_turn(contestants, number):
                os.sync()
                made += [(contestant, name) for name in race.names(1)]
                race.note(contestant.name, COPIES, contestant.make([made[-1][1]]), [])
                write_into(contestant.tree(made[-1][1]))
        for contestant, name in made:
            os.sync()
            race.note(contestant.name, COPIES, [], contestant.remove([name]))
            contestant.settle()
    tell("copies")


def measure_many(race: Race, image: Image, places: Places, effort: Effort) -> dict[str, int]:
    with places.fresh() as directory:
        figures, left = measure_sandboxes(image, directory, effort.sandboxes, 2 * effort.at_once)
    race.groups[f"provision, {SANDBOXES}"] = Rows()
    race.groups[f"provision, {SANDBOXES}"].add(API, **figures)
    tell("sandboxes")
    return left


class Station:
    """The contestants of one place, with the image in it."""

    def __init__(
        self, kinds: Sequence[type[Contestant]], place: str, image: Image, places: Places, outer: ExitStack
    ) -> None:
        self._stack = outer.enter_context(ExitStack())
        directory = self._stack.enter_context(places.fresh())
        self.contestants = [
            self._stack.enter_context(closing(kind(directory))) for kind in kinds if kind.place == place
        ]
        for contestant in self.contestants:
            contestant.load(image)

    def close(self) -> None:
        self._stack.close()


# -- who takes part


def choose(
    kinds: Sequence[type[Contestant]], only: str, tiny: Image, places: Places, absent: dict[str, str]
) -> list[type[Contestant]]:
    """Return those of the contestants that make and remove containers of a small image here."""
    chosen = []
    for kind in kinds:
        if not re.search(only, kind.name):
            continue
        try:
            if kind.tool is not None and shutil.which(kind.tool) is None:
                raise ProgramFailedError("it is not installed")
            with places.fresh() as directory, closing(kind(directory)) as contestant:
                try_out(contestant, tiny)
            chosen.append(kind)
        except FAILURES as error:
            absent[kind.name] = str(error)
            print(f"without {kind.name}: {error}", file=sys.stderr)
    return chosen


def try_out(contestant: Contestant, tiny: Image) -> None:
    """Check that a contestant gives the image's tree, to each container its own, and takes it away."""
    contestant.load(tiny)
    containers = ["try1", "try2"]
    contestant.make(containers)
    trees = [contestant.tree(container) for container in containers]
    for tree in trees:
        write_into(tree)
    for tree in trees:
        if not (tree / TINY_FILE).is_file():
            raise ProgramFailedError(f"its tree {tree} is not the image's")
    contestant.remove(containers)
    contestant.settle()
    for tree in trees:
        if (tree / TINY_FILE).exists():
            raise ProgramFailedError(f"its tree {tree} is still there")


TINY_FILE = "srv/0/0/file0.txt"


def write_into(tree: Path) -> None:
    with (tree / "written-by-its-container").open("x") as file:
        file.write("x")


def in_turn(items: Sequence, number: int) -> list:
    """Return some items, each time another one first."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


# -- the run


def make_up(work: Path, name: str, files: int) -> Image:
    layers = [write_layer(work / f"{name}{n}", Shape("", files // (n + 1), 8000), seed=n) for n in range(3)]
    return prepare(write_docker_archive(work / f"{name}.tar", layers), work / f"{name}-layout")


def prepare(archive: Path, layout: Path) -> Image:
    read_into_cache(archive)
    return Image(archive, layout_of(archive, layout))


def print_situations(groups: dict[str, Rows], *, markdown: bool) -> None:
    for group, made in groups.items():
        act, _, situation = group.partition(", ")
        gone = groups.get(f"destroy, {situation}")
        if act == "provision" and gone:
            both = {name: Row(made[name].values | {"gone": gone[name].seconds}) for name in made if name in gone}
            in_order = dict(sorted(both.items(), key=lambda item: item[1].median()))
            print_table(f"{situation}: milliseconds", in_order, COLUMNS, markdown=markdown)


COLUMNS = [
    Column("provision, p50", lambda row: f"{row.median() * 1000:,.2f}"),
    Column("p99", lambda row: f"{row.percentile(99) * 1000:,.2f}"),
    Column("destroy, p50", lambda row: f"{row.median('gone') * 1000:,.2f}"),
    Column("p99", lambda row: f"{row.percentile(99, 'gone') * 1000:,.2f}"),
    Column("both, a second", lambda row: f"{row.median('a_second'):,.1f}"),
    Column("measured", lambda row: f"{len(row.seconds)}"),
]


def tell(what: str) -> None:
    print(f"done: {what}", file=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="a docker-archive of one image")
    add_place_arguments(parser)
    for each in fields(Effort):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=int, default=each.default, metavar="N")
    parser.add_argument("--only", default="", metavar="REGEX", help="only contestants whose name matches")
    add_output_arguments(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    effort = QUICK if arguments.quick else Effort(*(getattr(arguments, each.name) for each in fields(Effort)))
    race, absent = Race(), dict[str, str]()
    with work_directory(arguments.on) as work:
        places = Places(work, arguments.fresh_fs, arguments.fs)
        tiny = make_up(work, "tiny", 30)
        kinds = choose([*OURS, *PEERS], arguments.only, tiny, places, absent)
        if arguments.archive:
            image = prepare(arguments.archive.resolve(), work / "layout")
        else:
            image = make_up(work, "made-up", 100 if arguments.quick else 20_000)
        mounting, copying = ([kind for kind in kinds if kind.copies is copies] for copies in (False, True))
        if mounting:
            measure_after_put(race, mounting, image, places, effort.puts)
            measure_at_rest(race, mounting, image, places, effort)
        if copying:
            measure_copies(race, copying, image, places, effort.copies)
        left = measure_many(race, image, places, effort) if OursDurable in kinds else {}
        on = places.file_system
    title = "Seconds until an image is a root file system, and until it is gone"
    print(f"{image.archive.name}\n")
    print_situations(race.groups, markdown=arguments.markdown)
    held = list(bounds(Measured(race.groups, effort.at_once, left)))
    print_bounds(held)

    facts = {"benchmark": "rootfs", "title": title, **asdict(effort), "file_system": on, "left": left}
    write_json(
        arguments.json, race.groups, TOOLS, **facts, bounds=list(map(asdict, held)), absent=absent, failed=race.failed
    )
    if race.failed:
        sys.exit(1)


if __name__ == "__main__":
    go_alone()
    main()
