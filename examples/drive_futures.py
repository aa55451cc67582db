"""Futures with callbacks, over worker processes: then, recover, collect, select, discard, timeouts."""

import math
import time

from pykka_imagestore.runtime import Future, WorkerPool, await_all, collect, select

TIMEOUT = 60  # for a machine that is very busy


def stop(late: Future[None]) -> Future[str | None]:
    late.discard()
    return late.recover(lambda _: "given up after 0.2 s, and stopped")


with WorkerPool(2) as pool:
    print("then: the next step runs when the value is there, and needs no thread of its own.")
    bits = pool.run(math.factorial, 1000).then(int.bit_length)
    print(f"   1000! has {bits.get(timeout=TIMEOUT)} bits.")

    print("recover: errors of worker processes arrive, and can be replaced.")
    root = pool.run(math.sqrt, -1).recover(lambda failed: f"none ({failed.error()})")
    print(f"   The square root of -1: {root.get(timeout=TIMEOUT)}.")

    print("collect: all values, in the order of the requests.")
    roots = collect(pool.run(math.isqrt, number) for number in (10**20, 10**10, 10**30))
    print(f"   Square roots: {roots.get(timeout=TIMEOUT)}.")

    print("select: the first to be ready wins.")
    hare = pool.run(time.sleep, 0.1).then(lambda _: "the hare")
    tortoise = pool.run(time.sleep, 600).then(lambda _: "the tortoise")
    print(f"   It is {select([tortoise, hare]).get(timeout=TIMEOUT)}.")

    print("discard: a request to stop. The future is discarded when the work has stopped and its process is gone.")
    begin = time.monotonic()
    tortoise.discard()
    await_all([tortoise]).get(timeout=TIMEOUT)
    print(f"   {tortoise!r}, after {time.monotonic() - begin:.2f} s. Both workers are free again.")

    print("after: another result, if the first takes too long.")
    print(f"   A nap of ten minutes: {pool.run(time.sleep, 600).after(0.2, stop).get(timeout=TIMEOUT)}.")

    print("time_limit: the pool itself stops a task that takes too long.")
    nap = pool.run(time.sleep, 600, time_limit=0.2).recover(lambda failed: failed.error())
    print(f"   {nap.get(timeout=TIMEOUT)}.")
