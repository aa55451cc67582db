"""An asyncio program awaits an actor. Its loop is not blocked, and cancelling a task stops the work behind it."""

import asyncio
import time

from pykka_imagestore.runtime import Actor, WorkerPool, dispatch


class Agent(Actor):
    """Answers at once what it knows, and asks worker processes for the rest."""

    def __init__(self, pool: WorkerPool) -> None:
        super().__init__()
        self._pool = pool
        self._sums: dict[int, int] = {}

    async def sum_up_to(self, number: int) -> int:
        if number not in self._sums:
            self._sums[number] = await self._pool.run(sum, range(number + 1))  # other messages run meanwhile
        return self._sums[number]

    async def nap(self, seconds: float) -> None:
        await self._pool.run(time.sleep, seconds)


class Clock:
    """Counts the iterations of the loop."""

    def __init__(self) -> None:
        self.ticks = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            self.ticks += 1


async def main(pool: WorkerPool) -> None:
    agent, clock = Agent.start(pool), Clock()
    ticking = asyncio.create_task(clock.run())

    numbers = (4_000_000, 10, 8_000_000)
    sums = await asyncio.gather(*(dispatch(agent, Agent.sum_up_to, number) for number in numbers))
    print(f"The sums up to {numbers} are {sums}; meanwhile the loop ran {clock.ticks} times.")

    begin = time.perf_counter()
    await dispatch(agent, Agent.sum_up_to, 8_000_000)
    print(f"Asked again, the agent knew: {(time.perf_counter() - begin) * 1000:.1f} ms.")

    try:
        await asyncio.wait_for(dispatch(agent, Agent.nap, 600), timeout=0.2)
    except TimeoutError:
        print("A nap of ten minutes was cancelled after 0.2 s. That discards its future and kills its worker.")
    ticking.cancel()


with WorkerPool(2) as workers:
    asyncio.run(main(workers))
