from __future__ import annotations

import queue
import threading
import time
from typing import Any

import pytest
from support import worker_functions as work
from support.processes import TIMEOUT

from pykka_imagestore.runtime import (
    Future,
    Messages,
    PoolClosedError,
    WorkerPool,
    WorkerTimeoutError,
    collect,
    raise_if_discarded,
    receive,
    report,
)


@pytest.fixture
def threads():
    with WorkerPool(2, threads=True, name="test-threads") as pool:
        yield pool


def events():
    return threading.Event(), threading.Event()


def test_threads_run_the_tasks(threads):
    assert threads.run(lambda number: 2 * number, 21).get(timeout=TIMEOUT) == 42  # nothing is pickled
    with pytest.raises(LookupError, match="not here"):
        threads.run(work.fail_with, LookupError("not here")).get(timeout=TIMEOUT)


def test_tasks_run_side_by_side_in_so_many_threads_and_no_more(threads):
    together = threading.Barrier(2)

    names = collect(
        threads.run(lambda _: (together.wait(TIMEOUT), threading.current_thread())[1], None) for _ in range(2)
    ).get(timeout=TIMEOUT)

    assert len(set(names)) == 2
    assert {thread.name for thread in names} == {"test-threads"}


def test_an_idle_task_runs_when_no_other_waits():
    with WorkerPool(1, threads=True) as pool:
        ran, go_on = [], threading.Event()
        first = pool.run(lambda _: go_on.wait(TIMEOUT), None)
        idle, second = pool.run(ran.append, "idle", idle=True), pool.run(ran.append, "second")
        go_on.set()
        gathered: list[Future[Any]] = [first, idle, second]
        collect(gathered).get(timeout=TIMEOUT)

    assert ran == ["second", "idle"]


def test_discard_of_a_running_task_is_answered_when_the_task_has_stopped(threads):
    begun, stopped = events()
    task = threads.run(work.work_until_discarded, (begun, stopped))
    assert begun.wait(TIMEOUT)

    task.discard()

    assert task.recover(lambda future: future.is_discarded()).get(timeout=TIMEOUT)
    assert stopped.is_set()


def test_discard_of_a_task_that_does_not_look_leaves_its_result(threads):
    begun, go_on = events()
    task = threads.run(work.set_and_wait, (begun, go_on))
    assert begun.wait(TIMEOUT)

    task.discard()
    assert task.is_pending()
    go_on.set()

    assert task.get(timeout=TIMEOUT) == "done"


def test_discard_of_a_waiting_task_is_answered_at_once():
    with WorkerPool(1, threads=True) as pool:
        begun, go_on = events()
        running = pool.run(work.set_and_wait, (begun, go_on))
        waiting = pool.run(work.double, 1)

        waiting.discard()

        assert waiting.is_discarded()
        go_on.set()
        assert running.get(timeout=TIMEOUT) == "done"


def test_a_task_past_its_time_limit_is_asked_to_stop(threads):
    task = threads.run(work.work_until_discarded, events(), time_limit=0.01)

    with pytest.raises(WorkerTimeoutError, match=r"past its time limit of 0.01 s"):
        task.get(timeout=TIMEOUT)


def test_reports_arrive_in_order_and_a_slow_listener_holds_up_nobody(threads):
    reports, go_on = queue.SimpleQueue(), threading.Event()

    def tell_much(_):
        for number in range(5000):
            report(number)
        return "done"

    task = threads.run(tell_much, None, on_report=lambda number: (go_on.wait(TIMEOUT), reports.put(number)))

    assert task.get(timeout=TIMEOUT) == "done"
    go_on.set()
    assert [reports.get(timeout=TIMEOUT) for _ in range(100)] == list(range(100))


def test_messages_reach_a_task(threads):
    messages = Messages()
    messages.send("early")
    begun = threading.Event()

    def receive_two(_):
        first = receive(timeout=TIMEOUT)
        begun.set()
        return first, receive(timeout=TIMEOUT)

    task = threads.run(receive_two, None, messages=messages)
    assert begun.wait(TIMEOUT)
    messages.send("late")

    assert task.get(timeout=TIMEOUT) == ("early", "late")
    with pytest.raises(TimeoutError):
        threads.run(lambda _: receive(timeout=0.001), None, messages=Messages()).get(timeout=TIMEOUT)


def test_close_stops_what_runs_and_refuses_what_waits_and_what_comes():
    pool = WorkerPool(1, threads=True)
    begun, stopped = events()
    running, waiting = pool.run(work.work_until_discarded, (begun, stopped)), pool.run(work.double, 1)
    assert begun.wait(TIMEOUT)

    pool.close()

    late = pool.run(work.double, 1)
    assert [type(future.error()) for future in (running, waiting, late)] == [PoolClosedError] * 3
    assert stopped.is_set()


def test_close_may_be_called_in_a_callback_and_in_a_task():
    pool = WorkerPool(2, threads=True)
    closed = queue.SimpleQueue()
    pool.run(work.double, 1).on_any(lambda _: closed.put(pool.close()))
    assert closed.get(timeout=TIMEOUT) is None

    pool = WorkerPool(2, threads=True)

    assert pool.run(lambda _: pool.close(), None).get(timeout=TIMEOUT) is None


def test_a_callback_may_wait_for_another_task_of_the_pool():
    with WorkerPool(1, threads=True) as pool:
        answers = queue.SimpleQueue()
        pool.run(work.double, 1).on_ready(lambda number: answers.put(pool.run(work.double, number).get(timeout=60)))

        assert answers.get(timeout=TIMEOUT) == 4


def test_an_interrupt_in_a_task_is_its_outcome_and_the_thread_goes_on(threads):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threads.run(interrupt, None).get(timeout=TIMEOUT)

    assert threads.run(time.sleep, 0).get(timeout=TIMEOUT) is None
    assert raise_if_discarded() is None
