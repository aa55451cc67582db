from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
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
