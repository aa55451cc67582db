from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import worker_functions as work

from pykka_imagestore.runtime import PoolClosedError, WorkerPool, collect, raise_if_discarded


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """Return the directory where flags are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def events():
    return threading.Event(), threading.Event()


def test_an_executor_runs_the_tasks(thread):
    with WorkerPool(executor=thread) as pool:
        assert pool.run(work.double, 21).get(timeout=10) == 42
        with pytest.raises(LookupError, match="not here"):
            pool.run(work.fail_with, LookupError("not here")).get(timeout=10)


def test_an_idle_task_is_discarded_for_nobody_can_tell_when_its_time_has_come(thread):
    with WorkerPool(executor=thread) as pool:
        assert pool.run(work.double, 21, idle=True).is_discarded()


def test_discard_of_a_running_task_raises_a_flag_which_the_task_looks_at(thread, flags):
    with WorkerPool(executor=thread) as pool:
        begun, stopped = events()
        task = pool.run(work.work_until_discarded, (begun, stopped))
        assert begun.wait(10)

        task.discard()

        assert stopped.wait(10)
        collect([pool.run(work.double, 1)]).get(timeout=10)  # the thread is done with the first
        assert task.is_discarded()
        assert list(flags.iterdir()) == []


def test_discard_of_a_task_that_does_not_look_leaves_its_result(thread, flags):
    with WorkerPool(executor=thread) as pool:
        begun, go_on = events()
        task = pool.run(work.set_and_wait, (begun, go_on))
        assert begun.wait(10)

        task.discard()
        assert task.is_pending()
        go_on.set()

        assert task.get(timeout=10) == "done"
    assert list(flags.iterdir()) == []


def test_discard_of_a_waiting_task_is_answered_at_once(thread):
    with WorkerPool(executor=thread) as pool:
        begun, go_on = events()
        pool.run(work.set_and_wait, (begun, go_on))
        assert begun.wait(10)
        waiting = pool.run(work.double, 1)

        waiting.discard()

        assert waiting.is_discarded()
        go_on.set()


def test_close_stops_what_runs_and_refuses_what_waits_and_what_comes(thread, flags):
    pool = WorkerPool(executor=thread)
    begun, stopped = events()
    running, waiting = pool.run(work.work_until_discarded, (begun, stopped)), pool.run(work.double, 1)
    assert begun.wait(10)

    pool.close()

    late = pool.run(work.double, 1)
    assert [type(future.error()) for future in (running, waiting, late)] == [PoolClosedError] * 3
    assert list(flags.iterdir()) == []
    assert thread.submit(work.double, 2).result(10) == 4  # it is the caller's to shut down


def test_an_executor_that_was_shut_down_fails_the_task():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with WorkerPool(executor=executor) as pool, pytest.raises(RuntimeError, match="shutdown"):
        pool.run(work.double, 1).get(timeout=10)


def test_an_executor_of_threads_runs_functions_of_the_programs_script(thread):
    def function(number):
        return number

    function.__module__ = "__main__"

    with WorkerPool(executor=thread) as pool:
        assert pool.run(function, 1).get(timeout=10) == 1


def test_without_room_for_a_flag_the_task_runs_to_its_end(thread, flags):
    with WorkerPool(executor=thread) as pool:
        begun, go_on = events()
        task = pool.run(work.set_and_wait, (begun, go_on))
        assert begun.wait(10)
        flags.rmdir()

        task.discard()
        go_on.set()

        assert task.get(timeout=10) == "done"


def test_looking_for_a_discard_outside_of_any_task_is_harmless():
    assert raise_if_discarded() is None


def test_reports_go_nowhere(thread):
    reports = []
    with WorkerPool(executor=thread) as pool, work.Rendezvous() as rendezvous:
        task = pool.run(work.report_all_then_wait, ([1], rendezvous.address), on_report=reports.append)
        with rendezvous.next() as worker:
            worker.answer("done")

        assert task.get(timeout=10) == "done"
        assert reports == []
