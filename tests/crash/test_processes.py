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
from invariants import check_running, check_stopped, opened


def test_processes_that_share_a_store_see_one_truth(
    new_agent: Callable[[], Agent], draw: random.Random, gallery: Gallery, tmp_path: Path, count: Callable[..., None]
) -> None:
    directory, history = tmp_path / "store", History()
    agents = [new_agent() for _ in range(draw.randrange(2, 9))]
    dead: list[Agent] = []
    for agent in agents:
        agent.wait("ready")
    with opened(directory) as store:
        for _ in range(max(4, ROUNDS // 4)):
            for agent in agents:
                agent.go(draw.randrange(3, 12))
            if draw.random() < 0.7:
                time.sleep(draw.uniform(0, 0.1))
                victim = draw.choice(agents)
                if draw.random() < 0.3:
                    count("kills", victim.kill_worker())
                else:
                    victim.kill()
                    count("kills")
                    agents.remove(victim)
                    dead.append(victim)
            for agent in agents:
                agent.wait("done")

            for agent in [*agents, *dead]:
                agent.tell(history)
            assert history.wrong_reads() == []
            history = History.of(check_running(store, directory, gallery, history))
            if dead:
                agents.append(new_agent())
                agents[-1].wait("ready")
            for agent in dead:
                agent.wait_for_workers()
            dead.clear()
        for agent in agents:
            agent.end()
            agent.wait_for_workers()
    check_stopped(directory, gallery, history)
