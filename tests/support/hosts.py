"""What a task is offered that a test runs in its own thread, with ``run_hosted``."""

from __future__ import annotations

from collections.abc import Callable


class Host:
    """Passes reports on, and discards the task once it has looked so often whether it should stop."""

    def __init__(
        self, on_report: Callable[[object], object] = lambda _: None, *, looks_before_discard: int | None = None
    ) -> None:
        self._on_report = on_report
        self._looks_left = looks_before_discard

    def report(self, message: object) -> None:
        self._on_report(message)

    def is_discarded(self) -> bool:
        if self._looks_left:
            self._looks_left -= 1
            return False
        return self._looks_left is not None

    def receive(self, timeout: float | None) -> object:
        raise TimeoutError(timeout)
