from __future__ import annotations

import queue
import threading
import time

import pykka
import pytest

from pykka_imagestore.runtime import Actor, Promise, SerialExecutor, after, ready, undiscardable
from pykka_imagestore.runtime.callbacks import serving

DEPTHS = (15, 16, 17, 31, 32, 33, 64)


def at_depth(depth, function):
    """Call ``function`` so deep in callbacks that those of links are deferred."""
    results = []

    def down(left):
        if left:
            ready(None).on_ready(lambda _: down(left - 1))
        else:
            results.append(function())

    down(depth)
    return results[0]


# -- a wait in a callback


@pytest.mark.parametrize("depth", DEPTHS)
def test_get_of_a_link_made_in_a_deep_callback_does_not_wait_for_itself(depth):
    assert at_depth(depth, lambda: ready(1).then(lambda one: one + 1).get(timeout=10)) == 2


def test_gets_nested_in_links_need_no_more_than_the_stack_for_themselves():
    def down(number):
        return ready(number).then(lambda number: down(number - 1) + 1 if number else 0).get(timeout=10)

    assert down(60) == 60


def test_link_anywhere_in_a_chain_may_wait_for_a_link_of_its_own():
    for length in range(80):
        promise: Promise[int] = Promise()
        end = promise.future
        for _ in range(length):
            end = end.then(lambda value: value)
        end = end.then(lambda value: ready(value).then(lambda value: value + 1).get(timeout=10))

        promise.set(1)

        assert end.get(timeout=0) == 2


@pytest.mark.parametrize("depth", DEPTHS)
def test_stop_of_a_dead_actor_returns_in_a_deep_callback(depth):
    ref = Actor.start()
    ref.stop()

    assert at_depth(depth, lambda: ref.stop(timeout=10)) is False


def test_get_in_a_deep_callback_runs_deferred_callbacks_only_until_its_future_is_final():
    calls: list[str] = []

    def wait():
        for name in ("first", "second"):
            undiscardable(ready(name)).then(calls.append)
        awaited = ready("third").then(calls.append)
        ready("fourth").then(calls.append)
        awaited.get(timeout=10)
        return list(calls)

    assert at_depth(16, wait) == ["first", "second", "third"]
    assert calls == ["first", "second", "third", "fourth"]


def test_get_in_a_deep_callback_still_times_out():
    begin = time.monotonic()

    assert at_depth(20, wait_for_nothing) == "timed out"
    assert time.monotonic() - begin >= 0.05


def wait_for_nothing():
    promise: Promise[None] = Promise()
    try:
        return promise.future.get(timeout=0.05)
    except pykka.Timeout:
        return "timed out"


# -- what is promised to be at once


@pytest.mark.parametrize("depth", DEPTHS)
def test_observer_of_a_final_future_runs_before_the_registration_returns_however_deep(depth):
    def observe():
        seen = []
        ready(1).on_ready(seen.append).on_any(lambda _: seen.append(2))
        return seen

    assert at_depth(depth, observe) == [1, 2]


@pytest.mark.parametrize("depth", DEPTHS)
def test_discard_reaches_those_who_listen_before_it_returns_however_deep(depth):
    def discard():
        promise: Promise[int] = Promise()
        promise.future.on_discard(promise.discard)
        promise.future.then(lambda value: value).then(lambda value: value).discard()
        return promise.future.is_discarded()

    assert at_depth(depth, discard)


def test_observers_that_each_register_the_next_do_not_overflow_the_stack():
    left, done = [5000], []

    def step(_):
        left[0] -= 1
        if left[0]:
            ready(None).on_any(step)
        else:
            done.append(True)

    ready(None).on_any(step)

    assert done


# -- threads that serve


class Counter:
    """A thread's work: functions from a queue, one by one."""

    def __init__(self) -> None:
        self.queue = queue.SimpleQueue()

    def pump(self, seconds):
        try:
            function = self.queue.get(timeout=seconds)
        except queue.Empty:
            return
        function()

    def wake(self):
        self.queue.put(lambda: None)


def test_thread_that_serves_goes_on_while_a_callback_in_it_waits():
    worker, told, promises = Counter(), queue.SimpleQueue(), [Promise() for _ in range(3)]
    promises[0].future.on_any(lambda _: told.put(promises[1].future.get(timeout=10)))

    def serve():
        with serving(worker.pump, worker.wake):
            for _ in range(2):
                worker.pump(10)

    thread = threading.Thread(target=serve)
    thread.start()
    worker.queue.put(lambda: promises[0].set(None))  # its callback waits in the serving thread
    worker.queue.put(lambda: promises[1].set("served"))
    assert told.get(timeout=10) == "served"
    worker.queue.put(lambda: None)
    thread.join(10)
    assert not thread.is_alive()


def test_thread_that_serves_is_woken_by_whoever_completes_the_future_and_times_out_by_itself():
    worker, promise = Counter(), Promise()
    pumped = threading.Event()

    def pump(seconds):
        pumped.set()
        worker.pump(seconds)

    def complete():
        pumped.wait(10)
        promise.set("woken")

    threading.Thread(target=complete).start()
    with serving(pump, worker.wake):
        assert promise.future.get() == "woken"
        assert wait_for_nothing() == "timed out"
    assert wait_for_nothing() == "timed out"  # as ever, outside


def test_future_that_times_out_often_keeps_nothing_of_those_who_waited():
    promise: Promise[None] = Promise()

    for _ in range(100):
        with pytest.raises(pykka.Timeout):
            promise.future.get(timeout=0.0001)

    assert len(promise.future._wakers) == 0


def test_callback_in_the_timers_thread_may_wait_for_a_timer():
    assert after(0.01).then(lambda _: after(0.01).then(lambda _: "fired").get(timeout=10)).get(timeout=10) == "fired"


def test_callback_in_a_serial_executors_thread_may_wait_for_the_executor():
    executor, begin = SerialExecutor("executor"), threading.Event()
    first = executor.run(begin.wait, 10)
    end = first.then(lambda _: executor.run(len, "abc").then(lambda length: length + 1).get(timeout=10))

    begin.set()

    assert end.get(timeout=10) == 4
    executor.close()


def test_serial_executor_that_is_closed_while_a_callback_in_it_waits_ends_after_the_callback():
    executor, begin, other = SerialExecutor("executor"), threading.Event(), Promise()
    seen = []
    first = executor.run(begin.wait, 10)
    first.on_any(lambda _: seen.append(other.future.get(timeout=10)))
    last = executor.run(seen.append, "last")
    executor.close(wait=False)
    begin.set()
    last.get(timeout=10)  # served while the callback waits

    other.set("callback")
    executor.close()

    assert seen == ["last", "callback"]


def test_function_that_waits_in_a_serial_executor_is_not_interrupted_by_the_next_one():
    executor, seen, other = SerialExecutor("executor"), [], Promise()

    def wait(_):
        seen.append(other.future.get(timeout=10))

    first, second = executor.run(wait, None), executor.run(seen.append, "second")
    with pytest.raises(pykka.Timeout):
        second.get(timeout=0.05)

    other.set("first")

    first.get(timeout=10)
    second.get(timeout=10)
    assert seen == ["first", "second"]
    executor.close()
