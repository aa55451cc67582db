"""The worker processes that a store starts for itself: how many, and what they may answer."""

from __future__ import annotations

from pykka_imagestore.core.parameters import require_count
from pykka_imagestore.runtime import WorkerPool, usable_cpus, usable_memory

MAX_WORKER_BYTES = 208 << 20  # no layer makes a worker take more


def default_workers() -> int:
    """Return one for each CPU that this process may use, fewer where its memory would not last."""
    return max(1, min(usable_cpus(), usable_memory() // MAX_WORKER_BYTES))


def start_workers(workers: int | None, memory_limit_bytes: int | None) -> WorkerPool:
    """Start a store's own pool; by default of ``default_workers()``.

    Raises:
        InvalidInputError: A number is none, or too small. Nothing was started.
    """
    require_count("workers", workers, 1, "processes")
    require_count("worker_memory_bytes", memory_limit_bytes, 1, "bytes")
    # It takes json: only a store that is started needs that.
    from pykka_imagestore.jobs.answers.allowlist import ANSWERS  # noqa: PLC0415

    return WorkerPool(
        workers or default_workers(), name="imagestore", memory_limit_bytes=memory_limit_bytes, answers=ANSWERS
    )
