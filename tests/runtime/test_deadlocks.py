"""Under stress nobody waits for ever, and nothing is lost: most of these hung within a second or two."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from support import worker_functions as work
from support.processes import TIMEOUT

from pykka_imagestore.runtime import (
    Actor,
    Promise,
    Semaphore,
    SerialExecutor,
    SingleFlight,
    WorkerPool,
    after,
    ready,
    terminate,
)
from pykka_imagestore.runtime.timers import Timers


@contextmanager
def frequent_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def frequent_collections(threshold=5):
    before = gc.get_threshold()
    gc.set_threshold(threshold)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def abandon_later(callback):
    """Make a future that the garbage collector abandons, some time, in whatever thread it runs."""
    promise: Any = Promise()
    promise.future.on_any(lambda _: callback())
    promise.cycle = promise


class Sink(Actor):
    def on_receive(self, message):
        pass


def test_terminate_ends_an_actor_that_is_about_to_take_its_last_message():
    with frequent_switches():
        for _ in range(1000):
            ref = Sink.start()
            for number in range(random.randrange(30)):
                ref.tell(number)

            assert terminate(ref).get(timeout=TIMEOUT) is True


def within(seconds, function):
    """Return once the function has, in a thread of its own; fail if it hangs."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "hangs"


def test_semaphore_that_the_collector_releases_while_it_is_being_acquired():
    semaphore = Semaphore()

    def lock_often():
        for _ in range(10_000):
            semaphore.acquire()
            abandon_later(semaphore.release)

    with frequent_collections():
        within(TIMEOUT, lock_often)
        gc.collect()

    last = semaphore.acquire()
    assert last.is_ready()


def test_timers_that_the_collector_sets_while_others_are_set_all_fire():
    timers, due = Timers(), []

    def set_often():
        for number in range(3000):
            timers.call_later(0.001 * (number % 7), lambda: due.append(1))
            timers.call_later(3600, lambda: None).cancel()
            abandon_later(lambda: timers.call_later(0.001, lambda: due.append(1)))

    with frequent_collections():
        within(TIMEOUT, set_often)
        gc.collect()

    end = time.monotonic() + TIMEOUT
    while len(due) < 6000 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(due) == 6000


def test_serial_executor_that_the_collector_begins_runs_one_function_at_a_time():
    running, most = [0], [0]

    def work(_):
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0)
        running[0] -= 1

    with frequent_collections():
        for _ in range(50):
            executor = SerialExecutor("executor")
            abandon_later(lambda executor=executor: executor.run(work, None))
            runs = [executor.run(work, None) for _ in range(10)]
            for run in runs:
                run.get(timeout=TIMEOUT)
            executor.close()

    assert most == [1]


def test_futures_that_the_collector_completes_while_they_are_observed_tell_everybody():
    told = []

    def observe_often():
        for _ in range(5000):
            promise: Any = Promise()
            future = promise.future
            promise.cycle = promise
            del promise
            future.on_any(told.append).then(str).recover(lambda _: 1).on_any(told.append)

    with frequent_collections():
        within(TIMEOUT, observe_often)
        gc.collect()

    assert len(told) == 10_000


def test_two_tables_of_flights_that_start_each_others_work():
    tables, barrier = [SingleFlight(), SingleFlight()], threading.Barrier(2)

    def join(first, second):
        for _ in range(2000):
            barrier.wait(TIMEOUT)
            first.join("key", lambda: second.join("other", lambda: ready(None)))

    with frequent_switches():
        threads = [threading.Thread(target=join, args=order, daemon=True) for order in (tables, tables[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)

    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_future_that_expires_and_completes_at_the_same_time_has_one_outcome_and_keeps_nothing(seconds):
    for _ in range(200):
        promise = Promise()
        outcome = promise.future.after(seconds, lambda _: "late")
        after(seconds).on_any(partial(lambda promise, _: promise.set("in time"), promise))

        assert outcome.get(timeout=TIMEOUT) in ("late", "in time")
        promise.future.get(timeout=TIMEOUT)
        assert not promise.future._callbacks


def test_timers_that_are_due_while_their_thread_begins_to_wait_for_them_fire():
    stop = threading.Event()

    def switch():
        while not stop.is_set():
            ready(None)

    threads = [threading.Thread(target=switch) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            after(0.00005).get(timeout=TIMEOUT)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_pool_whose_thread_meets_the_collector_before_it_has_begun():
    submitted, known = [], {thread.ident for thread in threading.enumerate()}

    def submit(phase, _):
        if phase == "start" and threading.get_ident() not in known:
            known.add(threading.get_ident())
            submitted.append(pool.run(work.double, 2))

    def begin():
        known.add(threading.get_ident())
        with frequent_collections(threshold=1):
            submitted.append(pool.run(work.double, 1))

    with WorkerPool(1) as pool:
        gc.callbacks.append(submit)
        try:
            within(TIMEOUT, begin)
        finally:
            gc.callbacks.remove(submit)

        assert sorted(future.get(timeout=TIMEOUT) for future in submitted) == [2, 4]
