from __future__ import annotations

import queue
import threading
from functools import partial

import pytest
from support import seams

from pykka_imagestore.runtime import SerialExecutor, WorkerPool
from pykka_imagestore.runtime.thread_pool import ThreadPool


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(seams.THREAD_IDLE_SECONDS, 0.001)


def names():
    return [thread.name for thread in threading.enumerate()]


def test_one_thread_calls_functions_in_their_order():
    called = queue.SimpleQueue()
    one = ThreadPool(1, "pool-of-one")

    for number in range(100):
        one.call(partial(lambda number: called.put((number, threading.get_ident())), number))

    seen = [called.get(timeout=60) for _ in range(100)]
    assert [number for number, _ in seen] == list(range(100))
    assert len({thread for _, thread in seen}) == 1


def test_as_many_threads_as_there_are_calls_and_no_more_than_were_asked_for():
    together, go_on = threading.Barrier(3), threading.Event()
    two = ThreadPool(2, "pool-of-two")

    for _ in range(4):
        two.call(lambda: (together.wait(60), go_on.wait(60)))

    together.wait(60)
    assert names().count("pool-of-two") == 2
    go_on.set()
    together.wait(60)


def test_a_function_that_fails_is_logged_and_the_next_is_called_all_the_same(caplog):
    called = queue.SimpleQueue()

    def fail():
        raise KeyboardInterrupt

    one = ThreadPool(1, "pool-that-fails")
    one.call(fail)
    one.call(lambda: called.put("next"))

    assert called.get(timeout=60) == "next"
    assert "KeyboardInterrupt" in caplog.text


@pytest.mark.parametrize(
    "make", [lambda: SerialExecutor("starved"), lambda: WorkerPool(1, threads=True)], ids=["one", "pool"]
)
def test_a_call_for_which_no_thread_could_be_started_fails_and_is_not_made_later(make, monkeypatch):
    called, starved = [], make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        refused = starved.run(called.append, "refused")

    assert "can't start new thread" in str(refused.error())
    starved.run(called.append, "next").get(timeout=60)
    assert called == ["next"]
    starved.close()


def refuse(_):
    msg = "can't start new thread"
    raise RuntimeError(msg)


@pytest.mark.usefixtures("_impatient")
def test_a_thread_ends_when_idle_and_no_call_is_lost_however_close():
    called = queue.SimpleQueue()
    one = ThreadPool(1, "threads-that-come-and-go")

    for number in range(500):
        for each in range(1 + number % 3):
            one.call(partial(called.put, each))
        for _ in range(1 + number % 3):
            called.get(timeout=60)
        if number % 5 == 0:
            threading.Event().wait(0.001)

    while "threads-that-come-and-go" in names():
        threading.Event().wait(0.001)
