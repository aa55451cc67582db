"""One thread that runs short functions in their order, for an actor that must not block."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pykka_imagestore.runtime.pool import WorkerPool


class Lane(WorkerPool):
    """A pool of one thread. What runs cannot be stopped, so it should be short.

    Args:
        name: What the thread is called.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        super().__init__(1, executor=self._thread)

    def close(self) -> None:
        """Refuse what waits, and wait for what runs. Idempotent."""
        super().close()
        self._thread.shutdown()
