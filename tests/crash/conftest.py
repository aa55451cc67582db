from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agents import Agent, Spec
from chance import new_chance
from gallery import Gallery, make_gallery

Count = Callable[..., None]


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Iterator[Count]:
    """Return a function that counts what was done to a store; ``tests/conftest.py`` shows the sums."""
    counter: Counter[str] = Counter()

    def count(what: str, number: int = 1) -> None:
        counter[what] += number

    yield count
    request.node.user_properties.append(("crash", dict(counter)))


@pytest.fixture
def draw() -> random.Random:
    """Return a source of chance."""
    return new_chance()


@pytest.fixture
def new_agent(gallery: Gallery, tmp_path: Path, draw: random.Random) -> Iterator[Callable[[], Agent]]:
    """Return a function that starts an agent on the store; what still lives at the end is killed."""
    saved = gallery.save(tmp_path / "gallery")
    agents: list[Agent] = []

    def start() -> Agent:
        log = tmp_path / f"agent-{len(agents)}"
        seed, dawdles = str(draw.getrandbits(32)), draw.random() < 0.5
        agents.append(Agent(Spec(str(tmp_path / "store"), str(saved), str(log), seed, dawdles=dawdles)))
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.returncode is None:
            agent.kill()
