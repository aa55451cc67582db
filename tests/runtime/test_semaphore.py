from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pykka_imagestore.runtime import Actor, DiscardedError, Promise, Semaphore, collect, dispatch


class Worker(Actor):
    """Enters a semaphore with an async method."""

    def __init__(self, semaphore: Semaphore) -> None:
        super().__init__()
        self._semaphore = semaphore
        self.inside = 0
        self.entered: list[int] = []

    async def work(self, number, until):
        async with self._semaphore.held():
            self.inside += 1
            assert self.inside == 1
            self.entered.append(number)
            try:
                await until
            finally:
                self.inside -= 1
        return number

    def so_far(self):
        return list(self.entered)


def test_one_enters_at_a_time_in_the_order_in_which_they_came():
    ref, promises = Worker.start(Semaphore()), [Promise() for _ in range(3)]
    work = [dispatch(ref, Worker.work, number, promise.future) for number, promise in enumerate(promises)]

    for number in (2, 1, 0):  # whatever they wait for inside
        assert dispatch(ref, Worker.so_far).get(timeout=10) == [0]
        promises[number].set(None)

    assert collect(work).get(timeout=10) == [0, 1, 2]
    assert dispatch(ref, Worker.so_far).get(timeout=10) == [0, 1, 2]


def test_block_that_fails_lets_the_next_one_through():
    ref, promise = Worker.start(Semaphore()), Promise()
    failing = dispatch(ref, Worker.work, 0, promise.future)
    next_one = dispatch(ref, Worker.work, 1, nothing())

    promise.fail(LookupError())

    with pytest.raises(LookupError):
        failing.get(timeout=10)
    assert next_one.get(timeout=10) == 1


def nothing():
    promise = Promise()
    promise.set(None)
    return promise.future


def test_acquire_is_ready_at_once_when_there_is_a_place():
    semaphore = Semaphore()

    assert semaphore.acquire().is_ready()
    semaphore.release()
    assert semaphore.acquire().is_ready()


def test_discard_of_a_waiting_acquire_gives_its_place_back():
    semaphore = Semaphore()
    semaphore.acquire()
    second, third, fourth = semaphore.acquire(), semaphore.acquire(), semaphore.acquire()

    for gone in (second, third):
        gone.discard()
        assert gone.is_discarded()
    semaphore.release()

    assert fourth.is_ready()
    semaphore.release()
    assert semaphore.acquire().is_ready()


def test_discard_of_a_holder_changes_nothing():
    semaphore = Semaphore()
    first, second = semaphore.acquire(), semaphore.acquire()

    first.discard()

    assert second.is_pending()
    semaphore.release()
    assert second.is_ready()


def test_discarded_work_that_waits_never_enters():
    ref, promise = Worker.start(Semaphore()), Promise()
    first = dispatch(ref, Worker.work, 0, promise.future)
    waiting, last = (dispatch(ref, Worker.work, number, nothing()) for number in (1, 2))
    assert dispatch(ref, Worker.so_far).get(timeout=10) == [0]

    waiting.discard()

    with pytest.raises(DiscardedError):
        waiting.get(timeout=10)
    promise.set(None)
    assert collect([first, last]).get(timeout=10) == [0, 2]
    assert dispatch(ref, Worker.so_far).get(timeout=10) == [0, 2]


def test_threads_exclude_each_other():
    semaphore, counts, barrier = Semaphore(), [0], threading.Barrier(8)

    def count():
        barrier.wait(10)
        for _ in range(200):
            semaphore.acquire().get(timeout=10)
            before = counts[0]
            counts[0] = before + 1
            semaphore.release()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(count) for _ in range(8)]:
            done.result(20)

    assert counts == [1600]
