"""Futures that are made of a long-lived one leave nothing on it; those that are still observed stay."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.runtime import (
    Actor,
    Promise,
    await_all,
    collect,
    dispatch,
    ready,
    select,
    terminate,
    undiscardable,
)


@pytest.fixture
def stop():
    return Promise()


def kept(promise):
    return len(promise.future._callbacks)


# -- by hand


def test_callback_that_is_withdrawn_is_neither_called_nor_kept(stop):
    class Listener:
        def hear(self, future):
            heard.append(future)

    heard, listener = [], Listener()
    reference = weakref.ref(listener)
    withdraw = stop.future.watch(listener.hear)
    stop.future.watch(heard.append)
    del listener

    assert withdraw() is True

    assert reference() is None
    assert withdraw() is False
    stop.set(1)
    assert heard == [stop.future]


def test_watch_of_a_final_future_calls_at_once_and_has_nothing_to_withdraw():
    heard, future = [], ready(1)

    withdraw = future.watch(heard.append)

    assert heard == [future]
    assert withdraw() is False


def test_withdrawing_does_not_keep_the_future():
    promise = Promise()
    withdraw, reference = promise.future.watch(lambda _: None), weakref.ref(promise.future)

    del promise

    assert reference() is None
    assert withdraw() is False


def test_callbacks_keep_their_order_when_others_are_withdrawn(stop):
    heard = []
    withdrawals = [stop.future.watch(lambda _, number=number: heard.append(number)) for number in range(6)]
    stop.future.on_ready(lambda _: heard.append("ready"))

    for number in (4, 0, 3):
        withdrawals[number]()
    stop.set(1)

    assert heard == ["ready", 1, 2, 5]


# -- by itself, once the result is final


def test_select_withdraws_from_the_others_when_it_has_its_value(stop):
    for number in range(100):
        later = Promise()
        first = select([stop.future, later.future])
        later.set(number)
        assert first.get(timeout=0) == number
        assert select([stop.future, ready(number)]).get(timeout=0) == number

    assert kept(stop) == 0


def test_collect_and_await_all_withdraw_when_they_are_final(stop):
    later = Promise()
    failing, discarded = collect([stop.future, later.future]), await_all([undiscardable(stop.future)])

    later.fail(LookupError())
    discarded.discard()

    assert failing.is_failed()
    assert discarded.is_discarded()
    del discarded
    assert kept(stop) == 0


def test_after_withdraws_when_it_has_expired(stop):
    for _ in range(50):
        assert stop.future.after(0, lambda _: "late").get(timeout=TIMEOUT) == "late"

    assert kept(stop) == 0


@pytest.mark.parametrize("end", [lambda promise: promise.set(1), lambda promise: promise.fail(LookupError()), None])
def test_what_is_chained_leaves_nothing_when_its_result_is_final(stop, end):
    class Function:
        def __call__(self, value):
            return value

    functions = [Function() for _ in range(3)]
    references = [weakref.ref(function) for function in functions]
    results = [chain(function) for chain, function in zip(chains(stop.future), functions, strict=True)]
    del functions
    stop.future.on_discard(stop.discard)
    assert kept(stop) == 3

    if end is None:
        results[0].discard()  # asks that of `stop`, which answers
    else:
        end(stop)

    assert all(result.done() for result in results)
    assert kept(stop) == 0
    assert [reference() for reference in references] == [None, None, None]


def chains(future):
    return future.then, future.repair, future.recover


def test_asyncio_task_that_is_cancelled_or_times_out_withdraws(stop):
    async def wait():
        for _ in range(10):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(forever(), 0.001)

    async def forever():
        return await undiscardable(stop.future)

    asyncio.run(wait())
    gc.collect()  # asyncio's own tracebacks

    assert kept(stop) == 0


def test_actors_that_have_ended_wait_for_nothing(stop):
    class Waiting(Actor):
        async def wait(self, future):
            return await future

        def echo(self):
            pass

    ref = Waiting.start()
    waiting = [dispatch(ref, Waiting.wait, stop.future) for _ in range(10)]
    dispatch(ref, Waiting.echo).get(timeout=TIMEOUT)
    assert kept(stop) == 10

    terminate(ref).get(timeout=TIMEOUT)

    assert all(future.is_failed() for future in waiting)
    assert kept(stop) == 0


# -- by itself, once the result is dropped


def test_result_that_is_dropped_unobserved_is_withdrawn(stop):
    for make in (undiscardable, lambda future: select([future]), lambda future: collect([future, Promise().future])):
        make(stop.future)

        assert kept(stop) == 0


def test_future_bound_to_it_is_withdrawn_when_it_is_dropped(stop):
    class Giving(Actor):
        def give(self):
            return stop.future

        async def give_later(self):
            return stop.future

    ref = Giving.start()
    for method in (Giving.give, Giving.give_later):
        answers = [dispatch(ref, method) for _ in range(10)]
        dispatch(ref, lambda _: None).get(timeout=TIMEOUT)
        assert kept(stop) == 10
        del answers
        assert kept(stop) == 0
    ready(1).then(lambda _: stop.future)
    assert kept(stop) == 0


def test_future_bound_to_it_calls_observers_from_before_and_after(stop):
    told, begin = [], Promise()
    begin.future.then(lambda _: stop.future).on_any(lambda _: told.append("before"))
    begin.set(None)
    ready(1).then(lambda _: stop.future).on_any(lambda _: told.append("after"))
    gc.collect()

    stop.set(1)

    assert told == ["before", "after"]


def test_result_that_is_dropped_but_observed_still_calls_its_observers(stop):
    told = []
    undiscardable(stop.future).on_any(lambda _: told.append("undiscardable"))
    select([stop.future]).then(lambda _: told.append("select"))
    collect([stop.future]).on_ready(lambda _: told.append("collect"))
    undiscardable(undiscardable(undiscardable(stop.future))).then(lambda _: told.append("nested"))
    gc.collect()
    assert kept(stop) == 4

    stop.set(1)

    assert told == ["undiscardable", "select", "collect", "nested"]


def test_result_is_withdrawn_with_its_last_observer(stop):
    withdrawals = [undiscardable(undiscardable(stop.future)).watch(print) for _ in range(3)]
    assert kept(stop) == 3

    for withdraw in withdrawals:
        withdraw()

    assert kept(stop) == 0


def test_select_among_derived_futures_leaves_nothing_on_their_source(stop):
    for _ in range(50):
        assert select([undiscardable(stop.future), ready("first")]).get(timeout=0) == "first"

    assert kept(stop) == 0


def test_result_that_is_kept_gets_its_outcome(stop):
    result, combined = undiscardable(stop.future), collect([stop.future, stop.future])

    stop.set(1)

    assert result.get(timeout=0) == 1
    assert combined.get(timeout=0) == [1, 1]


def test_the_function_of_then_runs_although_its_result_was_dropped(stop):
    told = []
    stop.future.then(told.append)

    stop.set("told")

    assert told == ["told"]
