from __future__ import annotations

import asyncio
import gc
import queue
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pykka
import pytest

from pykka_imagestore.runtime import (
    AbandonedError,
    Actor,
    DiscardedError,
    Future,
    Promise,
    WorkerPool,
    after,
    collect,
    defer,
    dispatch,
    gather,
    ready,
    terminate,
)


class OddError(Exception):
    pass


class Waiter(Actor):
    """Awaits what it is given, and tells what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.label = "a label"

    async def wait(self, future: Future[Any]) -> object:
        try:
            return await future
        except BaseException as error:
            self.seen.put(error)
            raise

    async def wait_then_clean_up(self, future: Future[object], cleaned: Future[object]) -> object:
        try:
            return await future
        finally:
            self.seen.put("cleans up")
            await cleaned
            self.seen.put("has cleaned up")

    async def gather(self, futures: list[Future[object]]) -> list[object]:
        return await gather(futures)

    async def add(self, first: int, second: int) -> int:
        return await self._later(first) + await self._later(second)

    async def _later(self, number: int) -> int:
        await after(0.001)
        return number

    def spawn_two(self) -> tuple[list[str], Future[list[str]]]:
        order: list[str] = []

        async def note(name: str) -> str:
            order.append(name)
            return name

        spawned = collect([self.spawn(note("first")), self.spawn(note("second"))])
        order.append("spawned")
        return order, spawned

    def get_seen(self) -> queue.SimpleQueue[object]:
        return self.seen

    async def on_receive(self, message: object) -> object:
        return await ready(("received", message))


@pytest.fixture
def ref():
    return Waiter.start()


@pytest.fixture
def seen(ref):
    return dispatch(ref, Waiter.get_seen).get(timeout=10)


# -- async methods


def test_an_async_method_may_await_coroutines_that_await_futures(ref):
    assert dispatch(ref, Waiter.add, 2, 3).get(timeout=10) == 5


def test_many_calls_of_one_async_method_are_under_way_at_once(ref):
    promises = [Promise() for _ in range(50)]
    calls = [dispatch(ref, Waiter.wait, promise.future) for promise in promises]

    for number, promise in enumerate(reversed(promises)):
        promise.set(number)

    assert collect(calls).get(timeout=10) == list(reversed(range(50)))


def test_an_async_method_goes_on_in_the_actors_thread_whoever_completes_what_it_awaits(ref):
    async def threads(_, future):
        before = threading.current_thread()
        await future
        return before, threading.current_thread()

    promise = Promise()
    call = dispatch(ref, threads, promise.future)

    threading.Thread(target=promise.set, args=(None,)).start()

    before, afterwards = call.get(timeout=10)
    assert before is afterwards
    assert before is not threading.current_thread()


def test_what_an_async_method_awaits_fails_it_with_the_whole_traceback(ref):
    def where_it_went_wrong(_):
        raise OddError

    with pytest.raises(OddError) as caught:
        dispatch(ref, Waiter.wait, after(0).then(where_it_went_wrong)).get(timeout=10)

    names = [entry.name for entry in caught.traceback]
    assert "where_it_went_wrong" in names
    assert "wait" in names


def test_an_async_method_whose_future_is_abandoned_is_told(ref):
    promise = Promise()
    call = dispatch(ref, Waiter.wait, promise.future)

    del promise

    with pytest.raises(AbandonedError):
        call.get(timeout=10)


@pytest.mark.parametrize("awaitable", [pykka.ThreadingFuture(), asyncio.sleep], ids=["plain Pykka future", "asyncio"])
def test_awaiting_what_no_actor_can_await_is_refused_with_a_sentence(ref, awaitable):
    async def wait(_):
        await (awaitable(0) if callable(awaitable) else awaitable)

    with pytest.raises(TypeError, match="an actor's async method can await runtime futures and coroutines only"):
        dispatch(ref, wait).get(timeout=10)


def test_spawn_runs_its_coroutine_later_in_the_order_of_spawning(ref):
    order, spawned = dispatch(ref, Waiter.spawn_two).get(timeout=10)

    assert spawned.get(timeout=10) == ["first", "second"]
    assert order == ["spawned", "first", "second"]


def test_dispatch_takes_any_function_of_the_actor(ref):
    assert dispatch(ref, lambda actor, suffix: actor.label + suffix, "!").get(timeout=10) == "a label!"


# -- discard of an async method


def test_discard_of_an_async_method_stops_what_it_awaits_and_raises_there_when_it_has_ended(ref, seen):
    promise = Promise()
    asked = queue.SimpleQueue()
    promise.future.on_discard(lambda: asked.put("asked"))
    call = dispatch(ref, Waiter.wait, promise.future)
    dispatch(ref, Waiter.get_seen).get(timeout=10)

    call.discard()

    assert asked.get(timeout=10) == "asked"
    assert call.is_pending()
    promise.discard()
    with pytest.raises(DiscardedError):
        call.get(timeout=10)
    assert call.is_discarded()
    assert isinstance(seen.get(timeout=10), DiscardedError)


def test_discard_of_an_async_method_leaves_alone_what_it_awaits_to_clean_up(ref, seen):
    work, cleaning = Promise(), Promise()
    work.future.on_discard(work.discard)
    call = dispatch(ref, Waiter.wait_then_clean_up, work.future, cleaning.future)
    dispatch(ref, Waiter.get_seen).get(timeout=10)

    call.discard()

    assert seen.get(timeout=10) == "cleans up"
    assert call.is_pending()
    assert not cleaning.future.has_discard()
    cleaning.set(None)
    assert call.recover(lambda future: type(future.error())).get(timeout=10) is DiscardedError
    assert seen.get(timeout=10) == "has cleaned up"


def test_discard_of_an_async_method_whose_work_ends_well_all_the_same_discards_it(ref):
    promise = Promise()
    call = dispatch(ref, Waiter.wait, promise.future)
    dispatch(ref, Waiter.get_seen).get(timeout=10)

    call.discard()
    promise.set("too late")

    assert call.recover(lambda future: type(future.error())).get(timeout=10) is DiscardedError
    assert call.is_discarded()


def test_discard_of_an_async_method_may_be_caught(ref):
    async def stand_in(_, future):
        try:
            return await future
        except DiscardedError:
            return "stood in"

    promise = Promise()
    promise.future.on_discard(promise.discard)
    call = dispatch(ref, stand_in, promise.future)

    call.discard()

    assert call.get(timeout=10) == "stood in"


def test_a_discard_nobody_asked_of_the_method_fails_it(ref):
    promise = Promise()
    call = dispatch(ref, Waiter.wait, promise.future)

    promise.discard()

    assert isinstance(call.recover(Future.error).get(timeout=10), DiscardedError)
    assert call.is_failed()


# -- gather


def test_gather_gives_all_values_in_order(ref):
    promises = [Promise() for _ in range(3)]
    call = dispatch(ref, Waiter.gather, [promise.future for promise in promises])

    for number in (2, 0, 1):
        promises[number].set(number)

    assert call.get(timeout=10) == [0, 1, 2]


def test_gather_stops_the_others_on_a_failure_and_joins_them(ref):
    failing, slow = Promise(), Promise()
    asked = queue.SimpleQueue()
    slow.future.on_discard(lambda: asked.put("asked"))
    call = dispatch(ref, Waiter.gather, [slow.future, failing.future])

    failing.fail(OddError())

    assert asked.get(timeout=10) == "asked"
    dispatch(ref, Waiter.get_seen).get(timeout=10)
    assert call.is_pending()
    slow.discard()
    with pytest.raises(OddError):
        call.get(timeout=10)


def test_gather_joins_on_a_discard_too(ref):
    slow = Promise()
    call = dispatch(ref, Waiter.gather, [slow.future, ready(1)])
    dispatch(ref, Waiter.get_seen).get(timeout=10)

    call.discard()

    dispatch(ref, Waiter.get_seen).get(timeout=10)
    assert slow.future.has_discard()
    assert call.is_pending()
    slow.set("late")
    assert call.recover(lambda future: type(future.error())).get(timeout=10) is DiscardedError


# -- the end of an actor


@pytest.mark.parametrize("end", [lambda ref: ref.stop(timeout=10), lambda ref: terminate(ref).get(timeout=10)])
def test_open_calls_fail_when_the_actor_ends_and_what_they_await_is_discarded(ref, seen, end):
    promise = Promise()
    call = dispatch(ref, Waiter.wait, promise.future)
    dispatch(ref, Waiter.get_seen).get(timeout=10)  # it waits by now

    end(ref)

    with pytest.raises(pykka.ActorDeadError):
        call.get(timeout=10)
    assert isinstance(seen.get(timeout=10), GeneratorExit)
    assert promise.future.has_discard()
    assert promise.set("nobody waits") is True


def test_gathering_calls_end_with_their_actor_without_a_word(ref, caplog):
    promise = Promise()
    call = dispatch(ref, Waiter.gather, [promise.future])

    ref.stop(timeout=10)

    with pytest.raises(pykka.ActorDeadError):
        call.get(timeout=10)
    assert caplog.text == ""


def test_an_actor_that_dies_of_a_told_message_fails_its_open_calls(ref):
    def fail(_):
        raise OddError

    call = dispatch(ref, Waiter.wait, after(60))
    dispatch(ref, lambda actor: setattr(actor, "on_receive", fail)).get(timeout=10)

    ref.tell("anything")

    with pytest.raises(pykka.ActorDeadError):
        call.get(timeout=10)


def test_spawn_in_an_actor_that_is_ending_fails_at_once(ref):
    holding, go_on, spawned = threading.Event(), threading.Event(), queue.SimpleQueue()

    async def never():
        spawned.put("ran")

    def spawn_late(actor):
        holding.set()
        assert go_on.wait(10)
        spawned.put(actor.spawn(never()))

    dispatch(ref, spawn_late)
    assert holding.wait(10)
    ended = terminate(ref)

    go_on.set()

    assert isinstance(spawned.get(timeout=10).error(), pykka.ActorDeadError)
    assert ended.get(timeout=10)
    assert spawned.empty()


def test_a_stop_that_waits_is_answered_true_although_the_actor_is_terminated(ref):
    holding, go_on = threading.Event(), threading.Event()

    def hold(_):
        holding.set()
        go_on.wait(10)

    dispatch(ref, hold)
    assert holding.wait(10)
    stopped = ref.stop(block=False)

    ended = terminate(ref)
    go_on.set()

    assert ended.get(timeout=10) is True
    assert stopped.get(timeout=10) is True
    assert ref.stop(timeout=10) is False


def test_a_linked_actor_does_not_keep_one_that_has_ended(ref):
    linker = Waiter.start()
    dispatch(linker, Waiter.link, ref).get(timeout=10)
    reference, thread = dispatch(linker, lambda actor: (weakref.ref(actor), threading.current_thread())).get(timeout=10)

    linker.stop(timeout=10)
    thread.join(10)

    gc.collect()
    assert reference() is None
    assert ref.is_alive()


# -- plain Pykka


def test_a_proxy_reads_attributes_and_calls_methods_async_ones_too(ref):
    proxy = ref.proxy()

    proxy.label = "another"

    assert proxy.label.get(timeout=10) == "another"
    assert proxy.add(4, 5).get(timeout=10) == 9
    assert isinstance(proxy.add(1, 1), Future)


def test_ask_and_tell_reach_an_async_on_receive(ref):
    ref.tell("nobody waits")

    assert ref.ask("hello", timeout=10) == ("received", "hello")
    assert ref.ask("hello", block=False).get(timeout=10) == ("received", "hello")


def test_get_and_ask_time_out_as_pykka_does_and_the_call_goes_on(ref):
    promise = Promise()
    call = dispatch(ref, Waiter.wait, promise.future)

    with pytest.raises(pykka.Timeout):
        call.get(timeout=0.001)
    with pytest.raises(pykka.Timeout):
        ref.ask(pykka.messages.ProxyCall(("wait",), (promise.future,), {}), timeout=0.001)

    promise.set("in the end")
    assert call.get(timeout=10) == "in the end"


def test_stop_without_blocking_gives_a_future_that_can_be_awaited(ref):
    other = Waiter.start()

    async def stop(_):
        return [await other.stop(block=False), await other.stop(block=False)]

    assert dispatch(ref, stop).get(timeout=10) == [True, False]


def test_actors_of_both_kinds_live_side_by_side(ref):
    class Plain(pykka.ThreadingActor):
        def on_receive(self, message):
            return message * 2

        def ask_the_other(self, other):
            return other.ask("hello", timeout=10)

    plain = Plain.start()

    assert plain.ask(21, timeout=10) == 42
    assert plain.proxy().ask_the_other(ref).get(timeout=10) == ("received", "hello")
    assert len(pykka.ActorRegistry.get_all()) == 2
    pykka.ActorRegistry.stop_all(timeout=10)
    assert not ref.is_alive()


def test_dispatch_to_a_plain_actor_is_refused_with_a_sentence():
    class Plain(pykka.ThreadingActor):
        pass

    with pytest.raises(TypeError, match=r"derive Plain from pykka_imagestore\.runtime\.Actor"):
        dispatch(Plain.start(), str)  # type: ignore[call-overload]


def test_an_async_method_can_have_a_thread_wait_for_a_plain_pykka_future(ref):
    class Plain(pykka.ThreadingActor):
        def on_receive(self, message):
            return message * 2

    plain = Plain.start()
    with ThreadPoolExecutor(1) as threads, WorkerPool(executor=threads) as pool:

        async def ask(_):
            return await pool.run(pykka.ThreadingFuture.get, plain.ask(21, block=False))  # type: ignore[arg-type]

        assert dispatch(ref, ask).get(timeout=10) == 42


def test_defer_serves_as_the_next_link_of_a_chain(ref):
    add = defer(ref, Waiter.add)

    assert ready(3).then(lambda number: add(number, number)).get(timeout=10) == 6
