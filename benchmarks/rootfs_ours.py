"""Our contestants: root file systems through the API, in this process, and by the command."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from ours import TIMEOUT
from processes import tree
from rootfs_bounds import API, API_NOT_DURABLE, COMMAND, COPY
from rootfs_peers import IMAGE, Contestant, Image, Program, said

from pykka_imagestore import LocalStore
from pykka_imagestore.provisioner import GATHER_SECONDS, Provisioner
from pykka_imagestore.runtime import Future

PARTS = ("containers", "gc", "leases", "staging")


class Ours(Contestant):
    """An agent with a store and a provisioner of its own, in this process."""

    place, at_rest = "ours", 50
    durable: ClassVar[bool] = True
    backend: ClassVar[str] = "overlay"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._stack = ExitStack()
        self._store = self._stack.enter_context(LocalStore.start(directory / "store", durable=self.durable))
        self._provisioner = self._stack.enter_context(Provisioner.start(self._store, durable=self.durable))
        self._trees: dict[str, Path] = {}

    def load(self, image: Image) -> None:
        self._store.put(IMAGE, image.archive).get(timeout=TIMEOUT)

    def make(self, containers: Sequence[str]) -> list[float]:
        def provision(container: str) -> Future:
            return self._provisioner.provision(container, IMAGE, backend=self.backend)

        seconds, made = all_at_once(provision, containers)
        self._trees |= {rootfs.container_id: Path(rootfs.path) for rootfs in made}
        return seconds

    def remove(self, containers: Sequence[str]) -> list[float]:
        return all_at_once(self._provisioner.destroy, containers)[0]

    def tree(self, container: str) -> Path:
        return self._trees[container]

    def settle(self) -> None:
        time.sleep(2 * GATHER_SECONDS)  # then what was removed is being deleted
        self._store.swept().get(timeout=TIMEOUT)

    def close(self) -> None:
        self._stack.close()


class OursDurable(Ours):
    name = API


class OursNotDurable(Ours):
    name, durable = API_NOT_DURABLE, False


class OursCopy(Ours):
    name, backend, copies = COPY, "copy", True


class OurCommand(Program):
    """A process for each step, with the start and the end of Python."""

    name, place = COMMAND, "ours"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        # As where it is installed: what is imported was compiled before, whatever this program's own environment says.
        self._environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory.parent / "bytecode")}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def load(self, image: Image) -> None:
        self._command("put", "--name", IMAGE, image.archive)

    def make_one(self, container: str) -> None:
        self._command("provision", container, IMAGE)

    def remove_one(self, container: str) -> None:
        self._command("destroy", container)

    def tree(self, container: str) -> Path:
        return self.directory / "store" / "containers" / container / "rootfs"

    def _command(self, *arguments: object) -> str:
        verb, *others = arguments
        return said(
            *_imagestore(), verb, "--quiet", "--store", self.directory / "store", *others, env=self._environment
        )


def _imagestore() -> tuple[object, ...]:
    installed = Path(sys.executable).with_name("imagestore")
    return (installed,) if installed.exists() else (sys.executable, "-m", "pykka_imagestore")


OURS: tuple[type[Contestant], ...] = (OursDurable, OursNotDurable, OurCommand, OursCopy)


def all_at_once(act: Callable[[str], Future], containers: Sequence[str]) -> tuple[list[float], list]:
    """Ask for all at once; return how long after that each was there, in seconds, and what it is."""
    if len(containers) == 1:
        begin = time.perf_counter()
        made = act(containers[0]).get(timeout=TIMEOUT)
        return [time.perf_counter() - begin], [made]
    ended: list[float] = []
    begin = time.perf_counter()
    futures = [act(container).on_any(lambda _: ended.append(time.perf_counter() - begin)) for container in containers]
    made = [future.get(timeout=TIMEOUT) for future in futures]
    return ended, made


def measure_sandboxes(
    image: Image, directory: Path, number: int, at_once: int
) -> tuple[dict[str, float], dict[str, int]]:
    """Make and remove a number of containers, some at once; return what that took, and what is left of them.

    What is left is counted while the agent lives, against what it had after a first few, and when it has closed its
    store, against what there was before.
    """
    before = what_there_is(directory / "store")
    contestant = OursDurable(directory)
    contestant.load(image)
    os.sync()
    make_and_remove(contestant, "first", at_once, at_once)
    idle = what_there_is(directory / "store")
    seconds, settled = make_and_remove(contestant, "sandbox", number, at_once)
    left = more_than(idle, what_there_is(directory / "store"), "of the agent")
    contestant.close()
    left |= more_than(before, what_there_is(directory / "store"), "in the end")
    return {"seconds": seconds, "a_second": number / seconds, "settled_a_second": number / settled}, left


def make_and_remove(contestant: Ours, name: str, number: int, at_once: int) -> tuple[float, float]:
    """Return the seconds until all callers could go on, and until all files were deleted."""
    begin = time.perf_counter()
    for first in range(0, number, at_once):
        containers = [f"{name}{each}" for each in range(first, min(first + at_once, number))]
        contestant.make(containers)
        contestant.remove(containers)
    seconds = time.perf_counter() - begin
    contestant.settle()
    return seconds, time.perf_counter() - begin


def what_there_is(store: Path) -> dict[str, int]:
    """Count all that a container is made of."""
    found = {part: len(list((store / part).iterdir())) if (store / part).exists() else 0 for part in PARTS}
    found["mounts"] = len(Path("/proc/self/mountinfo").read_text().splitlines())
    found["descriptors"] = len(list(Path("/proc/self/fd").iterdir()))
    found["processes"] = len(list(tree(os.getpid())))
    return found


def more_than(before: dict[str, int], now: dict[str, int], when: str) -> dict[str, int]:
    return {f"{what}, {when}": now[what] - before[what] for what in now}
