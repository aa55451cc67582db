"""Whole programs: scripts without a guard, what is left open, and what a killed program leaves behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest
from support.processes import SOURCES, TIMEOUT


@pytest.fixture
def start(tmp_path):
    """Start a script, given as its text, and kill it in the end if it has not ended by then."""
    programs = []

    def start(text, *, cwd=tmp_path):
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(text))
        programs.append(
            subprocess.Popen(
                [sys.executable, script],
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES)), "PYTHONWARNINGS": "error"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return programs[-1]

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def outcome(program):
    """Return what a program that ends by itself has printed, what it complained of, and its exit status."""
    output, complaints = program.communicate(timeout=TIMEOUT)
    return output, complaints, program.returncode


@contextmanager
def watched(*pids):
    """Give a function that waits until these processes, who are not our children, have ended, and tells whether."""
    pidfds = [os.pidfd_open(pid) for pid in pids]

    def have_ended():
        return all(select.select([pidfd], [], [], TIMEOUT)[0] for pidfd in pidfds)

    yield have_ended
    for pidfd in pidfds:
        os.close(pidfd)


def test_a_script_without_a_guard_works_and_is_run_once(start):
    program = start("""
        import operator, sys
        from pykka_imagestore.runtime import WorkerPool
        print("begins", __name__, flush=True)
        with WorkerPool(2) as pool:
            print([pool.run(operator.neg, number).get(timeout=20) for number in range(5)])
    """)

    assert outcome(program) == ("begins __main__\n[0, -1, -2, -3, -4]\n", "", 0)


def test_a_function_of_the_script_gets_one_sentence(start):
    program = start("""
        from pykka_imagestore.runtime import WorkerPool
        def work(number):
            return number
        with WorkerPool(2) as pool:
            try:
                pool.run(work, 1)
            except ValueError as error:
                print(error)
    """)

    sentence = "work is defined in the program's script, which worker processes do not import; move it to a module\n"
    assert outcome(program) == (sentence, "", 0)


def test_a_closed_pool_leaves_no_process_no_thread_and_no_open_file(start):
    program = start("""
        import gc, os, threading, time
        from pykka_imagestore.runtime import WorkerPool
        def is_child(pid):
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    return int(stat.read().rpartition(")")[2].split()[1]) == os.getpid()
            except OSError:
                return False
        def look():
            gc.collect()
            files = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
            return (
                sorted(os.readlink(file) for file in files if os.path.lexists(file)),
                sorted(thread.name for thread in threading.enumerate()),
                [pid for pid in os.listdir("/proc") if pid.isdigit() and is_child(pid)],
            )
        def use_a_pool():
            with WorkerPool(2) as pool:
                idle, busy = pool.run(time.sleep, 0), pool.run(time.sleep, 60)
                idle.get(timeout=20)
        use_a_pool()
        while (before := look()) != look() or any(name.startswith("imagestore") for name in before[1]):
            pass  # threads and their files go a moment after they have been told
        deadline = time.monotonic() + 60
        use_a_pool()
        while (after := look()) != before and time.monotonic() < deadline:
            pass
        print(before == after or (before, after))
    """)

    assert outcome(program) == ("True\n", "", 0)


def test_an_actor_and_a_pool_left_open_do_not_keep_a_program_from_ending(start):
    program = start("""
        import time
        from pykka_imagestore.runtime import Actor, Promise, WorkerPool, after, dispatch
        class Waiter(Actor):
            async def wait(self, future):
                await future
        pool = WorkerPool(2)
        idle, busy = pool.run(time.sleep, 0), pool.run(time.sleep, 60)
        idle.get(timeout=20)
        WorkerPool(1).run(time.sleep, 0).get(timeout=20)  # and one that nobody has any more
        promise, waiter = Promise(), Waiter.start()
        waiting = [dispatch(waiter, Waiter.wait, future) for future in (promise.future, busy, after(60))]
        print("ends")
    """)

    assert outcome(program) == ("ends\n", "", 0)


BUSY = """
    import os, sys
    from support import worker_functions as work
    from pykka_imagestore.runtime import Actor, WorkerPool
    Actor.start()
    with WorkerPool(2) as pool:
        with work.Rendezvous() as rendezvous:
            tasks = [pool.run(work.wait_for, rendezvous.address) for _ in range(2)]
            with rendezvous.next() as first, rendezvous.next() as second:
                print(first.pid, second.pid, flush=True)
                tasks[0].get(timeout=60)
"""


def test_a_killed_program_leaves_no_process_behind(start):
    program = start(BUSY)
    with watched(*map(int, program.stdout.readline().split())) as have_ended:
        program.kill()

        assert have_ended()


def test_ctrl_c_ends_a_program_and_its_workers(start):
    program = start(BUSY)
    with watched(*map(int, program.stdout.readline().split())) as have_ended:
        program.send_signal(signal.SIGINT)

        _, complaints, status = outcome(program)
        assert have_ended()
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert status == -signal.SIGINT


def test_a_stray_module_in_the_current_directory_is_not_run(start, tmp_path):
    directory = tmp_path / "current"
    directory.mkdir()
    for module in ("socket", "pickle", "resource", "select", "threading"):
        (directory / f"{module}.py").write_text("import os; os.write(1, b'stray'); os._exit(3)")

    program = start(
        """
        import operator
        from pykka_imagestore.runtime import WorkerPool
        with WorkerPool(1) as pool:
            print(pool.run(operator.neg, 1).get(timeout=20))
        """,
        cwd=directory,
    )

    assert outcome(program) == ("-1\n", "", 0)


def test_close_does_not_wait_for_a_child_that_the_program_has_forked(start):
    program = start("""
        import operator, os, signal, warnings
        from pykka_imagestore.runtime import WorkerPool
        pool = WorkerPool(1)
        pool.run(operator.neg, 1).get(timeout=20)
        warnings.simplefilter("ignore")  # Python's, about forks and threads
        child = os.fork()  # which has a copy of all that is open
        if child == 0:
            signal.pause()
        pool.close()
        print("closed")
        os.kill(child, signal.SIGKILL)
    """)

    output, _, status = outcome(program)

    assert (output, status) == ("closed\n", 0)
