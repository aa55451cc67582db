"""Stores whose work is done by threads: those start at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pykka_imagestore import LocalStore
from pykka_imagestore.runtime import WorkerPool


@contextmanager
def opened(directory: Path, *, durable: bool = True, budget_bytes: int | None = None) -> Iterator[LocalStore]:
    """Lend a store; it is closed at the end of the ``with`` block."""
    with (
        ThreadPoolExecutor(2) as threads,
        LocalStore.start(
            directory, durable=durable, budget_bytes=budget_bytes, pool=WorkerPool(executor=threads)
        ) as store,
    ):
        yield store
