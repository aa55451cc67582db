"""What a put tells its listeners, and what that costs where an archive has many layers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.progress import Progress
from pykka_imagestore.progress import ProgressFeed
from pykka_imagestore.runtime import SerialExecutor


@pytest.fixture
def executor() -> Iterator[SerialExecutor]:
    executor = SerialExecutor("progress")
    yield executor
    executor.close()


class Slow:
    """A listener that takes its time with what it is told first."""

    def __init__(self) -> None:
        self.told: list[Progress] = []
        self.go_on = threading.Event()

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        assert self.go_on.wait(TIMEOUT)


def layers(count: int) -> dict[DiffID, int]:
    return {DiffID(sha256(b"%d" % number)): 100 for number in range(count)}


def test_listener_that_is_slow_misses_what_came_meanwhile_and_gets_the_latest(executor: SerialExecutor) -> None:
    feed, slow, some = ProgressFeed(executor), Slow(), layers(50)
    feed.listen(slow)

    feed.expect(["a:1"], some)
    for layer in some:
        feed.advance(layer, 50, 1)
        feed.complete(layer, 2)
    slow.go_on.set()
    executor.close()

    assert len(slow.told) == 2
    assert slow.told[-1].names == ("a:1",)
    assert all(layer.done and layer.entries_done == 2 for layer in slow.told[-1].layers)


def test_step_of_a_layer_costs_no_more_the_more_layers_there_are(executor: SerialExecutor) -> None:
    def cost(count: int) -> float:
        feed, slow, some = ProgressFeed(executor), Slow(), layers(count)
        feed.listen(slow)
        begin = time.process_time()
        for layer in some:
            feed.expect([layer], {layer: 100})
            feed.complete(layer, 1)
        seconds = time.process_time() - begin
        slow.go_on.set()
        return seconds

    few = min(cost(2000) for _ in range(3))

    assert cost(16_000) < 32 * few  # 8 times as much; it was 64 times
