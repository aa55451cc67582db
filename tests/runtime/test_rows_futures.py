"""One test, at least, for each row of docs/runtime.md's list "Futures and promises", quoted above the test.

What libprocess promises is in Apache Mesos, 3rdparty/libprocess/include/process/{future,collect,after,loop}.hpp.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pykka
import pytest

from pykka_imagestore.runtime import (
    AbandonedError,
    DiscardedError,
    Future,
    Promise,
    after,
    await_all,
    collect,
    failed,
    ready,
    select,
    undiscardable,
)


class OddError(Exception):
    pass


def discarded() -> Future[int]:
    promise: Promise[int] = Promise()
    promise.discard()
    return promise.future


def abandoned() -> Future[int]:
    return Promise[int]().future


def in_another_thread(function: Callable[[], object]) -> threading.Thread:
    """Run ``function`` to its end in another thread; return that thread."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    return thread


# Row "states".
def test_row_states_are_pending_ready_failed_or_discarded_and_a_final_one_never_changes():
    def states(future):
        return [future.is_pending(), future.is_ready(), future.is_failed(), future.is_discarded()]

    for future, state in [(ready(1), 1), (failed(OddError()), 2), (discarded(), 3)]:
        expected = [index == state for index in range(4)]

        future.discard()

        assert states(future) == expected
        assert future.done()
    promise: Promise[int] = Promise()
    promise.future.discard()
    assert states(promise.future) == [True, False, False, False]
    error: Any = OddError("only the first counts")
    for final in (promise.set, promise.fail, lambda _: promise.discard()):
        final(error)
    assert states(promise.future) == [False, True, False, False]


# Row "Promise / Future".
def test_row_promise_is_the_write_side_and_future_the_read_side():
    promise: Promise[int] = Promise()
    reader = promise.future

    promise.set(3)

    assert reader is promise.future
    assert reader.get(timeout=0) == 3
    assert isinstance(reader, pykka.ThreadingFuture)


# Row "Promise::set/fail".
def test_row_set_and_fail_return_false_once_the_future_is_final_or_associated():
    final, associated, source = Promise[int](), Promise[int](), Promise[int]()
    final.set(1)
    associated.associate(source.future)

    answers = [final.set(2), final.fail(OddError()), associated.set(2), associated.fail(OddError())]

    assert answers == [False, False, False, False]
    assert final.future.get(timeout=0) == 1
    assert associated.future.is_pending()


# Row "Failure".
def test_row_failure_is_an_exception_that_travels_with_its_traceback():
    def where_it_went_wrong(_):
        raise OddError("here")

    future = ready(1).then(where_it_went_wrong)

    with pytest.raises(OddError, match="here") as caught:
        future.get(timeout=0)
    assert "where_it_went_wrong" in [entry.name for entry in caught.traceback]


# Row "Future::discard()".
def test_row_discard_is_a_request_made_once_whose_callbacks_run_in_the_callers_thread():
    promise: Promise[int] = Promise()
    seen: list[object] = []
    promise.future.on_discard(lambda: seen.append(threading.current_thread()))

    thread = in_another_thread(lambda: seen.append(promise.future.discard()))

    assert seen == [thread, True]
    assert promise.future.is_pending()
    assert promise.future.discard() is False
    assert ready(1).discard() is False


# Row "hasDiscard()".
def test_row_has_discard_is_true_after_the_request_also_after_completion():
    promise: Promise[int] = Promise()
    before = promise.future.has_discard()

    promise.future.discard()

    assert [before, promise.future.has_discard()] == [False, True]
    promise.set(1)
    assert promise.future.has_discard()
    assert promise.future.get(timeout=0) == 1


# Row "Promise::discard()".
def test_row_promise_discard_makes_the_future_discarded_and_runs_on_discarded_then_on_any():
    promise: Promise[int] = Promise()
    seen: list[object] = []
    promise.future.on_any(seen.append).on_discarded(lambda: seen.append("discarded"))
    associated, source = Promise[int](), Promise[int]()
    associated.associate(source.future)

    answer = promise.discard()

    assert answer is True
    assert promise.future.is_discarded()
    assert seen == ["discarded", promise.future]
    assert associated.discard() is False


# Row "Promise::associate(f)".
def test_row_associate_binds_once_passing_discards_to_the_source_and_results_back():
    promise, source, other = Promise[int](), Promise[int](), Promise[int]()
    answers = [promise.associate(source.future), promise.associate(other.future)]

    promise.future.discard()

    assert answers == [True, False]
    assert [source.future.has_discard(), other.future.has_discard()] == [True, False]
    assert promise.future.is_pending()
    source.discard()
    assert promise.future.is_discarded()


@pytest.mark.parametrize("outcome", [ready(1), failed(OddError()), discarded()], ids=repr)
def test_row_associate_copies_each_outcome(outcome):
    promise: Promise[int] = Promise()

    promise.associate(outcome)

    assert repr(promise.future) == repr(outcome)
    assert promise.future.error() is outcome.error()


def test_row_associate_passes_on_a_discard_requested_before():
    promise, source = Promise[int](), Promise[int]()
    promise.future.discard()

    promise.associate(source.future)

    assert source.future.has_discard()


# Row "abandoned".
def test_row_abandoned_future_fails_in_the_thread_that_drops_its_promise():
    promises: list[Promise[int]] = [Promise()]
    future = promises[0].future
    seen: list[object] = []
    future.on_abandoned(lambda: seen.append(threading.current_thread()))

    thread = in_another_thread(promises.clear)

    assert seen == [thread]
    assert future.is_abandoned()
    assert future.is_failed()
    with pytest.raises(AbandonedError):
        future.get(timeout=0)


def test_row_abandoned_flows_through_then_repair_after_and_associate():
    source: list[Promise[int]] = [Promise()]
    associated: Promise[int] = Promise()
    associated.associate(source[0].future)
    futures = [
        source[0].future.then(lambda number: number),
        source[0].future.repair(lambda _: 0),
        source[0].future.after(60, lambda _: 0),
        associated.future,
    ]

    source.clear()

    assert [future.is_abandoned() for future in futures] == [True] * 4


def test_row_abandoned_flows_through_a_chain_whose_first_future_is_dropped():
    promise: Promise[int] = Promise()
    end = promise.future.then(lambda number: number).then(lambda number: number)

    del promise

    assert end.is_abandoned()


# Row "onReady/onFailed/onDiscarded/onAny".
def test_row_callbacks_run_by_the_setter_in_their_order_the_specific_list_before_on_any():
    promise: Promise[str] = Promise()
    seen: list[object] = []
    future = promise.future.on_any(lambda f: seen.append(("any", f.get(timeout=0))))
    future.on_ready(lambda value: seen.append(("first", value)))
    future.on_ready(lambda value: seen.append(("second", value)))
    future.on_failed(seen.append).on_discarded(lambda: seen.append("discarded"))
    future.on_any(lambda _: seen.append(threading.current_thread()))

    thread = in_another_thread(lambda: promise.set("value"))

    assert seen == [("first", "value"), ("second", "value"), ("any", "value"), thread]


@pytest.mark.parametrize(
    ("future", "expected"),
    [(ready(1), ["ready", "any"]), (failed(OddError()), ["failed", "any"]), (discarded(), ["discarded", "any"])],
    ids=repr,
)
def test_row_callbacks_run_at_once_in_the_registering_thread_if_the_future_is_final(future, expected):
    seen = []

    def saw(what):
        return lambda *_: seen.append((what, threading.current_thread()))

    chained = future.on_ready(saw("ready")).on_failed(saw("failed")).on_discarded(saw("discarded")).on_any(saw("any"))

    assert chained is future
    assert seen == [(what, threading.current_thread()) for what in expected]


def test_row_callbacks_run_at_once_inside_a_callback_too():
    inside = []
    ready(1).on_ready(lambda number: inside.append(ready(number).then(lambda one: one + 1).get(timeout=0)))

    assert inside == [2]


def test_row_callbacks_are_forgotten_afterwards():
    promise: Promise[int] = Promise()
    calls = []

    def callback(*_):
        calls.append(1)

    promise.future.on_any(callback).on_discard(callback)
    reference = weakref.ref(callback)
    del callback

    promise.set(1)
    promise.set(2)
    promise.future.discard()

    assert calls == [1]
    assert reference() is None


# Row "onDiscard".
def test_row_on_discard_runs_at_once_if_requested_already_and_never_after_completion():
    requested, completed = Promise[int](), Promise[int]()
    seen = []
    requested.future.discard()

    requested.future.on_discard(lambda: seen.append("at once"))
    completed.future.on_discard(lambda: seen.append("never"))
    completed.set(1)
    completed.future.discard()
    completed.future.on_discard(lambda: seen.append("never"))

    assert seen == ["at once"]


# Row "then(f)".
def test_row_then_wraps_a_plain_result_and_associates_a_future():
    inner: Promise[str] = Promise()
    plain = ready(2).then(lambda number: number + 1)
    flat = ready(2).then(lambda _: inner.future)

    flat.discard()

    assert plain.get(timeout=0) == 3
    assert inner.future.has_discard()
    inner.set("inner")
    assert flat.get(timeout=0) == "inner"


@pytest.mark.parametrize("discard_which", ["source", "result"])
def test_row_then_skips_its_function_when_a_discard_was_requested(discard_which):
    promise: Promise[int] = Promise()
    calls: list[int] = []
    result = promise.future.then(calls.append)
    (promise.future if discard_which == "source" else result).discard()

    promise.set(1)

    assert promise.future.is_ready()
    assert result.is_discarded()
    assert calls == []


@pytest.mark.parametrize("source", [failed(OddError()), discarded()], ids=repr)
def test_row_then_passes_failure_and_discard_through_untouched(source):
    calls: list[int] = []

    result = source.then(calls.append)

    assert repr(result) == repr(source)
    assert result.error() is source.error()
    assert calls == []


def test_row_then_discards_its_source_through_a_weak_reference():
    source: Future[int] = Future()
    result = source.then(lambda number: number)
    result.discard()
    passed_on, reference = source.has_discard(), weakref.ref(source)

    del source

    assert passed_on
    assert reference() is None
    assert result.is_abandoned()


# Row "then vs onAny".
def test_row_then_makes_the_next_link_while_on_any_observes_and_returns_the_same_future():
    promise: Promise[int] = Promise()
    seen = []

    result = promise.future.then(lambda number: number + 1)
    same = result.on_any(lambda future: seen.append(future.get(timeout=0)) or "ignored")
    promise.set(1)

    assert same is result
    assert result is not promise.future
    assert [seen, result.get(timeout=0)] == [[2], 2]


# Row "who runs then".
def test_row_then_runs_in_the_registering_thread_if_final_else_in_the_setters():
    promise: Promise[int] = Promise()
    by_setter = promise.future.then(lambda _: threading.current_thread())
    at_once = ready(1).then(lambda _: threading.current_thread())

    setter = in_another_thread(lambda: promise.set(1))

    assert at_once.get(timeout=0) is threading.current_thread()
    assert by_setter.get(timeout=0) is setter


def test_row_then_runs_its_function_once_and_before_anybody_asks():
    calls = []
    mapped = ready(1).map(lambda number: calls.append(number) or failed(OddError()))

    for _ in range(2):
        with pytest.raises(OddError):
            mapped.get(timeout=0)

    assert calls == [1]


# Row "callback throws".
def test_row_callback_that_raises_is_logged_and_affects_no_other(caplog):
    promise: Promise[int] = Promise()
    seen: list[object] = []
    promise.future.on_ready(lambda _: 1 / 0).on_ready(seen.append).on_any(lambda _: seen.append("any"))

    promise.set(5)

    assert seen == [5, "any"]
    assert promise.future.get(timeout=0) == 5
    assert "ZeroDivisionError" in caplog.text


# Row "repair(f)".
def test_row_repair_replaces_a_failure_alone():
    finals: tuple[Future[Any], ...] = (failed(OddError("it")), ready("value"), discarded(), abandoned())
    repaired = [future.repair(lambda failed_future: repr(failed_future.error())) for future in finals]

    assert [future.get(timeout=0) for future in repaired[:2]] == ["OddError('it')", "value"]
    assert repaired[2].is_discarded()
    assert repaired[3].is_abandoned()


# Row "recover(f)".
def test_row_recover_replaces_failure_discard_and_abandonment():
    recovered = [
        future.recover(lambda source: type(source.error()))
        for future in (failed(OddError()), discarded(), abandoned(), ready("value"))
    ]

    assert [future.get(timeout=0) for future in recovered] == [OddError, DiscardedError, AbandonedError, "value"]


def test_row_recover_forgets_the_discard_so_that_the_replacement_is_not_discarded_at_once():
    promise, replacement = Promise[int](), Promise[int]()
    promise.future.on_discard(promise.discard)
    result = promise.future.recover(lambda _: replacement.future)

    result.discard()

    assert promise.future.is_discarded()
    assert not result.has_discard()
    assert not replacement.future.has_discard()
    assert result.discard() is True
    assert replacement.future.has_discard()


# Row "after(d, f)".
def test_row_after_takes_the_functions_result_if_pending_and_leaves_the_original_alone():
    promise: Promise[str] = Promise()

    result = promise.future.after(0.001, lambda source: f"instead of {source!r}")

    assert result.get(timeout=10) == "instead of <Future pending>"
    assert promise.future.is_pending()
    assert not promise.future.has_discard()
    promise.set("late")
    assert result.get(timeout=0) == "instead of <Future pending>"


def test_row_after_passes_an_early_outcome_and_cancels_its_timer():
    promise: Promise[str] = Promise()

    def never_called(_):
        raise AssertionError

    result = promise.future.after(60, never_called)
    reference = weakref.ref(never_called)
    del never_called

    promise.set("early")

    assert result.get(timeout=0) == "early"
    assert reference() is None


def test_row_after_passes_a_discard_on_and_runs_its_function_all_the_same():
    promise: Promise[str] = Promise()
    result = promise.future.after(0.3, lambda _: "expired")

    result.discard()

    assert promise.future.has_discard()
    assert result.get(timeout=10) == "expired"


# Row "after(d)".
def test_row_after_alone_is_ready_in_time_and_a_discard_cancels_the_timer():
    later = after(60)

    later.discard()

    assert later.is_discarded()
    assert after(0.001).get(timeout=10) is None


# Row "await(d) / get()".
def test_row_get_blocks_raises_what_failed_and_leaves_the_future_alone_when_it_times_out():
    promise: Promise[int] = Promise()
    with pytest.raises(pykka.Timeout):
        promise.future.get(timeout=0.001)
    with pytest.raises(DiscardedError):
        discarded().get(timeout=0)
    getting = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        got = executor.submit(lambda: getting.set() or promise.future.get(timeout=10))
        assert getting.wait(10)

        promise.set(7)

        assert got.result(10) == 7


# Row "collect(v)".
def test_row_collect_gives_values_in_input_order_and_nothing_of_nothing_at_once():
    promises: list[Promise[int]] = [Promise() for _ in range(3)]
    result = collect(promise.future for promise in promises)

    for number in (2, 0, 1):
        assert result.is_pending()
        promises[number].set(number)

    assert result.get(timeout=0) == [0, 1, 2]
    assert collect([]).get(timeout=0) == []


@pytest.mark.parametrize("outcome", [failed(OddError()), discarded()], ids=repr)
def test_row_collect_fails_with_the_first_failure_or_discard_and_leaves_the_others_alone(outcome):
    other: Promise[int] = Promise()

    result = collect([other.future, outcome])

    assert result.is_failed()
    assert result.error() is outcome.error()
    assert other.future.is_pending()
    assert not other.future.has_discard()


def test_row_collect_discards_every_input_then_its_result_without_waiting():
    stubborn, willing = Promise[int](), Promise[int]()
    willing.future.on_discard(willing.discard)
    result = collect([willing.future, stubborn.future])

    result.discard()

    assert result.is_discarded()
    assert willing.future.is_discarded()
    assert stubborn.future.is_pending()
    assert stubborn.future.has_discard()


# Row "await(v)".
def test_row_await_all_waits_for_all_whatever_their_outcome():
    last: Promise[int] = Promise()
    inputs = [failed(OddError()), discarded(), ready(1), last.future]
    result = await_all(inputs)

    before = result.is_pending()
    last.set(1)

    assert before
    assert result.get(timeout=0) == inputs
    assert await_all([]).get(timeout=0) == []


def test_row_await_all_discards_as_collect_does():
    willing: Promise[int] = Promise()
    willing.future.on_discard(willing.discard)
    result = await_all([willing.future])

    result.discard()

    assert willing.future.is_discarded()
    assert result.is_discarded()


# Row "select(set)".
def test_row_select_gives_the_first_that_is_ready_and_ignores_what_failed_or_was_discarded():
    slow, fast = Promise[str](), Promise[str]()
    result = select([failed(OddError()), discarded(), slow.future, fast.future])

    before = result.is_pending()
    fast.set("fast")
    slow.set("slow")

    assert before
    assert result.get(timeout=0) == "fast"


def test_row_select_is_abandoned_when_none_is_left_that_could_become_ready():
    assert select([failed(OddError()), discarded()]).is_abandoned()


def test_row_select_discards_its_inputs():
    willing, stubborn = Promise[int](), Promise[int]()
    willing.future.on_discard(lambda: willing.set(1))
    result = select([willing.future, stubborn.future])

    result.discard()

    assert stubborn.future.has_discard()
    assert result.is_discarded()


# Row "undiscardable(f)".
def test_row_undiscardable_copies_the_outcome_but_keeps_a_discard_to_itself():
    promise: Promise[int] = Promise()
    seen = []
    result = undiscardable(promise.future).on_discard(lambda: seen.append("on_discard"))

    result.discard()

    assert result.has_discard()
    assert seen == ["on_discard"]
    assert not promise.future.has_discard()
    promise.set(9)
    assert result.get(timeout=0) == 9


# Row "asyncio".
def test_row_asyncio_await_suspends_that_task_alone():
    async def main():
        promise: Promise[int] = Promise()

        async def answer():
            promise.set(6)

        async def wait():
            return await promise.future

        waiting = asyncio.create_task(wait())
        answering = asyncio.create_task(answer())  # runs only if the other has not blocked the loop
        await answering
        return await waiting

    assert asyncio.run(asyncio.wait_for(main(), 10)) == 6
