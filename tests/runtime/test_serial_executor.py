from __future__ import annotations

import threading

import pytest

from pykka_imagestore.runtime import PoolClosedError, SerialExecutor, collect


@pytest.fixture
def executor():
    executor = SerialExecutor("test-executor")
    yield executor
    executor.close()


def test_functions_run_in_their_order_in_one_thread_of_that_name(executor):
    ran = []

    threads = collect(
        executor.run(lambda number: ran.append(number) or threading.current_thread(), number) for number in range(50)
    ).get(timeout=10)

    assert ran == list(range(50))
    assert len(set(threads)) == 1
    assert threads[0].name.startswith("test-executor")


def test_error_goes_to_its_caller_and_the_executor_goes_on(executor):
    failing, next_one = executor.run(int, "x"), executor.run(int, "5")

    with pytest.raises(ValueError, match="invalid literal"):
        failing.get(timeout=10)
    assert next_one.get(timeout=10) == 5


def test_discard_of_what_waits_skips_it(executor):
    release, ran = threading.Event(), []
    running, waiting = executor.run(release.wait, 10), executor.run(ran.append, 1)

    waiting.discard()
    release.set()

    assert running.get(timeout=10)
    assert executor.run(ran.append, 2).get(timeout=10) is None
    assert waiting.is_discarded()
    assert ran == [2]


def test_close_runs_what_was_asked_for_and_refuses_what_comes(executor):
    begun, release = threading.Event(), threading.Event()
    running = executor.run(lambda _: (begun.set(), release.wait(10)), None)
    waiting = executor.run(int, "5")
    assert begun.wait(10)
    threading.Timer(0.05, release.set).start()

    executor.close()
    executor.close()

    assert running.is_ready()
    assert waiting.get(timeout=0) == 5
    with pytest.raises(PoolClosedError):
        executor.run(int, "5").get(timeout=10)
    assert not any(thread.name.startswith("test-executor") for thread in threading.enumerate())
