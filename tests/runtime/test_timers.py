from __future__ import annotations

import queue
import threading
import time
import weakref
from functools import partial

from pykka_imagestore.runtime import after
from pykka_imagestore.runtime.timers import Timers


def test_calls_are_made_in_the_order_of_their_deadlines_not_before_them():
    timers, calls = Timers(), queue.SimpleQueue()

    due = [
        timers.call_later(seconds, partial(lambda number: calls.put((number, time.monotonic())), number)).deadline
        for number, seconds in enumerate((0.03, 0.01, 0.02))
    ]

    made = [calls.get(timeout=10) for _ in range(3)]
    assert [due[number] for number, _ in made] == sorted(due)
    assert all(when >= due[number] for number, when in made)


def test_one_thread_makes_all_calls_and_starts_with_the_first():
    before = threading.active_count()
    timers, calls = Timers(), queue.SimpleQueue()
    at_first = threading.active_count()

    for _ in range(20):
        timers.call_later(0, lambda: calls.put(threading.current_thread()))

    threads = {calls.get(timeout=10) for _ in range(20)}
    assert at_first == before
    assert len(threads) == 1
    assert threads.pop().daemon


def test_a_cancelled_call_is_not_made_and_lets_go_of_what_it_needs():
    timers, calls, references = Timers(), queue.SimpleQueue(), []

    def cancel():  # in the thread that makes the calls: it makes no other meanwhile
        def never_called():
            calls.put("cancelled")

        references.append(weakref.ref(never_called))
        timer = timers.call_later(0, never_called)
        del never_called
        timer.cancel()
        timers.call_later(0, lambda: calls.put("kept"))

    timers.call_later(0, cancel)

    assert calls.get(timeout=10) == "kept"
    assert references[0]() is None


def test_a_function_that_raises_is_logged_and_the_next_call_is_made(caplog):
    timers, calls = Timers(), queue.SimpleQueue()

    timers.call_later(0, lambda: 1 / 0)
    timers.call_later(0, lambda: calls.put("next"))

    assert calls.get(timeout=10) == "next"
    assert "ZeroDivisionError" in caplog.text


def test_cancelled_calls_far_ahead_do_not_pile_up():
    timers = Timers()

    for _ in range(10_000):
        timers.call_later(3600, lambda: None).cancel()

    assert len(timers._heap) <= 101


def test_a_call_that_is_never_due_does_not_stop_the_others():
    timers, calls = Timers(), queue.SimpleQueue()

    timers.call_later(float("inf"), lambda: None)
    timers.call_later(0.001, lambda: calls.put("due"))

    assert calls.get(timeout=10) == "due"
    assert after(float("inf")).discard()
