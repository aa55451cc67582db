"""One test, at least, for each row of docs/runtime.md's list "Processes", quoted above the test.

What libprocess promises is in Apache Mesos, 3rdparty/libprocess/include/process/{process,dispatch,defer,delay}.hpp.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pykka
import pytest
from support import worker_functions as jobs

from pykka_imagestore.runtime import (
    Actor,
    Future,
    PoolClosedError,
    Promise,
    Semaphore,
    WorkerPool,
    after,
    collect,
    defer,
    dispatch,
    terminate,
)


class OddError(Exception):
    pass


class Notebook(Actor):
    """Notes what happens to it."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[object] = []
        self.exits: queue.SimpleQueue[object] = queue.SimpleQueue()

    def note(self, what: object) -> int:
        self.notes.append(what)
        return len(self.notes)

    def read(self) -> list[object]:
        return list(self.notes)

    def where(self) -> threading.Thread:
        return threading.current_thread()

    def give(self, future: Future[int]) -> Future[int]:
        return future

    async def wait_for(self, future: Future[int]) -> int:
        self.notes.append("waits")
        number = await future
        self.notes.append("goes on")
        return number

    def hold(self, holding: threading.Event, release: threading.Event) -> None:
        holding.set()
        assert release.wait(10)

    def fail(self) -> None:
        raise OddError("in a method")

    def exited(self, ref: pykka.ActorRef[Any]) -> None:
        self.exits.put(ref)

    def exited_so_far(self) -> int:
        return self.exits.qsize()


class Held:
    """An actor in the middle of a message, until ``release()``."""

    def __init__(self, ref: pykka.ActorRef[Notebook]) -> None:
        self._holding, self._release = threading.Event(), threading.Event()
        self.future = dispatch(ref, Notebook.hold, self._holding, self._release)
        assert self._holding.wait(10)

    def release(self) -> None:
        self._release.set()


# Row "scheduling".
def test_row_scheduling_runs_one_message_at_a_time_in_the_actors_own_thread():
    ref = Notebook.start()
    held = Held(ref)
    waiting = dispatch(ref, Notebook.note, 1)

    before = waiting.is_pending()
    held.release()

    assert before
    assert waiting.get(timeout=10) == 1
    threads = collect(dispatch(ref, Notebook.where) for _ in range(3)).get(timeout=10)
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_row_scheduling_runs_other_messages_while_an_async_method_awaits():
    ref, promise = Notebook.start(), Promise[int]()
    waiting = dispatch(ref, Notebook.wait_for, promise.future)

    dispatch(ref, Notebook.note, "between").get(timeout=10)
    promise.set(1)

    assert waiting.get(timeout=10) == 1
    assert dispatch(ref, Notebook.read).get(timeout=10) == ["waits", "between", "goes on"]


# Row "spawn(p, manage)".
def test_row_spawn_gives_each_actor_an_id_of_its_own_and_frees_it_when_it_has_ended():
    refs = [Notebook.start() for _ in range(2)]
    found = [pykka.ActorRegistry.get_by_urn(ref.actor_urn) for ref in refs]

    terminate(refs[0]).get(timeout=10)

    assert found == refs
    assert pykka.ActorRegistry.get_by_urn(refs[0].actor_urn) is None
    assert pykka.ActorRegistry.get_by_urn(refs[1].actor_urn) is refs[1]


# Row "initialize()".
def test_row_initialize_is_on_start_and_runs_before_what_is_queued():
    class Late(Notebook):
        def __init__(self, begin: threading.Event) -> None:
            super().__init__()
            self._may_begin = begin

        def on_start(self) -> None:
            assert self._may_begin.wait(10)
            self.note(("on_start", threading.current_thread()))

    begin = threading.Event()
    ref = Late.start(begin)
    dispatch(ref, Notebook.note, "queued")

    begin.set()

    thread = dispatch(ref, Notebook.where).get(timeout=10)
    assert dispatch(ref, Notebook.read).get(timeout=10) == [("on_start", thread), "queued"]


# Row "dispatch(pid, method, args)".
def test_row_dispatch_is_asynchronous_even_to_self_and_first_come_first_served():
    class Selfish(Notebook):
        def note_later(self) -> Future[int]:
            later = dispatch(self.actor_ref, Selfish.note, "later")
            self.note("now")
            return later

    ref = Selfish.start()
    dispatch(ref, Selfish.note_later).get(timeout=10)
    collect(dispatch(ref, Notebook.note, number) for number in range(100)).get(timeout=10)

    notes = dispatch(ref, Notebook.read).get(timeout=10)

    assert notes == ["now", "later", *range(100)]


def test_row_dispatch_flattens_a_future_that_the_method_returns():
    ref, promise = Notebook.start(), Promise[int]()
    flat = dispatch(ref, Notebook.give, promise.future)

    promise.set(4)

    assert flat.get(timeout=10) == 4
    assert ref.proxy().give(promise.future).get(timeout=10) == 4


# Row "discard across dispatch".
def test_row_discard_across_dispatch_does_not_skip_the_method_and_is_passed_on_to_its_future():
    ref, promise = Notebook.start(), Promise[int]()
    promise.future.on_discard(promise.discard)
    held = Held(ref)
    noted, given = dispatch(ref, Notebook.note, "ran"), dispatch(ref, Notebook.give, promise.future)

    discards = [noted.discard(), given.discard()]
    passed_on_before = promise.future.has_discard()
    held.release()

    assert discards == [True, True]
    assert noted.get(timeout=10) == 1  # a plain value arrives as ready
    assert not passed_on_before
    given.recover(lambda _: 0).get(timeout=10)
    assert promise.future.is_discarded()


# Row "dispatch to a dead or unknown pid".
def test_row_dispatch_to_a_dead_actor_fails_with_actor_dead_error():
    ref = Notebook.start()
    terminate(ref).get(timeout=10)

    future = dispatch(ref, Notebook.note, "nobody there")

    assert future.is_failed()
    assert isinstance(future.error(), pykka.ActorDeadError)


def test_row_dispatch_to_an_actor_that_ends_meanwhile_is_answered_too():
    ref = Notebook.start()
    start, futures = threading.Barrier(5), queue.SimpleQueue()

    def ask_much() -> None:
        start.wait(10)
        for number in range(200):
            futures.put(dispatch(ref, Notebook.note, number))

    with ThreadPoolExecutor(4) as executor:
        asking = [executor.submit(ask_much) for _ in range(4)]
        start.wait(10)
        ref.stop(timeout=10)
        for each in asking:
            each.result(10)

    for _ in range(800):
        outcome = futures.get_nowait().recover(lambda future: type(future.error())).get(timeout=10)
        assert isinstance(outcome, int) or outcome is pykka.ActorDeadError


# Row "defer(pid, f)".
def test_row_defer_dispatches_from_any_thread():
    ref, promise = Notebook.start(), Promise[int]()
    note = defer(ref, Notebook.note)

    result = promise.future.then(note)
    threading.Thread(target=promise.set, args=(12,)).start()

    assert result.get(timeout=10) == 1
    assert dispatch(ref, Notebook.read).get(timeout=10) == [12]
    terminate(ref).get(timeout=10)
    assert isinstance(note(13).error(), pykka.ActorDeadError)


# Row "method throws".
@pytest.mark.parametrize("is_async", [False, True])
def test_row_method_that_throws_fails_the_callers_future_and_the_actor_lives_on(is_async):
    async def fail_too(actor: Notebook) -> None:
        actor.fail()

    ref = Notebook.start()

    future = dispatch(ref, fail_too if is_async else Notebook.fail)

    with pytest.raises(OddError, match="in a method"):
        future.get(timeout=10)
    assert dispatch(ref, Notebook.note, "alive").get(timeout=10) == 1


# Row "terminate(pid, inject=true)".
def test_row_terminate_finishes_the_current_message_and_refuses_what_is_queued():
    ref = Notebook.start()
    held = Held(ref)
    queued = dispatch(ref, Notebook.note, "queued")

    ended = terminate(ref)
    late = dispatch(ref, Notebook.note, "late")
    refused_before_the_end = [future.is_failed() for future in (queued, late)]
    held.release()

    assert refused_before_the_end == [True, True]
    assert isinstance(queued.error(), pykka.ActorDeadError)
    assert ended.get(timeout=10) is True
    assert held.future.get(timeout=10) is None


def test_row_terminate_without_inject_is_pykkas_stop_and_serves_what_is_queued():
    ref = Notebook.start()
    held = Held(ref)
    queued, stopped, late = dispatch(ref, Notebook.note, 1), ref.stop(block=False), dispatch(ref, Notebook.note, 2)

    held.release()

    assert queued.get(timeout=10) == 1
    assert stopped.get(timeout=10) is True
    assert isinstance(late.recover(Future.error).get(timeout=10), pykka.ActorDeadError)


# Row "finalize()".
def test_row_finalize_is_on_stop_and_runs_in_the_actor_after_the_last_message():
    finalized = queue.SimpleQueue()

    class Finalizing(Notebook):
        def on_stop(self) -> None:
            finalized.put((self.read(), threading.current_thread()))

    ref = Finalizing.start()
    thread = dispatch(ref, Notebook.where).get(timeout=10)
    dispatch(ref, Notebook.note, "last")

    ref.stop(timeout=10)

    assert finalized.get(timeout=10) == (["last"], thread)


# Row "wait(pid[, d])".
def test_row_wait_is_the_future_of_terminate_ready_when_all_is_cleaned_up():
    ref, linker = Notebook.start(), Notebook.start()
    dispatch(linker, Notebook.link, ref).get(timeout=10)
    held = Held(ref)
    ended = terminate(ref)
    with pytest.raises(pykka.Timeout):
        ended.get(timeout=0.001)

    held.release()

    assert ended.get(timeout=10) is True
    assert dispatch(linker, Notebook.exited_so_far).get(timeout=10) == 1
    assert terminate(ref).get(timeout=0) is False


# Row "destructor idiom".
def test_row_destructor_idiom_is_a_context_manager():
    with WorkerPool(1) as pool:
        running = pool.run(time.sleep, 60)

    assert isinstance(running.error(), PoolClosedError)


# Row "link(pid) / exited(pid)".
def test_row_link_tells_each_linker_exactly_once_also_when_the_target_is_dead():
    target, early, late = (Notebook.start() for _ in range(3))
    for _ in range(2):  # a second link to a living actor is the same link
        dispatch(early, Notebook.link, target).get(timeout=10)

    terminate(target).get(timeout=10)
    dispatch(late, Notebook.link, target).get(timeout=10)

    for linker in (early, late):
        assert dispatch(linker, Notebook.exited_so_far).get(timeout=10) == 1
        assert dispatch(linker, lambda actor: actor.exits.get_nowait()).get(timeout=10) is target


def test_row_link_tells_of_an_actor_that_died_of_an_exception():
    target, linker = Notebook.start(), Notebook.start()
    exits = dispatch(linker, lambda actor: actor.exits).get(timeout=10)
    dispatch(linker, Notebook.link, target).get(timeout=10)

    target.proxy().fail.defer()

    assert exits.get(timeout=10) is target


def test_row_link_to_an_actor_that_cannot_tell_of_its_end_is_refused():
    class Plain(pykka.ThreadingActor):
        pass

    linker = Notebook.start()

    refused = dispatch(linker, Notebook.link, Plain.start())

    with pytest.raises(TypeError, match=r"derive Plain from pykka_imagestore\.runtime\.Actor"):
        refused.get(timeout=10)


# Row "delay(d, pid, m)".
def test_row_delay_is_after_then_dispatch_and_can_be_cancelled():
    ref = Notebook.start()
    delayed = after(0.001).then(lambda _: dispatch(ref, Notebook.note, "delayed"))
    cancelled = after(60).then(lambda _: dispatch(ref, Notebook.note, "never"))

    cancelled.discard()

    assert delayed.get(timeout=10) == 1
    assert cancelled.is_discarded()
    assert dispatch(ref, Notebook.read).get(timeout=10) == ["delayed"]


# Row "Executor".
def test_row_executor_is_a_pool_with_one_thread_and_runs_functions_one_after_the_other():
    events = [(threading.Event(), threading.Event()) for _ in range(2)]
    with ThreadPoolExecutor(1) as thread, WorkerPool(executor=thread) as serial:
        first, second = (serial.run(jobs.set_and_wait, pair) for pair in events)
        assert events[0][0].wait(10)

        began_together = events[1][0].is_set()
        for _, go_on in events:
            go_on.set()

        assert [first.get(timeout=10), second.get(timeout=10)] == ["done", "done"]
        assert not began_together


# Row "async(f)".
def test_row_async_is_a_pool_with_threads_and_runs_functions_at_the_same_time():
    barrier = threading.Barrier(3)
    with ThreadPoolExecutor(2) as threads, WorkerPool(executor=threads) as parallel:
        both = collect(parallel.run(threading.Barrier.wait, barrier) for _ in range(2))

        barrier.wait(10)

        assert sorted(both.get(timeout=10)) != []


# Row "Mutex".
def test_row_mutex_is_a_semaphore_that_admits_one_at_a_time_and_acquire_is_a_future():
    semaphore = Semaphore()

    first, second, third = (semaphore.acquire() for _ in range(3))

    assert (first.is_ready(), second.is_pending(), third.is_pending()) == (True, True, True)
    semaphore.release()
    assert (second.is_ready(), third.is_pending()) == (True, True)
    semaphore.release()
    assert third.is_ready()
