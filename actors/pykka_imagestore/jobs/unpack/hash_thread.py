"""Does steps that take time, and whose outcome is not needed before the end, such as the hashing of blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Self

_MAX_WAITING = 4  # of 512 KiB at most, so that memory stays bounded


class HashThread:
    """Does steps in their order: in the caller's thread at first, in its own while that is enabled.

    Hashing and compressing, in C, let other threads run. Leaving the ``with`` block settles, or after an error waits
    for the step that is under way. An executor would do, but its imports take a megabyte of each worker.
    """

    def __init__(self) -> None:
        self._is_enabled = False
        self._thread: threading.Thread | None = None
        self._steps: SimpleQueue[tuple[Callable[[bytes], object], bytes] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
        self._waiting = 0
        self._dropped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            if self._thread is not None:
                self._dropped = True
                self._steps.put(None)
                self._thread.join()

    def enable(self, *, is_enabled: bool) -> None:
        """Do the steps that come from now on in the thread, or not."""
        self._is_enabled = is_enabled

    def do(self, step: Callable[[bytes], object], data: bytes) -> None:
        """Do a step, now or soon. Raises what an earlier step raised."""
        if not self._is_enabled:
            self.settle()
            step(data)
            return
        if self._thread is None:
            thread = threading.Thread(target=self._do_steps, name="hash")
            thread.start()
            self._thread = thread
        if self._waiting == _MAX_WAITING:
            self._take_outcome()
        self._steps.put((step, data))
        self._waiting += 1

    def settle(self) -> None:
        """Return when all steps are done. Raises what a step raised."""
        while self._waiting:
            self._take_outcome()

    def _take_outcome(self) -> None:
        error = self._outcomes.get()
        self._waiting -= 1
        if error is not None:
            raise error

    def _do_steps(self) -> None:
        while (task := self._steps.get()) is not None:
            self._outcomes.put(None if self._dropped else _error_of(*task))
            del task  # its bytes, before the wait for the next


def _error_of(step: Callable[[bytes], object], data: bytes) -> BaseException | None:
    try:
        step(data)
    except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is asked for
        return error
    return None
