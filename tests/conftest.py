from __future__ import annotations

from collections.abc import Iterator

import pykka
import pytest
from hypothesis import settings

# A time limit on each example would fail a sound test on a busy machine.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _stop_all_actors() -> Iterator[None]:
    yield
    pykka.ActorRegistry.stop_all(timeout=5)
