from __future__ import annotations

from collections.abc import Iterator

import pytest

from pykka_imagestore.runtime import WorkerPool


@pytest.fixture(scope="session")
def pool() -> Iterator[WorkerPool]:
    """Two workers, for all tests that leave them in order."""
    with WorkerPool(2, name="test-worker") as pool:
        yield pool
