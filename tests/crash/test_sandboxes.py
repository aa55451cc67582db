"""Sandboxes come and go, a hundred at a time, and their agent is killed in the middle: nothing of them is left."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from agents import AgentProcess
from chance import ROUNDS
from gallery import Gallery
from history import History
from invariants import check_stopped, require_whole
from support.processes import TIMEOUT, names, wait_for
from support.rootfs import points_below

from pykka_imagestore import LocalStore, Provisioner
from pykka_imagestore.core.digest import directory_name

pytestmark = [pytest.mark.root, pytest.mark.overlay, pytest.mark.usefixtures("mounts")]

AGENT = Path(__file__).with_name("sandbox_agent.py")
AT_A_TIME = {"overlay": 100, "copy": 5}


@pytest.fixture
def directory(tmp_path: Path, gallery: Gallery) -> Path:
    with LocalStore.start(tmp_path / "store") as store:
        store.put("app:alpha", gallery.archives["alpha"]).get(timeout=TIMEOUT)
    return tmp_path / "store"


class SandboxAgent(AgentProcess):
    """A running ``sandbox_agent.py``."""

    def __init__(self, directory: Path, log: Path, rounds: int, known: list[str], backend: str = "overlay") -> None:
        self._log = log
        super().__init__(AGENT, directory, log, backend, AT_A_TIME[backend], rounds, *known)
        self.wait("ready")

    def there(self) -> list[str]:
        """Return the sandboxes that it was told are there, and did not want to destroy."""
        boxes: dict[str, None] = {}
        for line in self._log.read_text().splitlines() if self._log.exists() else []:
            if line.startswith("+"):
                boxes[line[1:]] = None
            else:
                boxes.pop(line[1:], None)
        return list(boxes)


def require_nothing_left(directory: Path) -> None:
    assert points_below(directory) == []
    assert names(directory / "containers") == []
    with LocalStore.start(directory) as store:
        store.prune().get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)
        assert [names(directory / name) for name in ("gc", "staging", "leases")] == [[], [], []]


@pytest.mark.slow
def test_a_thousand_sandboxes_leave_nothing(directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))

    with LocalStore.start(directory) as store, Provisioner.start(store) as provisioner:
        begun = time.monotonic()
        for number in range(10):
            boxes = [f"box-{number}-{n}" for n in range(AT_A_TIME["overlay"])]
            for coming in [provisioner.provision(box, "app:alpha") for box in boxes]:
                assert coming.get(timeout=TIMEOUT).backend == "overlay"
            assert len(points_below(directory)) == len(boxes)
            for gone in [provisioner.destroy(box) for box in boxes]:
                gone.get(timeout=TIMEOUT)
            assert points_below(directory) == []
        print(f"{1000 / (time.monotonic() - begun):.0f} sandboxes a second")
        provisioner.swept().get(timeout=TIMEOUT)

    require_nothing_left(directory)
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)


@pytest.mark.parametrize("backend", AT_A_TIME)
def test_killed_agents_leave_what_they_were_told_of_and_nothing_else(
    directory: Path, gallery: Gallery, draw: random.Random, tmp_path: Path, count: Callable[..., None], backend: str
) -> None:
    for number in range(ROUNDS):
        agent = SandboxAgent(directory, tmp_path / f"log-{number}", rounds=1000, known=[], backend=backend)
        agent.say("go")
        wait_for(agent.there)
        with LocalStore.start(directory) as store:  # which prunes beside it
            until = time.monotonic() + draw.uniform(0, 0.7)
            while time.monotonic() < until:
                store.prune().get(timeout=TIMEOUT)
        agent.kill()
        agent.wait_for_workers()
        count("kills")

        known = agent.there()
        with LocalStore.start(directory) as store, Provisioner.start(store) as provisioner:
            recovery = provisioner.recover(known).get(timeout=TIMEOUT)
            assert sorted(rootfs.container_id for rootfs in recovery.adopted) == sorted(known)
            assert recovery.lost == ()
            assert len(points_below(directory)) == len(known)
            for rootfs in recovery.adopted:
                assert os.listdir(rootfs.path or "") != []
            for layer in gallery.layers["alpha"]:
                require_whole(directory / "layers" / directory_name(layer), gallery.trees[layer])
            assert sorted(names(directory / "containers")) == sorted(known)
            for gone in [provisioner.destroy(box) for box in known]:
                gone.get(timeout=TIMEOUT)
        require_nothing_left(directory)
    check_stopped(directory, gallery, History.of({"app:alpha": "alpha"}))


def test_a_new_agent_goes_on_where_a_killed_one_was(directory: Path, tmp_path: Path, draw: random.Random) -> None:
    log = tmp_path / "log"
    first = SandboxAgent(directory, log, rounds=1000, known=[])
    first.say("go")
    wait_for(first.there)
    time.sleep(draw.uniform(0, 0.5))
    first.kill()
    first.wait_for_workers()

    second = SandboxAgent(directory, log, rounds=3, known=first.there())
    second.say("go")
    second.wait("done")
    second.end()

    require_nothing_left(directory)
