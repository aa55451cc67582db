"""What measures containers behind the work of a store that may end at any time."""

from __future__ import annotations

import math
import threading

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.container_meter import ContainerMeter
from pykka_imagestore.runtime import Actor, SerialExecutor, WorkerPool, dispatch


class Sizes:
    """Finds nothing to measure, and takes its time where nobody waits for it."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def find_unmeasured(self, max_age: float) -> tuple[()]:
        if max_age != math.inf:
            self.begun.set()
            assert self.goes_on.wait(TIMEOUT)
        return ()


class Measuring(Actor):
    def __init__(self, sizes: Sizes, pool: WorkerPool, executor: SerialExecutor) -> None:
        super().__init__()
        self._meter = ContainerMeter(self, sizes, pool, executor)  # type: ignore[arg-type]

    async def refresh(self) -> None:
        await self._meter.refresh()


def test_a_store_that_ends_while_it_measures_complains_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sizes, executor = Sizes(), SerialExecutor("measures")
    with WorkerPool(1, threads=True) as pool:
        actor = Measuring.start(sizes, pool, executor)
        dispatch(actor, Measuring.refresh).get(timeout=TIMEOUT)
        assert sizes.begun.wait(TIMEOUT)

        actor.stop(timeout=TIMEOUT)
        sizes.goes_on.set()
        executor.close()

    assert caplog.messages == []
