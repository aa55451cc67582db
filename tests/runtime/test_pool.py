from __future__ import annotations

import contextlib
import gc
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import weakref
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pykka
import pytest
from support import seams
from support import worker_functions as work
from support.processes import TIMEOUT
from support.worker_functions import Rendezvous

from pykka_imagestore.runtime import (
    DiscardedError,
    Future,
    Messages,
    PoolClosedError,
    Promise,
    RuntimeFailure,
    WorkerDiedError,
    WorkerPool,
    WorkerStartError,
    WorkerTimeoutError,
    after,
    collect,
    select,
)
from pykka_imagestore.runtime.cpus import usable_cpus
from pykka_imagestore.runtime.processes import ProcessEngine
from pykka_imagestore.runtime.wire import REPORT, message
from pykka_imagestore.runtime.worker import PickledAnswers


@pytest.fixture
def rendezvous():
    with Rendezvous() as rendezvous:
        yield rendezvous


def test_run_gives_what_the_function_returns(pool):
    assert pool.run(work.double, 21).get(timeout=TIMEOUT) == 42


def test_run_raises_what_the_function_raises_with_a_note_of_where(pool):
    with pytest.raises(LookupError, match="not here") as caught:
        pool.run(work.fail_with, LookupError("not here")).get(timeout=TIMEOUT)

    assert "worker_functions.py" in caught.value.__notes__[0]
    assert "in fail_with" in caught.value.__notes__[0]


def test_tasks_run_side_by_side_in_as_many_processes_as_there_are_workers(pool, rendezvous):
    both = collect(pool.run(work.wait_for, rendezvous.address) for _ in range(2))

    with rendezvous.next() as first, rendezvous.next() as second:
        assert first.pid != second.pid
        first.answer("one")
        second.answer("two")
        assert sorted(both.get(timeout=TIMEOUT)) == ["one", "two"]


def test_more_tasks_than_workers_wait_and_processes_are_used_again(pool):
    pids = collect(pool.run(work.pid_of, None) for _ in range(50)).get(timeout=TIMEOUT)

    assert len(set(pids)) <= 2
    assert os.getpid() not in pids


def test_workers_are_named_in_ps(pool):
    assert pool.run(work.name_of, None).get(timeout=TIMEOUT) == "test-worker"


def test_a_pool_has_as_many_workers_as_cpus_may_be_used_and_at_least_one():
    with WorkerPool() as pool:
        assert pool.workers == usable_cpus()
    with pytest.raises(ValueError, match="at least one worker, not 0"):
        WorkerPool(0)


def test_an_idle_task_runs_when_no_other_waits(rendezvous):
    with WorkerPool(1) as pool:
        first, idle, second = (pool.run(work.wait_for, rendezvous.address, idle=idle) for idle in (False, True, False))
        with rendezvous.next() as worker:
            worker.answer("first")
        with rendezvous.next() as worker:
            worker.answer("second")
        assert (first.get(timeout=TIMEOUT), second.get(timeout=TIMEOUT), idle.is_pending()) == ("first", "second", True)

        with rendezvous.next() as worker:
            worker.answer("idle")

        assert idle.get(timeout=TIMEOUT) == "idle"


# -- workers that die


def test_a_worker_killed_in_mid_task_fails_that_task_alone(pool, rendezvous):
    errors = queue.SimpleQueue()
    tasks = [pool.run(work.wait_for, rendezvous.address).on_failed(errors.put) for _ in range(2)]
    with rendezvous.next() as victim, rendezvous.next() as other:
        victim.kill()
        error = errors.get(timeout=TIMEOUT)

        other.answer("unharmed")
        assert select(tasks).get(timeout=TIMEOUT) == "unharmed"

    assert isinstance(error, WorkerDiedError)
    assert error.exit_code == -9
    assert "wait_for ended with signal 9" in str(error)


@pytest.mark.parametrize("code", [0, 1, 77])
def test_a_worker_that_exits_in_mid_task_fails_it_whatever_the_exit_code(pool, code):
    error = pool.run(work.exit_with, code).recover(lambda future: future.error()).get(timeout=TIMEOUT)

    assert isinstance(error, WorkerDiedError)
    assert error.exit_code == code


def test_a_task_whose_worker_dies_is_run_once_more_if_asked(pool, tmp_path):
    retried = pool.run(work.die_the_first_time, str(tmp_path / "tried"), retry=True)
    hopeless = pool.run(work.kill_self, None, retry=True)

    assert retried.get(timeout=TIMEOUT) == "second time"
    with pytest.raises(WorkerDiedError):
        hopeless.get(timeout=TIMEOUT)


def test_a_task_that_raises_is_not_run_again(pool, tmp_path):
    with pytest.raises(LookupError, match="the first time"):
        pool.run(work.fail_the_first_time, str(tmp_path / "tried"), retry=True).get(timeout=TIMEOUT)


@pytest.mark.parametrize("wait_for_its_end", [False, True])
def test_a_worker_killed_while_idle_is_replaced_and_costs_no_task(rendezvous, wait_for_its_end):
    with WorkerPool(1) as pool:
        for _ in range(3):
            task = pool.run(work.wait_for, rendezvous.address)
            with rendezvous.next() as worker:
                worker.answer("now idle")
                task.get(timeout=TIMEOUT)
                worker.kill()
                if wait_for_its_end:
                    assert worker.is_gone(TIMEOUT)

                assert pool.run(work.double, 2).get(timeout=TIMEOUT) == 4


def test_sys_exit_in_a_task_fails_the_task_and_ends_neither_program(pool):
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        pool.run(work.raise_system_exit, 3).get(timeout=TIMEOUT)


def test_a_process_that_cannot_start_fails_the_task_with_a_sentence():
    with (
        WorkerPool(1, memory_limit_bytes=1) as pool,
        pytest.raises(WorkerStartError, match="no worker process could be started for double"),
    ):
        pool.run(work.double, 1).get(timeout=TIMEOUT)


def open_and_started():
    """Return this process's descriptors and children."""
    return {*os.listdir("/proc/self/fd"), *(f"child {pid}" for pid in children())}


def children():
    """Return the PIDs of this process's children."""
    paths = Path("/proc/self/task").glob("*/children")
    return set(map(int, chain.from_iterable(path.read_text().split() for path in paths)))


def new_children(earlier, count):
    """Return this process's children but for the earlier ones, once there are so many."""
    deadline = time.monotonic() + TIMEOUT
    while len(new := children() - earlier) != count:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return new


def test_answers_that_cannot_be_sent_to_a_worker_are_refused_before_any_process_starts():
    class HoldsALock(PickledAnswers):
        def __init__(self):
            self.lock = threading.Lock()

    before = open_and_started()
    with (
        pytest.raises(pickle.PicklingError, match="answers, HoldsALock, cannot be sent to a worker process"),
        WorkerPool(1, answers=HoldsALock()) as pool,
    ):
        pool.run(work.double, 1).get(timeout=TIMEOUT)

    assert open_and_started() <= before


@pytest.mark.parametrize("odd", [7, b"/bytes", "/surro\ud800gate", "/with\0nothing"])
def test_what_is_no_directory_in_the_search_path_is_passed_over_as_python_does(monkeypatch, odd):
    monkeypatch.setattr(sys, "path", [odd, *sys.path])

    with WorkerPool(1) as pool:
        assert pool.run(work.double, 21).get(timeout=TIMEOUT) == 42


def test_a_search_path_larger_than_a_socket_holds_travels(monkeypatch):
    directories = [f"/{number}/{'x' * 100}" for number in range(5000)]
    monkeypatch.setattr(sys, "path", [*sys.path, *directories])

    with WorkerPool(1) as pool:
        assert pool.run(work.search_path, None).get(timeout=TIMEOUT)[-5000:] == directories


def test_a_process_that_never_reads_its_search_path_fails_the_task(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "path", [*sys.path, *(f"/{number}/{'x' * 100}" for number in range(5000))])

    with WorkerPool(1) as pool, pytest.raises(WorkerStartError, match="exit code 3 before it was ready"):
        pool.run(work.double, 1).get(timeout=TIMEOUT)


@pytest.fixture
def no_threads(monkeypatch):
    """Give a context manager: no thread can be started meanwhile."""

    @contextlib.contextmanager
    def no_threads():
        def start(_):
            msg = "can't start new thread"
            raise RuntimeError(msg)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            yield

    return no_threads


def test_a_pool_that_could_start_no_thread_can_be_used_later_and_closed(no_threads):
    pool = WorkerPool(1)
    with no_threads(), pytest.raises(WorkerStartError, match="can't start new thread"):
        pool.run(work.double, 1).get(timeout=TIMEOUT)

    assert pool.run(work.double, 21).get(timeout=TIMEOUT) == 42
    pool.close()

    unused = WorkerPool(1)
    with no_threads(), pytest.raises(WorkerStartError):
        unused.run(work.double, 1).get(timeout=TIMEOUT)
    unused.close()


def test_a_pool_of_threads_that_could_start_none_says_so_and_can_be_used_later(no_threads):
    with WorkerPool(1, threads=True) as pool:
        with no_threads(), pytest.raises(WorkerStartError, match="can't start new thread"):
            pool.run(work.double, 1).get(timeout=TIMEOUT)

        assert pool.run(work.double, 21).get(timeout=TIMEOUT) == 42


def test_a_pool_whose_thread_fails_answers_all_who_wait_and_is_closed(caplog):
    class Broken(Messages):
        def after(self, number):
            return [number]  # no pair

    pool = WorkerPool(1)
    tasks: list[Future[Any]] = [pool.run(work.receive_soon, 60, messages=Broken()), pool.run(work.double, 1)]

    for task in tasks:
        with pytest.raises(PoolClosedError):
            task.get(timeout=TIMEOUT)
    with pytest.raises(PoolClosedError):
        pool.run(work.double, 1).get(timeout=TIMEOUT)
    pool.close()
    assert "The thread of a worker pool failed" in caplog.text


def test_where_no_thread_can_be_started_reports_are_dropped_and_tasks_go_on(no_threads, rendezvous):
    reports = queue.SimpleQueue()
    with WorkerPool(1) as pool:
        assert pool.run(work.double, 1).get(timeout=TIMEOUT) == 2
        with no_threads():
            task = pool.run(work.report_more_than_the_socket_holds, None, on_report=reports.put)
            assert task.get(timeout=TIMEOUT) == 1000
            assert pool.run(work.double, 21).get(timeout=TIMEOUT) == 42

        pool.run(work.report_all_then_wait, (["later"], rendezvous.address), on_report=reports.put)
        with rendezvous.next() as worker:
            assert reports.get(timeout=TIMEOUT) == "later"
            worker.answer("")


def test_a_start_that_failed_is_tried_again_though_another_worker_is_never_idle(pool, rendezvous, monkeypatch):
    assert pool.run(work.double, 1).get(timeout=TIMEOUT) == 2
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        assert pool.run(time.sleep, 0.1).then(lambda _: True).get(timeout=TIMEOUT)
        tasks = [pool.run(work.double, number) for number in range(20)]
        assert [task.get(timeout=TIMEOUT) for task in tasks] == [2 * number for number in range(20)]

    tasks = [pool.run(work.double, 1), *(pool.run(work.wait_for, rendezvous.address) for _ in range(2))]
    with rendezvous.next() as first, rendezvous.next() as second:
        assert first.pid != second.pid
        first.answer("")
        second.answer("")
    collect(tasks).get(timeout=TIMEOUT)


# -- discard


def test_discard_of_a_running_task_kills_it_and_is_answered_when_the_process_is_gone(pool, rendezvous):
    task = pool.run(work.wait_for, rendezvous.address)
    seen = queue.SimpleQueue()
    with rendezvous.next() as worker:
        task.on_discarded(lambda: seen.put(worker.is_gone()))

        task.discard()

        assert seen.get(timeout=TIMEOUT) is True
    assert task.is_discarded()
    assert pool.run(work.double, 4).get(timeout=TIMEOUT) == 8


def test_discard_of_a_waiting_task_is_answered_at_once_and_the_task_never_runs(rendezvous, tmp_path):
    with WorkerPool(1) as pool:
        running = pool.run(work.wait_for, rendezvous.address)
        with rendezvous.next() as worker:
            waiting = pool.run(work.die_the_first_time, str(tmp_path / "ran"))

            waiting.discard()

            assert waiting.is_discarded()
            assert running.is_pending()
            worker.answer("next")
        assert running.get(timeout=TIMEOUT) == "next"
        assert pool.run(work.double, 5).get(timeout=TIMEOUT) == 10
    assert not (tmp_path / "ran").exists()


def test_discard_of_a_task_that_has_ended_does_nothing(pool):
    task = pool.run(work.double, 6)
    pid = pool.run(work.pid_of, None).get(timeout=TIMEOUT)
    assert task.get(timeout=TIMEOUT) == 12

    assert task.discard() is False

    assert pid in collect(pool.run(work.pid_of, None) for _ in range(10)).get(timeout=TIMEOUT)


def test_discards_at_every_moment_leave_the_pool_in_order(pool):
    tasks = []
    for number in range(60):
        task = pool.run(work.double, number)
        if number % 3:
            task.discard()
        tasks.append(task)

    for number, task in enumerate(tasks):
        assert task.recover(lambda _: None).get(timeout=TIMEOUT) in {2 * number} | ({None} if number % 3 else set())
    assert all(task.is_ready() or task.is_discarded() for task in tasks)


# -- limits


def test_a_task_past_its_time_limit_is_killed(pool, rendezvous):
    task = pool.run(work.wait_for, rendezvous.address, time_limit=0.2)

    with rendezvous.next() as worker:
        error = task.recover(lambda future: future.error()).get(timeout=TIMEOUT)

        assert isinstance(error, WorkerTimeoutError)
        assert str(error) == "wait_for ran past its time limit of 0.2 s and was killed"
        assert worker.is_gone(TIMEOUT)
    assert pool.run(work.double, 7, time_limit=20).get(timeout=TIMEOUT) == 14


def test_a_time_limit_of_months_is_kept(pool):
    assert pool.run(work.double, 21, time_limit=1e10).get(timeout=TIMEOUT) == 42
    messages = Messages()
    task = pool.run(work.receive_soon, 1e10, messages=messages)
    messages.send("at last")
    assert task.get(timeout=TIMEOUT) == "at last"


def test_a_tasks_own_timeout_error_is_not_taken_for_the_limit(pool):
    with pytest.raises(TimeoutError, match="the task's own"):
        pool.run(work.fail_with, TimeoutError("the task's own"), time_limit=20).get(timeout=TIMEOUT)


def test_a_task_beyond_the_memory_limit_fails_and_its_worker_goes_on():
    with WorkerPool(1, memory_limit_bytes=256 << 20) as pool:
        pid = pool.run(work.pid_of, None).get(timeout=TIMEOUT)

        with pytest.raises(MemoryError):
            pool.run(work.allocate, 512 << 20).get(timeout=TIMEOUT)

        assert pool.run(work.allocate, 1 << 20).get(timeout=TIMEOUT) == 1 << 20
        assert pool.run(work.pid_of, None).get(timeout=TIMEOUT) == pid


# -- what cannot travel


def test_an_argument_that_cannot_be_pickled_is_named(pool):
    with pytest.raises(
        pickle.PicklingError, match=r"^double or its argument cannot be sent to a worker process: .*lock"
    ):
        pool.run(work.double, threading.Lock()).get(timeout=TIMEOUT)


def test_a_function_that_cannot_be_pickled_is_named(pool):
    with pytest.raises(pickle.PicklingError, match="<lambda> or its argument cannot be sent"):
        pool.run(lambda number: number, 1).get(timeout=TIMEOUT)


def test_a_result_that_cannot_be_pickled_is_told_of(pool):
    with pytest.raises(pickle.PicklingError, match=r"^what return_lock returned cannot be sent back: .*lock"):
        pool.run(work.return_lock, None).get(timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (work.raise_what_cannot_be_unpickled, "TwoArgumentsError: this and that"),
        (work.raise_what_cannot_be_pickled, "HoldsALockError: locked"),
    ],
)
def test_an_error_that_cannot_travel_is_replaced_by_one_that_says_the_same(pool, function, message):
    error = pool.run(function, None).recover(lambda future: future.error()).get(timeout=TIMEOUT)

    assert repr(error) == f"RuntimeError({message!r})"


def test_an_argument_of_the_programs_script_is_refused_with_a_sentence(pool, monkeypatch):
    class OfTheScript:
        __module__, __qualname__ = "__main__", "OfTheScript"

    monkeypatch.setattr("__main__.OfTheScript", OfTheScript, raising=False)

    with pytest.raises(pickle.UnpicklingError, match=r"use only what modules define, not the program's script"):
        pool.run(work.double, OfTheScript()).get(timeout=TIMEOUT)


def test_a_function_of_the_programs_script_is_refused_with_a_sentence(pool):
    def function(_):
        pass

    function.__module__, function.__qualname__ = "__main__", "function"

    with pytest.raises(ValueError, match=r"^function is defined in the program's script, .*; move it to a module$"):
        pool.run(function, None)


def test_big_arguments_and_results_travel(pool):
    data = os.urandom(3 << 20)

    assert pool.run(bytes.upper, data).get(timeout=TIMEOUT) == data.upper()


# -- reports


def test_reports_arrive_in_order_while_the_task_runs(pool, rendezvous):
    reports = queue.SimpleQueue()
    messages = ["begun", {"entries": 3}, 7]
    task = pool.run(work.report_all_then_wait, (messages, rendezvous.address), on_report=reports.put)

    with rendezvous.next() as worker:
        assert [reports.get(timeout=TIMEOUT) for _ in messages] == messages
        assert task.is_pending()
        worker.answer("enough")

    assert task.get(timeout=TIMEOUT) == "enough"


def test_reports_of_a_child_that_a_task_forks_are_dropped_and_it_receives_nothing():
    reports = queue.SimpleQueue()
    with WorkerPool(1) as pool:
        task = pool.run(work.report_in_forked_children, None, on_report=reports.put)

        assert task.get(timeout=TIMEOUT) == (0, "")
        assert pool.run(work.double, 21).get(timeout=TIMEOUT) == 42

    assert reports.get(timeout=TIMEOUT) == "from the task"
    assert reports.empty()


def test_a_report_that_is_too_big_is_dropped(pool, rendezvous):
    reports = queue.SimpleQueue()
    messages = ["x" * 5000, "small"]
    pool.run(work.report_all_then_wait, (messages, rendezvous.address), on_report=reports.put)

    with rendezvous.next() as worker:
        assert reports.get(timeout=TIMEOUT) == "small"
        worker.answer("")


def test_on_report_that_raises_is_logged_and_the_next_report_comes_all_the_same(pool, rendezvous, caplog):
    reports = queue.SimpleQueue()
    requests = ([0, 1], rendezvous.address)
    pool.run(work.report_all_then_wait, requests, on_report=lambda number: reports.put(1 // number))

    with rendezvous.next() as worker:
        assert reports.get(timeout=TIMEOUT) == 1
        worker.answer("")
    assert "ZeroDivisionError" in caplog.text


def test_a_report_that_cannot_be_read_is_logged_and_dropped(pool, caplog):
    task = pool.run(work.report_what_cannot_be_unpickled, None, on_report=print)

    assert task.get(timeout=TIMEOUT) == "reported"
    assert "A report of report_what_cannot_be_unpickled cannot be read" in caplog.text


def test_a_listener_that_is_slow_does_not_hold_up_the_task(pool):
    go_on = threading.Event()
    task = pool.run(work.report_more_than_the_socket_holds, None, on_report=lambda _: go_on.wait(20))

    result = task.recover(lambda _: None).get(timeout=TIMEOUT)
    go_on.set()

    assert result == 1000


def test_reports_are_dropped_only_when_the_socket_is_full(rendezvous):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    holds = 0
    with ours, theirs, contextlib.suppress(BlockingIOError):
        while True:
            ours.send(message(REPORT, 1, pickle.dumps(holds)), socket.MSG_DONTWAIT)
            holds += 1
    reports, held, go_on = queue.SimpleQueue(), threading.Event(), threading.Event()
    with WorkerPool(1) as pool:
        task = pool.run(work.report_between_two_meetings, (1000, rendezvous.address), on_report=reports.put)
        with rendezvous.next() as worker:
            assert isinstance(pool._engine, ProcessEngine)
            pool._engine._loop.call(lambda: held.set() or go_on.wait(TIMEOUT))  # so it hears nothing
            assert held.wait(TIMEOUT)
            worker.answer("")
        with rendezvous.next() as worker:
            go_on.set()
            worker.answer("")
        task.get(timeout=TIMEOUT)

        arrived = [reports.get(timeout=TIMEOUT) for _ in range(holds)]

    assert arrived == list(range(holds))


# -- arguments whose pickling waits, so that the thread serves others meanwhile


class WaitsWhenPickled(int):
    """0 here, 21 in a worker."""

    def __new__(cls, _):
        return super().__new__(cls)

    def __init__(self, is_over):
        self.is_over = is_over

    def __reduce__(self):
        while not self.is_over():
            after(0.01).get(timeout=TIMEOUT)
        return int, ("21",)


def test_a_task_gets_another_worker_if_the_idle_one_ends_while_its_argument_is_pickled():
    with WorkerPool(1) as pool:
        pid = pool.run(work.pid_of, None).get(timeout=TIMEOUT)

        def is_buried():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return not os.path.exists(f"/proc/{pid}")

        assert pool.run(work.double, WaitsWhenPickled(is_buried)).get(timeout=20) == 42


def test_a_task_is_discarded_if_that_is_asked_while_its_argument_is_pickled(pool):
    begun, others = threading.Event(), []

    def is_over():
        begun.set()
        return others and others[0].done()

    task = pool.run(work.double, WaitsWhenPickled(is_over))
    assert begun.wait(TIMEOUT)
    task.discard()
    others.append(pool.run(work.double, 1))  # comes after the discard

    with pytest.raises(DiscardedError):
        task.get(timeout=20)


def test_a_task_is_refused_if_the_pool_is_closed_while_its_argument_is_pickled():
    pool = WorkerPool(1)
    begun = threading.Event()

    def is_over():
        begun.set()
        assert isinstance(pool._engine, ProcessEngine)
        return pool._engine._loop.is_stopped

    task = pool.run(work.double, WaitsWhenPickled(is_over))
    assert begun.wait(TIMEOUT)
    pool.close()

    with pytest.raises(PoolClosedError):
        task.get(timeout=20)


# -- messages


def test_messages_reach_a_task_in_their_order_whether_it_runs_already_or_not(rendezvous):
    with WorkerPool(1) as pool:
        messages, early = Messages(), Messages()
        early.send("early")
        early.send("end")
        first = pool.run(work.receive_until_end, rendezvous.address, messages=messages)
        second = pool.run(work.receive_until_end, rendezvous.address, messages=early)
        with rendezvous.next() as worker:
            for each in ("token", {"fresh": True}, b"x" * 50_000):
                messages.send(each)
            messages.send("end")
            worker.answer("go on")
        assert first.get(timeout=TIMEOUT) == ["token", {"fresh": True}, b"x" * 50_000]
        with rendezvous.next() as worker:
            worker.answer("go on")
        assert second.get(timeout=TIMEOUT) == ["early"]


def test_of_very_many_messages_the_newest_arrive_and_nobody_waits(rendezvous):
    with WorkerPool(1) as pool:
        messages = Messages()
        task = pool.run(work.receive_until_end, rendezvous.address, messages=messages)
        with rendezvous.next() as worker:
            for number in range(500):
                messages.send((number, b"x" * 50_000))
            messages.send("end")
            worker.answer("go on")

        received = [number for number, _ in task.get(timeout=TIMEOUT)]

    assert received == sorted(received)
    assert received[-1] == 499
    assert len(received) < 200


def test_messages_without_end_do_not_keep_tasks_from_running(pool):
    messages, stop = Messages(), threading.Event()

    def send():
        while not stop.is_set():
            messages.send("hurry")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for number in range(20):
            assert pool.run(work.double, number, messages=messages).get(timeout=60) == 2 * number
    finally:
        stop.set()
        sender.join()


def test_messages_to_a_task_whose_worker_dies_cost_nothing_else(pool):
    for _ in range(20):
        messages = Messages()
        task = pool.run(os._exit, 0, messages=messages)
        while task.is_pending():
            messages.send("are you there?")

        with pytest.raises(WorkerDiedError):
            task.get(timeout=TIMEOUT)


def test_a_message_that_a_task_has_not_taken_does_not_reach_the_next_task(pool):
    messages = Messages()
    task = pool.run(work.double, 1, messages=messages)
    for _ in range(20):
        messages.send("late")
    task.get(timeout=TIMEOUT)
    messages.send("later")

    for _ in range(4):
        with pytest.raises(TimeoutError):
            pool.run(work.receive_soon, 0.01).get(timeout=TIMEOUT)
    with pytest.raises(ValueError, match="takes 60000 bytes at most"):
        messages.send(b"x" * 60_000)


# -- callbacks


def test_a_callback_may_wait_for_another_task_of_the_pool():
    with WorkerPool(1) as pool:
        answers = queue.SimpleQueue()

        def again(number):
            answers.put(number if number > 100 else pool.run(work.double, number).then(again).get(timeout=TIMEOUT))

        pool.run(work.double, 1).on_ready(again)

        assert answers.get(timeout=TIMEOUT) == 128


def test_close_may_be_called_by_several_callbacks():
    pool = WorkerPool(2)
    closed: queue.SimpleQueue[None] = queue.SimpleQueue()
    tasks: list[Future[Any]] = [
        pool.run(time.sleep, 600),
        pool.run(int, "not a number"),
        pool.run(work.double, 1),
    ]

    for task in tasks:
        task.on_any(lambda _: closed.put(pool.close()))

    assert [closed.get(timeout=TIMEOUT) for _ in tasks] == [None] * 3
    assert [type(task.error()) for task in tasks[:2]] == [PoolClosedError, ValueError]


def test_a_callback_that_is_interrupted_affects_no_other(pool, rendezvous):
    def interrupt(_):
        raise KeyboardInterrupt

    task = pool.run(work.wait_for, rendezvous.address)
    task.on_any(interrupt)
    with rendezvous.next() as worker:
        worker.answer("done")  # so it is a thread of the pool's that is interrupted

    assert task.get(timeout=TIMEOUT) == "done"
    assert pool.run(work.double, 21).get(timeout=TIMEOUT) == 42


def test_tasks_may_be_submitted_and_discarded_by_the_garbage_collector(pool):
    done = queue.SimpleQueue()
    threshold = gc.get_threshold()
    gc.set_threshold(20)
    try:
        for number in range(300):
            promise: Any = Promise()
            promise.cycle = promise
            promise.future.on_any(partial(lambda number, _: pool.run(work.double, number).on_any(done.put), number))
            del promise
            pool.run(work.double, number).discard()
    finally:
        gc.set_threshold(*threshold)

    deadline = time.monotonic() + TIMEOUT
    while done.qsize() < 300 and time.monotonic() < deadline:
        gc.collect()  # does nothing while another thread collects
    assert done.qsize() == 300


def test_workers_end_when_idle_for_long_and_come_back(monkeypatch):
    monkeypatch.setattr(seams.WORKER_IDLE_SECONDS, 0.01)
    with WorkerPool(2) as pool:
        pid = pool.run(work.pid_of, None).get(timeout=TIMEOUT)
        while os.path.exists(f"/proc/{pid}"):
            time.sleep(0.001)  # it is no child that anybody else may wait for

        assert pool.run(work.pid_of, None).get(timeout=TIMEOUT) != pid


# -- the spare worker


def test_the_task_after_a_discard_gets_a_process_that_was_there_before(rendezvous):
    earlier = children()
    with WorkerPool(1) as pool:
        task = pool.run(work.wait_for, rendezvous.address)
        with rendezvous.next() as worker:
            (spare,) = new_children(earlier, 2) - {worker.pid}
            task.discard()
            assert worker.is_gone(TIMEOUT)

        assert pool.run(work.pid_of, None).get(timeout=TIMEOUT) == spare
        new_children(earlier | {spare}, 1)  # the next one is there already


def test_a_spare_worker_runs_nothing_while_as_many_tasks_run_as_there_are_workers(rendezvous):
    earlier = children()
    with WorkerPool(1) as pool:
        running, waiting = pool.run(work.wait_for, rendezvous.address), pool.run(work.pid_of, None)
        with rendezvous.next() as worker:
            new_children(earlier, 2)
            with pytest.raises(pykka.Timeout):
                waiting.get(timeout=0.2)
            assert running.is_pending()
            worker.answer("")

        assert waiting.get(timeout=TIMEOUT) == worker.pid


def test_a_spare_worker_stays_while_a_task_runs_and_ends_when_idle_for_long(rendezvous, monkeypatch):
    monkeypatch.setattr(seams.WORKER_IDLE_SECONDS, 0.1)
    earlier = children()
    with WorkerPool(1) as pool:
        task = pool.run(work.wait_for, rendezvous.address)
        with rendezvous.next() as worker:
            both = new_children(earlier, 2)
            time.sleep(0.5)
            assert new_children(earlier, 2) == both
            worker.answer("")
        task.get(timeout=TIMEOUT)

        new_children(earlier, 0)


# -- close


def test_close_kills_what_runs_and_fails_what_waits(rendezvous):
    pool = WorkerPool(1)
    running, waiting = pool.run(work.wait_for, rendezvous.address), pool.run(work.double, 1)
    with rendezvous.next() as worker:
        pool.close()

        assert worker.is_gone()
    assert isinstance(running.error(), PoolClosedError)
    assert isinstance(waiting.error(), PoolClosedError)


def test_a_pool_that_was_never_used_is_freed_with_its_last_reference():
    pool = WorkerPool(1)
    engine = weakref.ref(pool._engine)
    gc.disable()
    try:
        del pool

        assert engine() is None
    finally:
        gc.enable()


def test_close_is_idempotent_and_a_closed_pool_refuses():
    pool = WorkerPool(1)
    pool.close()
    pool.close()

    with pytest.raises(PoolClosedError, match="the worker pool is closed"):
        pool.run(work.double, 1).get(timeout=TIMEOUT)


def test_close_by_several_threads_at_once_returns_to_each_when_all_is_gone(rendezvous):
    pool = WorkerPool(1)
    pool.run(work.wait_for, rendezvous.address)
    gone = queue.SimpleQueue()
    with rendezvous.next() as worker:
        threads = [threading.Thread(target=lambda: gone.put((pool.close(), worker.is_gone()))) for _ in range(3)]
        for thread in threads:
            thread.start()

        assert [gone.get(timeout=TIMEOUT) for _ in threads] == [(None, True)] * 3


def test_close_may_be_called_in_a_callback_of_the_pools_own_task():
    pool = WorkerPool(1)
    closed = queue.SimpleQueue()

    pool.run(work.double, 1).on_any(lambda _: closed.put(pool.close()))

    assert closed.get(timeout=TIMEOUT) is None
    pool.close()


def test_close_that_the_collector_calls_in_the_thread_that_looks_after_workers_is_done_at_once():
    pool = WorkerPool(1)
    pool.run(work.double, 1).get(timeout=TIMEOUT)

    assert isinstance(pool._engine, ProcessEngine)
    pool._engine._loop.call(pool.close)  # as in the middle of anything there

    assert pool._engine._loop._ended.wait(TIMEOUT)


def test_close_while_tasks_come_in_answers_every_one():
    for _ in range(3):
        pool = WorkerPool(2)
        tasks = queue.SimpleQueue()

        def run_some(pool=pool, tasks=tasks):
            for number in range(30):
                tasks.put(pool.run(work.double, number))

        thread = threading.Thread(target=run_some)
        thread.start()
        tasks.get(timeout=TIMEOUT)
        pool.close()
        thread.join(20)

        for _ in range(29):
            error = tasks.get(timeout=TIMEOUT).recover(lambda future: future.error()).get(timeout=TIMEOUT)
            assert isinstance(error, int | PoolClosedError)


@pytest.mark.parametrize(
    "error",
    [WorkerDiedError("task", -9), WorkerTimeoutError("task", 1.5), WorkerStartError("task"), PoolClosedError()],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error):
    copy = pickle.loads(pickle.dumps(error))

    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert isinstance(copy, RuntimeFailure)


def test_a_discard_error_is_no_runtime_failure_but_a_cancellation():
    assert not issubclass(DiscardedError, RuntimeFailure)
    assert str(pickle.loads(pickle.dumps(DiscardedError()))) == "discarded: the work was stopped on request"
