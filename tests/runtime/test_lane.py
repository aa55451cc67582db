from __future__ import annotations

import threading

import pytest

from pykka_imagestore.runtime import Lane, PoolClosedError, collect


@pytest.fixture
def lane():
    lane = Lane("test-lane")
    yield lane
    lane.close()


def test_functions_run_in_their_order_in_one_thread_of_that_name(lane):
    ran = []

    threads = collect(
        lane.run(lambda number: ran.append(number) or threading.current_thread(), number) for number in range(50)
    ).get(timeout=10)

    assert ran == list(range(50))
    assert len(set(threads)) == 1
    assert threads[0].name.startswith("test-lane")


def test_error_goes_to_its_caller_and_the_lane_goes_on(lane):
    failing, next_one = lane.run(int, "x"), lane.run(int, "5")

    with pytest.raises(ValueError, match="invalid literal"):
        failing.get(timeout=10)
    assert next_one.get(timeout=10) == 5


def test_discard_of_what_waits_skips_it(lane):
    release, ran = threading.Event(), []
    running, waiting = lane.run(release.wait, 10), lane.run(ran.append, 1)

    waiting.discard()
    release.set()

    assert running.get(timeout=10)
    assert lane.run(ran.append, 2).get(timeout=10) is None
    assert waiting.is_discarded()
    assert ran == [2]


def test_close_runs_what_was_asked_for_and_refuses_what_comes(lane):
    begun, release = threading.Event(), threading.Event()
    running = lane.run(lambda _: (begun.set(), release.wait(10)), None)
    waiting = lane.run(int, "5")
    assert begun.wait(10)
    threading.Timer(0.05, release.set).start()

    lane.close()
    lane.close()

    assert running.is_ready()
    assert waiting.get(timeout=0) == 5
    with pytest.raises(PoolClosedError):
        lane.run(int, "5").get(timeout=10)
    assert not any(thread.name.startswith("test-lane") for thread in threading.enumerate())
