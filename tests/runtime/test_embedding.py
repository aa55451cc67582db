"""Pools of worker processes in programs of all kinds, each as people have met it.

Each row of docs/runtime.md's table "In which programs" has a test here.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap

import pytest
from support import worker_functions
from support.processes import SOURCES, TIMEOUT

from pykka_imagestore.runtime import WorkerPool, WorkerStartError
from pykka_imagestore.runtime.worker import wait_for

HEAD = """
import os, signal, sys, time, warnings
from support import worker_functions as work
from pykka_imagestore.runtime import ForkedError, WorkerDiedError, WorkerPool
warnings.simplefilter("ignore")  # Python's, about forks and threads
def use():
    with WorkerPool(1) as pool:
        return pool.run(work.double, 21).get(timeout=60)
"""
# Not in another program's way: one that goes wrong here may start processes without end.
IN_NAMESPACE = ["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--die-with-parent"]

needs_bwrap = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("bwrap") is None, reason="needs root and bubblewrap, for namespaces"
)


def run(text, *, before=(), **how):
    """Run a script, and return what it printed; it must end well, and complain of nothing."""
    return outcome([*before, sys.executable, "-c", HEAD + textwrap.dedent(text)], **how)


def outcome(command, **how):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES)), **how.pop("environment", {})}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd="/", **how
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_daemonic_process_has_workers():
    printed = run("""
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(1) as daemons:
            print(daemons.apply(use))
    """)

    assert printed == "42\n"


def test_a_program_with_descriptors_0_to_2_closed_has_workers_and_none_of_its_files_becomes_a_stream(tmp_path):
    run(f"""
        if os.fork() == 0:
            for descriptor in (0, 1, 2):
                os.close(descriptor)
            try:
                with WorkerPool(1) as pool:
                    said = repr((pool.run(work.double, 21).get(timeout=60), pool.run(work.streams_of, None).get()))
            except BaseException as error:
                said = repr(error)
            with open({str(tmp_path / "said")!r}, "w") as file:
                file.write(said)
            os._exit(0)
        os.wait()
    """)

    assert (tmp_path / "said").read_text() == "(42, ['/dev/null', '/dev/null', '/dev/null'])"


@pytest.mark.parametrize("reaper", ["ignore", "handler", "thread"])
def test_a_program_that_reaps_all_children_has_workers_and_learns_of_their_death(reaper):
    printed = run(f"""
        import threading
        def reap(*_):
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
        def reap_always():
            while True:
                reap()
                time.sleep(0.001)
        if {reaper!r} == "ignore":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        elif {reaper!r} == "handler":
            signal.signal(signal.SIGCHLD, reap)
        else:
            threading.Thread(target=reap_always, daemon=True).start()
        with WorkerPool(1) as pool:
            print(pool.run(work.double, 21).get(timeout=60))
            error = pool.run(work.exit_with, 3).recover(lambda future: future.error()).get(timeout=60)
            assert error.exit_code in (3, None), error
            print(type(error).__name__, pool.run(work.double, 4).get(timeout=60))
            running = pool.run(time.sleep, 60)
            running.discard()
            running.recover(lambda _: None).get(timeout=60)
            print(running)
    """)

    assert printed == "42\nWorkerDiedError 8\n<Future discarded, discard requested>\n"


def test_a_program_whose_directory_is_gone_has_workers(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()

    printed = run(f"os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); sys.path.insert(0, ''); print(use())")

    assert printed == "42\n"


@needs_bwrap
@pytest.mark.parametrize(
    "before",
    [
        ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"],
        ["bwrap", "--bind", "/", "/", "--tmpfs", "/dev", "--dev-bind", "/dev/null", "/dev/null", "--proc", "/proc"],
        ["bwrap", "--bind", "/", "/", "--tmpfs", "/dev"],
        ["bwrap", "--bind", "/", "/", "--dev", "/dev"],
    ],
    ids=["nothing can be written", "no /dev/shm", "no /dev", "no /proc"],
)
def test_a_machine_that_lacks_directories_has_workers(before):
    if sys.executable.startswith("/dev/") or any(str(path).startswith("/dev/") for path in SOURCES):
        pytest.skip("what runs lies below /dev")

    # Without /dev/urandom Python takes getrandom(2).
    assert run("print(use())", before=before) == "42\n"


def test_a_program_whose_sockets_have_a_timeout_by_default_has_workers_and_large_results():
    printed = run("""
        import socket
        socket.setdefaulttimeout(60)
        sys.path.extend(f"/{number}/{'x' * 100}" for number in range(5000))  # more than a socket holds
        with WorkerPool(1) as pool:
            print(len(pool.run(bytes, 10_000_000).get(timeout=60)))
    """)

    assert printed == "10000000\n"


def test_an_embedded_python_is_run_by_the_one_beside_it():
    assert run("sys.executable = '/usr/bin/uwsgi'; print(use())") == "42\n"


def test_a_program_with_no_python_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: None)

    with WorkerPool(1) as pool, pytest.raises(WorkerStartError, match=r"'/usr/bin/uwsgi', is no Python, .* set sys"):
        pool.run(worker_functions.double, 1).get(timeout=TIMEOUT)


@pytest.mark.parametrize("call", ["pidfd_open", "waitid"])
def test_a_system_without_a_call_that_workers_need_says_so(monkeypatch, call):
    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, call, refuse)

    with (
        WorkerPool(1) as pool,
        pytest.raises(WorkerStartError, match=r"pidfd_open, or waitid .* Invalid argument; it takes Linux 5\.4"),
    ):
        pool.run(worker_functions.double, 1).get(timeout=TIMEOUT)


def test_another_version_of_python_says_so(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-399")

    with WorkerPool(1) as pool, pytest.raises(WorkerStartError, match="is another Python than this program's"):
        pool.run(worker_functions.double, 1).get(timeout=TIMEOUT)


def test_a_program_out_of_descriptors_says_so_and_goes_on_when_it_has_some():
    printed = run("""
        import resource
        pool = WorkerPool(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2, 1000))
        try:
            pool.run(work.double, 1).get(timeout=60)
        except Exception as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
        print(pool.run(work.double, 21).get(timeout=60))
    """)

    said, worked = printed.splitlines()
    assert said == "no worker process could be started for double: [Errno 24] Too many open files"
    assert worked == "42"


def test_a_program_at_its_end_that_can_start_no_thread_says_so_and_ends():
    printed = run("""
        import atexit
        def late():
            try:
                print(pool.run(work.double, 21).get(timeout=60))
            except Exception as error:
                print(error)
        pool = WorkerPool(1)
        atexit.register(late)  # Python 3.12 starts no thread any more
    """)

    assert printed == "42\n" or "for double: can't create new thread at interpreter shutdown" in printed


# -- forks


def test_a_forked_child_cannot_use_the_parents_pool_and_can_use_its_own():
    printed = run("""
        pool = WorkerPool(1)
        pool.run(work.double, 1).get(timeout=60)
        if os.fork() == 0:
            error = pool.run(work.double, 1).recover(lambda future: future.error()).get(timeout=60)
            pool.close()
            print(type(error).__name__, use(), flush=True)
            sys.exit()
        os.wait()
        print(pool.run(work.double, 21).get(timeout=60))
    """)

    assert printed == "ForkedError 42\n42\n"


def test_a_message_that_a_forked_child_sends_goes_nowhere_and_into_no_file_of_its_own():
    printed = run("""
        import select
        from pykka_imagestore.runtime import Messages
        messages = Messages()
        with WorkerPool(1) as pool:
            task = pool.run(work.receive_soon, 60, messages=messages)
            if os.fork() == 0:
                pipes = [os.pipe() for _ in range(20)]  # they get the numbers of what was closed
                messages.send("lost")
                print(select.select([ours for ours, _ in pipes], [], [], 0)[0], flush=True)
                os._exit(0)
            os.wait()
            messages.send("come")
            print(task.get(timeout=60))
    """)

    assert printed == "[]\ncome\n"


@pytest.mark.parametrize("how", ["sys.exit()", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_forked_child_that_ends_leaves_the_parents_tasks_alone(how):
    printed = run(f"""
        with WorkerPool(1) as pool, work.Rendezvous() as rendezvous:
            task = pool.run(work.wait_for, rendezvous.address)
            with rendezvous.next() as worker:
                if os.fork() == 0:
                    {how}
                os.wait()
                worker.answer("unharmed")
                print(task.get(timeout=60))
    """)

    assert printed == "unharmed\n"


def test_a_store_is_left_alone_by_a_child_that_leaves_its_with_block(tmp_path):
    printed = run(f"""
        from pykka_imagestore import LocalStore
        with LocalStore.start({str(tmp_path / "store")!r}) as store:
            print(store.list().get(timeout=60), flush=True)
            child = os.fork()
        if child == 0:
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)

    assert printed == "()\n0\n"


def test_workers_of_a_killed_program_end_though_a_child_of_it_holds_all_that_is_open():
    program = subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent("""
            pool = WorkerPool(1)
            worker = pool.run(work.pid_of, None).get(timeout=60)
            running = pool.run(time.sleep, 600)
            import ctypes
            child = ctypes.CDLL(None).fork()  # Python does not know of it, and closes nothing
            if child == 0:
                signal.pause()
            print(worker, child, flush=True)
            signal.pause()
        """)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES))},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert program.stdout
    worker, child = map(int, program.stdout.readline().split())
    pidfd = os.pidfd_open(worker)

    program.kill()

    program.wait(TIMEOUT)
    assert wait_for(pidfd, None)
    os.kill(child, 9)
    os.close(pidfd)
    program.stdout.close()


# -- frozen programs

FROZEN = """
import multiprocessing, os, sys
if __name__ == "__main__":
    if "UNSUPPORTED" not in os.environ:
        multiprocessing.freeze_support()
    os.write(1, b"main ")
    import operator
    from pykka_imagestore.runtime import WorkerPool
    def use(_=None):
        with WorkerPool(2) as pool:
            return pool.run(operator.neg, -42).get(timeout=60)
    try:
        if "DAEMONIC" in os.environ:
            with multiprocessing.get_context("fork").Pool(1) as daemons:
                print(daemons.apply(use))
        else:
            print(use())
    except Exception as error:
        print(error)
"""


@pytest.fixture(scope="session")
def frozen(tmp_path_factory):
    """Return a program that was frozen with PyInstaller."""
    pytest.importorskip("PyInstaller", reason="needs PyInstaller")
    if shutil.which("bwrap") is None or os.geteuid() != 0:
        pytest.skip("needs root and bubblewrap: what goes wrong here starts processes without end")
    directory = tmp_path_factory.mktemp("frozen")
    (directory / "app.py").write_text(FROZEN)
    done = subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--noconfirm", "--onedir", "--log-level", "ERROR", "app.py"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES))},
        capture_output=True,
        timeout=TIMEOUT,
        text=True,
        check=False,
    )
    if done.returncode:  # it takes not every build of Python
        pytest.skip(f"PyInstaller freezes nothing here: {done.stderr.strip().splitlines()[-1:]}")
    return directory / "dist/app/app"


def run_frozen(program, **environment):
    done = subprocess.run(
        [*IN_NAMESPACE, "timeout", "60", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0
    return done


def test_a_frozen_program_has_workers(frozen):
    done = run_frozen(frozen)

    assert (done.stdout, done.stderr) == ("main 42\n", "")


def test_a_frozen_program_without_freeze_support_says_so_and_starts_no_process_of_a_process(frozen):
    done = run_frozen(frozen, UNSUPPORTED="1")

    assert "no worker process could be started for neg: it ended with exit code 1 before it was ready" in done.stdout
    assert "multiprocessing.freeze_support() first thing in its main" in done.stderr
    # The program, and what it has started: a worker, and multiprocessing's tracker, which start none.
    assert done.stdout.count("main ") <= 3


def test_a_frozen_daemonic_process_says_so(frozen):
    done = run_frozen(frozen, DAEMONIC="1")

    assert "which gives a daemonic process none; use the store or pool in a process that is not daemonic" in done.stdout


GEVENT = """
from gevent import monkey
monkey.patch_all()
import zlib
import gevent
from pykka_imagestore.runtime import Actor, Future, Promise, SerialExecutor, WorkerPool, after, dispatch, tell_every

class Counter(Actor):
    count = 0
    def on_receive(self, _):
        self.count += 1
    async def later(self, value):
        await after(0.001)
        return value
    def get_count(self):
        return self.count

ref = Counter.start(mailbox=1)
tell_every(ref, 0.001, "tick")
senders = [gevent.spawn(lambda: [ref.tell("message") for _ in range(50)]) for _ in range(3)]
gevent.joinall(senders, raise_error=True)
print(dispatch(ref, Counter.later, 1).get(timeout=60), dispatch(ref, Counter.get_count).get(timeout=60) >= 150)
hooked, executor = Future(), SerialExecutor("executor")
hooked.set_get_hook(lambda _: 2)
print(hooked.then(lambda value: value).get(timeout=60), executor.run(len, "abc").get(timeout=60))
with WorkerPool(1, threads=True) as threads, WorkerPool(1) as processes:
    print(threads.run(len, "abcd").get(timeout=60), processes.run(zlib.crc32, b"abc").get(timeout=60))
print(ref.stop(timeout=60))
"""


def test_a_program_whose_threads_gevent_has_patched_works():
    pytest.importorskip("gevent", reason="needs gevent")

    assert outcome([sys.executable, "-c", GEVENT]) == "1 True\n2 3\n4 891568578\nTrue\n"
