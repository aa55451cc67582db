"""Programs that use a store, and their workers, are killed at random moments."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agents import Agent, Spec
from gallery import Gallery
from history import History
from invariants import check_stopped

ROUNDS = int(os.environ.get("IMAGESTORE_CRASH_ROUNDS", "25"))
ENOUGH = 10_000  # calls: no agent lives so long


@pytest.fixture
def draw() -> random.Random:
    """Return a source of chance whose seed a failure prints."""
    seed = int(os.environ.get("IMAGESTORE_CRASH_SEED", random.randrange(1 << 32)))
    print(f"IMAGESTORE_CRASH_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def new_agent(gallery: Gallery, tmp_path: Path, draw: random.Random) -> Iterator[Callable[[], Agent]]:
    """Return a function that starts an agent on the store; what still lives at the end is killed."""
    saved, agents = gallery.save(tmp_path / "gallery"), []

    def start() -> Agent:
        log = tmp_path / f"agent-{len(agents)}"
        spec = Spec(str(tmp_path / "store"), str(saved), str(log), str(draw.getrandbits(32)))
        agents.append(Agent(spec))
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.returncode is None:
            agent.kill()


def test_killed_programs_and_workers_leave_a_whole_store(
    new_agent: Callable[[], Agent], draw: random.Random, gallery: Gallery, tmp_path: Path, count: Callable[..., None]
) -> None:
    history, directory = History(), tmp_path / "store"
    following = new_agent()
    for number in range(ROUNDS):
        agent, following = following, new_agent()  # which gets ready meanwhile
        agent.wait("ready")
        agent.go(ENOUGH)
        if draw.random() < 0.3:
            time.sleep(draw.uniform(0.2, 0.5))
            count("kills", agent.kill_worker())
        time.sleep(draw.uniform(0, 0.5))
        agent.kill()
        count("kills")
        if draw.random() < 0.5:  # else its workers may be at work yet
            agent.wait_for_workers()

        agent.tell(history)
        try:
            history = History.of(check_stopped(directory, gallery, history))
        except AssertionError as error:
            raise AssertionError(f"round {number}: {error}") from error
