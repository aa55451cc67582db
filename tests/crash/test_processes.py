"""Several processes share a store, and some are killed: what each saw, and what is there, is what a model allows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from agents import Agent
from chance import ROUNDS
from gallery import Gallery
from history import History
from invariants import check_running, check_stopped
from support.stores import opened


def kill_some(agents: list[Agent], draw: random.Random, count: Callable[..., None]) -> list[Agent]:
    """Kill one of the agents, or a worker of it, or nobody; return who is dead."""
    if draw.random() < 0.3:
        return []
    time.sleep(draw.uniform(0, 0.1))
    victim = draw.choice(agents)
    if draw.random() < 0.3:
        count("kills", victim.kill_worker())
        return []
    victim.kill()
    count("kills")
    return [victim]


def test_processes_that_share_a_store_see_one_truth(
    new_agent: Callable[[], Agent], draw: random.Random, gallery: Gallery, tmp_path: Path, count: Callable[..., None]
) -> None:
    directory, history = tmp_path / "store", History()
    agents = [new_agent() for _ in range(draw.randrange(2, 9))]
    with opened(directory) as store:
        for agent in agents:
            agent.wait("ready")
        for _ in range(max(2, ROUNDS // 4)):
            for agent in agents:
                agent.go(draw.randrange(3, 12))
            dead = kill_some(agents, draw, count)
            agents = [agent for agent in agents if agent not in dead]
            for agent in agents:
                agent.wait("done")

            for agent in (*agents, *dead):
                agent.tell(history)
            assert history.wrong_reads() == []
            history = History.of(check_running(store, directory, gallery, history))
            for agent in dead:
                agent.wait_for_workers()
                agents.append(new_agent())
                agents[-1].wait("ready")
    for agent in agents:
        agent.end()
        agent.wait_for_workers()
    check_stopped(directory, gallery, history)
