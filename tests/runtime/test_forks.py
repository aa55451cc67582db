"""A forked child has the parent's objects and none of its threads: nothing hangs, and what is the parent's stays."""

from __future__ import annotations

import os
import select as selectors
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pykka
import pytest
from support import worker_functions as work
from support.processes import TIMEOUT

from pykka_imagestore.runtime import (
    Actor,
    Future,
    InFlight,
    Messages,
    Promise,
    Semaphore,
    SerialExecutor,
    SingleFlight,
    WorkerPool,
    after,
    collect,
    dispatch,
    ready,
    run_blocking,
    select,
    tell_every,
    tell_later,
    terminate,
    undiscardable,
)


class Counter(Actor):
    def __init__(self):
        super().__init__()
        self.count = 0

    def add(self, number):
        self.count += number
        return self.count

    async def add_later(self, number):
        await after(0.001)
        return self.add(number)


def in_child(function):
    """Return what the function returns in a forked child, as text; the child is killed if it hangs."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's: this process has threads
        pid = os.fork()
    if not pid:
        try:
            answer = function()
        except BaseException as error:  # noqa: BLE001 - the parent wants to know
            answer = repr(error)
        os.write(writer, str(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        if not selectors.select([file], [], [], TIMEOUT)[0]:
            os.kill(pid, signal.SIGKILL)
        answer = file.read()
    os.waitpid(pid, 0)
    return answer or "hung"


def raised_by(function):
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - that is the answer
        return type(error).__name__
    return "nothing"


@pytest.fixture
def ref():
    ref = Counter.start()
    yield ref
    ref.stop(timeout=TIMEOUT)


# -- futures


def poll(future):
    while not future.done():
        time.sleep(0.001)
    raise future.error()


WAYS_TO_WAIT = {
    "get": lambda future: future.get(timeout=TIMEOUT),
    "then": lambda future: future.then(lambda value: value).get(timeout=TIMEOUT),
    "collect": lambda future: collect([future, ready(1)]).get(timeout=TIMEOUT),
    "await_all": lambda future: collect([undiscardable(future)]).get(timeout=TIMEOUT),
    "after": lambda future: future.after(TIMEOUT, lambda _: None).get(timeout=TIMEOUT),
    "to_concurrent": lambda future: future.to_concurrent().result(TIMEOUT),
    "promise": lambda future: associated(future).get(timeout=TIMEOUT),
    "polling": poll,
}


def associated(future):
    promise = Promise()
    promise.set(future)
    return promise.future


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
def test_pending_future_of_the_parents_has_failed_in_the_child_whichever_way_it_is_waited_for(way):
    promise = Promise()

    answer = in_child(lambda: raised_by(lambda: WAYS_TO_WAIT[way](promise.future)))

    assert answer == "ForkedError"
    promise.set(1)
    assert promise.future.get(timeout=0) == 1


def test_final_future_of_the_parents_is_as_it_was_in_the_child():
    future = ready("value")

    assert in_child(lambda: future.then(lambda value: value * 2).get(timeout=TIMEOUT)) == "valuevalue"


def test_select_in_the_child_passes_over_the_parents_future():
    pending = Promise()

    assert in_child(lambda: select([pending.future, ready("mine")]).get(timeout=TIMEOUT)) == "mine"


def test_child_runs_no_callback_of_the_parents_and_abandons_nothing():
    promise, told = Promise(), []
    end = promise.future
    for _ in range(5000):
        end = end.then(lambda value: value)
    end.on_any(told.append)
    promise.future.on_discard(lambda: told.append("discard"))
    holder = [promise]
    del promise, end

    def drop():
        answers = [holder[0].future.discard(), holder[0].set(1), holder[0].fail(OSError())]
        future = holder.pop().future
        return answers, type(future.error()).__name__, told

    assert in_child(drop) == "([False, False, False], 'ForkedError', [])"
    holder[0].set(1)
    assert len(told) == 1


def test_child_takes_no_lock_of_a_future_that_another_thread_held_at_the_fork():
    promise = Promise()
    made = [undiscardable(promise.future), associated(promise.future), promise.future.watch(print)]

    def use():
        withdrawn = made.pop()()
        made.clear()  # they are dropped, and would be withdrawn
        return withdrawn, raised_by(lambda: promise.future.get(timeout=TIMEOUT))

    with held_elsewhere(promise.future._lock):
        assert in_child(use) == "(False, 'ForkedError')"


class held_elsewhere:  # noqa: N801 - reads like a function
    """Have another thread hold a lock."""

    def __init__(self, lock):
        self._lock, self._release = lock, threading.Event()
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self):
        held = threading.Event()

        def hold():
            with self._lock:
                held.set()
                self._release.wait(TIMEOUT)

        self._thread.submit(hold)
        assert held.wait(TIMEOUT)

    def __exit__(self, *_):
        self._release.set()
        self._thread.shutdown()


# -- actors


WAYS_TO_REACH = {
    "dispatch": lambda ref: dispatch(ref, Counter.add, 1).get(timeout=TIMEOUT),
    "dispatch async": lambda ref: dispatch(ref, Counter.add_later, 1).get(timeout=TIMEOUT),
    "ask": lambda ref: ref.ask("message", timeout=TIMEOUT),
    "ask later": lambda ref: ref.ask("message", block=False).get(timeout=TIMEOUT),
    "tell": lambda ref: ref.tell("message"),
    "proxy": lambda ref: ref.proxy().add(1).get(timeout=TIMEOUT),
    "proxy attribute": lambda ref: ref.proxy().count.get(timeout=TIMEOUT),
}


@pytest.mark.parametrize("way", WAYS_TO_REACH)
def test_actor_of_the_parents_cannot_be_reached_from_the_child(way, ref):
    assert in_child(lambda: raised_by(lambda: WAYS_TO_REACH[way](ref))) == "ForkedError"
    assert dispatch(ref, Counter.add, 1).get(timeout=TIMEOUT) == 1


def test_child_takes_no_lock_of_an_inbox_or_of_pykka_that_another_thread_held_at_the_fork(ref):
    with held_elsewhere(ref.actor_inbox._lock):
        assert in_child(lambda: raised_by(lambda: ref.tell(1))) == "ForkedError"
    with held_elsewhere(pykka.ActorRegistry._actor_refs_lock):
        assert in_child(lambda: dispatch(Counter.start(), Counter.add_later, 1).get(timeout=TIMEOUT)) == "1"


def test_stopping_the_parents_actors_in_the_child_stops_the_childs_alone(ref):
    def stop():
        mine = Counter.start()
        first = ref.stop(timeout=TIMEOUT), terminate(ref).get(timeout=TIMEOUT)
        pykka.ActorRegistry.stop_all(timeout=TIMEOUT)
        return first, mine.is_alive()

    assert in_child(stop) == "((False, False), False)"
    assert ref.is_alive()
    assert dispatch(ref, Counter.add, 1).get(timeout=TIMEOUT) == 1


def test_new_actor_in_the_child_works_and_may_be_linked(ref):
    class Linking(Counter):
        ended = Promise()

        def exited(self, ref):
            self.ended.set(ref.actor_class.__name__)

        def watch(self, ref):
            self.link(ref)

    def start():
        Linking.ended = Promise()
        mine, other = Linking.start(), Counter.start()
        dispatch(mine, Linking.watch, other).get(timeout=TIMEOUT)
        failure = raised_by(lambda: dispatch(mine, Linking.watch, ref).get(timeout=TIMEOUT))
        terminate(other)
        return failure, Linking.ended.future.get(timeout=TIMEOUT)

    assert in_child(start) == "('ForkedError', 'Counter')"


# -- timers, serial executors, and the rest


def test_timers_of_the_parents_do_not_fire_in_the_child_and_new_ones_do():
    fired = []
    pending = after(0.1)
    pending.on_any(fired.append)

    def wait():
        after(0.2).get(timeout=TIMEOUT)
        return fired, type(pending.error()).__name__

    assert in_child(wait) == "([], 'ForkedError')"
    pending.get(timeout=TIMEOUT)


def test_serial_executor_of_the_parent_neither_runs_nor_closes_in_the_child():
    executor, release = SerialExecutor("executor"), threading.Event()
    running = executor.run(release.wait, TIMEOUT)

    def close():
        executor.close()
        own = SerialExecutor("own")
        return raised_by(lambda: executor.run(len, "a").get(timeout=TIMEOUT)), own.run(len, "abc").get(timeout=TIMEOUT)

    with held_elsewhere(executor._threads._condition):
        assert in_child(close) == "('ForkedError', 3)"
    release.set()
    assert running.get(timeout=TIMEOUT) is True
    assert executor.run(len, "a").get(timeout=TIMEOUT) == 1
    executor.close()


@pytest.mark.parametrize("kind", ["processes", "threads", "executor"])
def test_pool_of_the_parents_is_not_the_childs_to_use_or_to_close(kind, tmp_path):
    started, go_on, messages = threading.Event(), threading.Event(), Messages()
    stop_file = tmp_path / "stop"

    def close():
        pool.close()
        messages.send("to nobody")
        return raised_by(lambda: pool.run(len, "abc").get(timeout=TIMEOUT)), stop_file.exists()

    with ThreadPoolExecutor(1) as executor:
        ways: dict[str, Any] = {"threads": {"threads": True}, "executor": {"executor": executor}}
        with WorkerPool(1, **ways.get(kind, {})) as pool:
            if kind == "processes":
                running = pool.run(work.receive_soon, TIMEOUT, messages=messages)
                started.set()
            else:
                running = pool.run(lambda _: (started.set(), go_on.wait(TIMEOUT)), None, stop_file=stop_file)
            started.wait(TIMEOUT)

            assert in_child(close) == "('ForkedError', False)"

            go_on.set()
            messages.send("to the task")
            running.get(timeout=TIMEOUT)


def test_semaphore_single_flight_and_in_flight_of_the_parent_do_not_make_the_child_wait():
    semaphore, flights, pending, promise = Semaphore(), SingleFlight(), InFlight(), Promise()
    semaphore.acquire()
    flights.join("key", lambda: promise.future)
    pending.add(promise.future)

    def use():
        semaphore.release()
        return (
            raised_by(lambda: semaphore.acquire().get(timeout=TIMEOUT)),
            raised_by(lambda: flights.join("key", lambda: promise.future)),
            raised_by(lambda: pending.ended().get(timeout=TIMEOUT)),
            run_blocking(lambda: "fine", undo=str).get(timeout=TIMEOUT),
        )

    with held_elsewhere(semaphore._lock), held_elsewhere(flights._lock):
        assert in_child(use) == "('ForkedError', 'ForkedError', 'nothing', 'fine')"
    assert semaphore.acquire().is_pending()


def test_fork_in_a_callback_leaves_deferred_callbacks_to_the_parent():
    told: list[None] = []
    answers = []

    def fork():
        ready(None).then(told.append)  # deferred, as deep as this is

        def wait():
            mine = Promise()
            return raised_by(lambda: mine.future.get(timeout=0.05)), told

        answers.append(in_child(wait))

    def down(left):
        ready(None).on_ready(lambda _: down(left - 1) if left else fork())

    down(20)

    assert answers == ["('Timeout', [])"]
    assert told == [None]


# -- however the child ends

ENDS = {
    "exit": "sys.exit(3)",
    "_exit": "os._exit(3)",
    "stop_all": "pykka.ActorRegistry.stop_all(timeout=20); sys.exit(3)",
    "atexit": "atexit.register(lambda: pykka.ActorRegistry.stop_all(timeout=20)); sys.exit(3)",
    "in a thread": "threading.Thread(target=time.sleep, args=(0.05,)).start(); sys.exit(3)",
    "collected": "del actor, executor, pending, work; gc.collect(); sys.exit(3)",
}

PROGRAM = """
import atexit, gc, os, sys, threading, time, warnings
import pykka
from pykka_imagestore.runtime import Actor, SerialExecutor, after, await_all, dispatch

warnings.simplefilter("ignore")
told = os.memfd_create("told")

class Busy(Actor):
    async def work(self):
        try:
            await after(0.5)
        finally:
            os.write(told, b"ended;")
    def on_stop(self):
        os.write(told, b"stopped;")

actor, executor, pending = Busy.start(), SerialExecutor("executor"), after(0.5)
pending.on_any(lambda _: os.write(told, b"fired;"))
work = [dispatch(actor, Busy.work), executor.run(time.sleep, 0.5)]
pid = os.fork()
if not pid:
    {end}
assert os.waitpid(pid, 0)[1] == 3 << 8
assert os.pread(told, 100, 0) == b"", os.pread(told, 100, 0)
await_all([*work, pending]).get(timeout=20)
assert dispatch(actor, Busy.work).get(timeout=20) is None
print("unharmed")
"""


@pytest.mark.parametrize("end", ENDS)
def test_child_that_ends_harms_nothing_of_the_parents(end):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{end}", ENDS[end])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("unharmed\n", "")


# -- get hooks, mailboxes and scheduled messages


def test_future_of_a_hook_has_failed_in_the_child_and_a_new_one_works():
    entered, leave, pending = threading.Event(), threading.Event(), Future()

    def hook(timeout):
        entered.set()
        return leave.wait(timeout)

    pending.set_get_hook(hook)
    result = pending.then(lambda value: value)
    assert entered.wait(TIMEOUT)  # a thread is in the hook, and has its lock

    def use():
        mine, plain = Future(), pykka.ThreadingFuture()
        mine.set_get_hook(lambda _: 7)
        plain.set(8)
        errors = [raised_by(lambda: pending.get(timeout=TIMEOUT)), raised_by(lambda: pending.set_get_hook(hook))]
        return errors, mine.then(lambda value: value).get(timeout=TIMEOUT), ready(1).join(plain).get(timeout=TIMEOUT)

    assert in_child(use) == "(['ForkedError', 'Full'], 7, [1, 8])"
    leave.set()
    assert result.get(timeout=TIMEOUT) is True


def test_full_mailbox_of_the_parents_refuses_at_once_in_the_child_and_a_new_one_works():
    ref, begin, entered = Counter.start(mailbox=1), Promise(), threading.Event()

    def hold(_):
        entered.set()
        return begin.future.get(timeout=TIMEOUT)

    held = dispatch(ref, hold)
    assert entered.wait(TIMEOUT)
    waiting = dispatch(ref, Counter.add, 1)
    sender = threading.Thread(target=dispatch, args=(ref, Counter.add, 2))
    sender.start()

    def use():
        mine = Counter.start(mailbox=1)
        answers = [dispatch(mine, Counter.add, 1) for _ in range(10)]
        return (
            raised_by(lambda: ref.tell(3)),
            raised_by(lambda: ref.ask(3, timeout=TIMEOUT)),
            raised_by(lambda: dispatch(ref, Counter.add, 3).get(timeout=TIMEOUT)),
            [answer.get(timeout=TIMEOUT) for answer in answers][-1],
        )

    assert in_child(use) == "('ForkedError', 'ForkedError', 'ForkedError', 10)"
    begin.set(None)
    assert [each.get(timeout=TIMEOUT) for each in (held, waiting)] == [None, 1]
    sender.join(TIMEOUT)
    ref.stop(timeout=TIMEOUT)


def test_scheduled_message_of_the_parents_is_not_the_childs(ref):
    scheduled = tell_every(ref, 0.001, 0)
    later = tell_later(ref, 3600, 0)

    def use():
        told = threading.Event()
        mine: Any = Counter.start()
        tell_every(mine, 0.001, 0)
        mine.actor_inbox.on_ended(told.set)
        tell_later(mine, 0.01, 0)
        after(0.02).then(lambda _: terminate(mine)).get(timeout=TIMEOUT)
        over = [scheduled.is_over(), scheduled.cancel(), later.cancel()]
        return over, raised_by(lambda: tell_later(ref, 1, 0)), told.wait(TIMEOUT)

    assert in_child(use) == "([True, False, False], 'ForkedError', True)"
    assert not scheduled.is_over()
    assert later.cancel()
    assert scheduled.cancel()
