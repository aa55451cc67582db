"""Programs that use a store, and their workers, are killed at random moments."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from agents import Agent
from chance import ROUNDS
from gallery import Gallery
from history import History
from invariants import check_stopped

ENOUGH = 10_000  # calls: no agent lives so long


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
            time.sleep(draw.uniform(0, 0.2))
            count("kills", agent.kill_worker())
        time.sleep(draw.uniform(0, 0.3))
        agent.kill()
        count("kills")
        if draw.random() < 0.5:  # else its workers may be at work yet
            agent.wait_for_workers()

        agent.tell(history)
        try:
            assert history.wrong_reads() == []
            history = History.of(check_stopped(directory, gallery, history))
        except AssertionError as error:
            raise AssertionError(f"round {number}: {error}") from error
