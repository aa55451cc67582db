"""Steps that take time and whose outcome nobody waits for until the end: the hashing of blocks, for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

_MOST_WAITING = 4  # of 512 KiB at most, so that memory stays bounded


class Behind:
    """Does steps in their order: at once, or in a thread while the caller goes on.

    Hashing and compressing, in C, let other threads run. Leaving the ``with`` block settles, or after an error waits
    for the step that is under way.

    Attributes:
        beside: Whether to do what comes from now on in the thread.
    """

    def __init__(self) -> None:
        self.beside = False
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            if self._thread is not None:
                self._thread.shutdown(cancel_futures=True)

    def do(self, step: Callable[[bytes], object], data: bytes) -> None:
        """Do a step, now or soon; raise what an earlier one raised."""
        if not self.beside:
            self.settle()
            step(data)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(step, data))

    def settle(self) -> None:
        """Return when all is done; raise what a step raised."""
        while self._waiting:
            self._waiting.popleft().result()
