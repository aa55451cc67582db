from __future__ import annotations

import concurrent.futures
import gc
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pykka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.runtime import (
    Future,
    Promise,
    await_all,
    collect,
    discard_all,
    failed,
    ready,
    select,
)
from pykka_imagestore.runtime.completable import Completable


class OddError(Exception):
    pass


# -- long chains


def test_a_chain_of_5000_thens_does_not_overflow_the_stack():
    promise: Promise[int] = Promise()
    end = promise.future
    for _ in range(5000):
        end = end.then(lambda number: number + 1)

    promise.set(0)

    assert end.get(timeout=0) == 5000


def test_a_discard_and_an_abandonment_go_through_a_chain_of_5000_thens():
    promise: Promise[int] = Promise()
    chain = [promise.future]
    for _ in range(5000):
        chain.append(chain[-1].then(lambda number: number))

    chain[-1].discard()
    del promise

    assert all(future.has_discard() for future in chain)
    assert chain[-1].is_abandoned()


def test_5000_futures_in_futures_do_not_overflow_the_stack():
    def count_down(number):
        return ready(number).then(lambda number: count_down(number - 1) if number else "done")

    innermost: Promise[str] = Promise()
    outermost = innermost.future
    for _ in range(5000):
        outermost = ready(outermost).then(lambda inner: inner)

    innermost.set("inside")

    assert outermost.get(timeout=0) == "inside"
    assert count_down(5000).get(timeout=0) == "done"


# -- Pykka


def test_every_method_of_pykkas_futures_is_replaced():
    public = {
        name for kind in (pykka.Future, pykka.ThreadingFuture) for name in vars(kind) if callable(vars(kind)[name])
    }

    ours = vars(Future).keys() | vars(Completable).keys()
    assert {name for name in public if not name.startswith("_")} <= ours
    assert {"__init__", "__repr__", "__await__"} <= ours


def test_get_all_of_pykka_takes_our_futures():
    assert pykka.get_all([ready(1), ready(2)], timeout=10) == [1, 2]


# -- threads


def test_of_many_threads_that_set_one_wins():
    for _ in range(50):
        promise, barrier, answers = Promise(), threading.Barrier(4), queue.SimpleQueue()

        def set_it(number, promise=promise, barrier=barrier, answers=answers):
            barrier.wait(10)
            answers.put((promise.set(number), number))

        with ThreadPoolExecutor(4) as threads:
            for number in range(4):
                threads.submit(set_it, number)

        winners = [number for won, number in (answers.get(timeout=10) for _ in range(4)) if won]
        assert winners == [promise.future.get(timeout=0)]


def test_callbacks_registered_while_the_future_completes_each_run_once():
    for _ in range(50):
        promise, barrier, calls = Promise(), threading.Barrier(2), []

        def register(promise=promise, barrier=barrier, calls=calls):
            barrier.wait(10)
            for number in range(100):
                promise.future.on_any(lambda _, number=number: calls.append(number))

        thread = threading.Thread(target=register)
        thread.start()
        barrier.wait(10)
        promise.set(1)
        thread.join(10)

        assert sorted(calls) == list(range(100))


def test_a_keyboard_interrupt_in_a_callback_is_raised_once_all_callbacks_have_run():
    promise: Promise[int] = Promise()
    seen = []

    def interrupt(_):
        raise KeyboardInterrupt

    interrupted = promise.future.then(interrupt)
    promise.future.on_any(seen.append)

    with pytest.raises(KeyboardInterrupt):
        promise.set(1)

    assert seen == [promise.future]
    assert isinstance(interrupted.error(), KeyboardInterrupt)


# -- what is let go of


@pytest.fixture
def _no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_gc")
def test_a_function_that_fails_leaves_no_cycle():
    def fail(_):
        raise OddError

    future = ready(1).then(fail).then(str)
    reference = weakref.ref(future)

    del future

    assert reference() is None


@pytest.mark.usefixtures("_no_gc")
def test_a_chain_that_is_done_leaves_no_cycle():
    promise: Promise[Any] = Promise()
    end: Future[list[Any]] = collect(
        [promise.future.then(str).recover(lambda _: ""), promise.future.after(60, lambda _: "")]
    )
    references: list[Callable[[], object]] = [weakref.ref(promise), weakref.ref(promise.future)]
    promise.set(1)
    assert end.get(timeout=0) == ["1", 1]

    del promise

    assert [reference() for reference in references] == [None, None]


# -- concurrent.futures


def test_discard_all_is_ready_when_the_last_has_ended():
    first, second = Promise(), Promise()

    ended = discard_all([first.future, second.future])

    assert first.future.has_discard()
    assert second.future.has_discard()
    first.discard()
    assert ended.is_pending()
    second.set("too late to stop")
    assert ended.is_ready()


def test_to_concurrent_works_with_as_completed_and_wait():
    promises = [Promise() for _ in range(4)]
    twins = {promise.future.to_concurrent(): promise for promise in promises}
    completed = concurrent.futures.as_completed(twins, timeout=10)
    order = []

    for promise, complete in zip(
        reversed(promises),
        [lambda p: p.set(1), lambda p: p.fail(OddError()), lambda p: p.discard(), lambda p: p.set(2)],
        strict=True,
    ):
        complete(promise)
        order.append(twins[next(completed)])

    assert order == promises[::-1]
    outcomes = [twin.cancelled() or twin.exception() or twin.result() for twin in twins]
    assert outcomes == [2, True, promises[2].future.error(), 1]
    assert not concurrent.futures.wait(twins, timeout=0).not_done


def test_cancelling_the_twin_discards_the_future_and_waiters_hear_when_it_has_ended():
    promise: Promise[int] = Promise()
    twin = promise.future.to_concurrent()

    twin.cancel()

    assert promise.future.has_discard()
    assert concurrent.futures.wait([twin], timeout=0).not_done
    promise.discard()
    assert concurrent.futures.wait([twin], timeout=0).done
    with pytest.raises(CancelledError):
        twin.result(timeout=0)


def test_from_concurrent_copies_each_outcome_and_passes_a_discard_on():
    sources = [concurrent.futures.Future() for _ in range(3)]
    futures = [Future.from_concurrent(source) for source in sources]

    sources[0].set_result(1)
    sources[1].set_exception(OddError())
    futures[2].discard()

    assert futures[0].get(timeout=0) == 1
    assert isinstance(futures[1].error(), OddError)
    assert sources[2].cancelled()
    assert futures[2].is_discarded()


# -- Pykka's own ways


def test_pykkas_set_and_set_exception_raise_queue_full_on_a_future_that_is_final():
    future: Future[int] = Future()
    future.set(1)

    with pytest.raises(queue.Full):
        future.set(2)
    with pytest.raises(queue.Full):
        future.set_exception((OddError, OddError(), None))
    assert pykka.get_all([future, ready(2)], timeout=0) == [1, 2]


def test_set_exception_takes_the_exception_being_handled():
    future: Future[int] = Future()

    try:
        raise OddError("handled")
    except OddError:
        future.set_exception()

    with pytest.raises(OddError, match="handled"):
        future.get(timeout=0)


def test_pykkas_map_filter_reduce_and_join_are_eager():
    numbers = ready(range(6))
    results = [
        numbers.map(list),
        numbers.filter(lambda number: number % 2),
        numbers.reduce(lambda total, number: total + number),
        numbers.reduce(lambda total, number: total + number, 100),
        ready(1).join(ready(2), ready(3)),
    ]

    assert [future.is_ready() for future in results] == [True] * 5
    assert pykka.get_all(results) == [[0, 1, 2, 3, 4, 5], [1, 3, 5], 15, 115, [1, 2, 3]]


def test_errors_of_the_function_given_to_filter_arrive():
    with pytest.raises(ZeroDivisionError):
        ready([0]).filter(lambda number: 1 / number).get(timeout=0)


# -- properties


OPERATIONS = {
    "set": lambda promise: promise.set("value"),
    "fail": lambda promise: promise.fail(OddError()),
    "answer the discard": lambda promise: promise.discard(),
    "ask to discard": lambda promise: promise.future.discard(),
}
STATES = {"set": "ready", "fail": "failed", "answer the discard": "discarded"}
OUTCOMES = {"ready": ": 'value'", "failed": ": OddError()"}


class Odd:
    def __init__(self, text):
        self._text = text

    def __repr__(self):
        if self._text is None:
            raise OddError
        return self._text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (42, "42"),
        ("\x1b[2J\n", r"'\x1b[2J\n'"),
        (Odd("a\x1b[2J\n\u202eb"), r"a\x1b[2J\n\u202eb"),
        (list(range(10**5)), "[0, 1, 2, 3, 4, 5, ...]"),
        (failed(OddError("inner")), "OddError('inner')"),
    ],
)
def test_repr_shows_the_value_on_one_line_escaped(value, shown):
    future = ready(value)

    state = "failed" if isinstance(value, Future) else "ready"
    assert repr(future) == f"<Future {state}: {shown}>"


LONG = "a" * 10**6


@pytest.mark.parametrize(
    "value", [LONG, Odd(LONG), {LONG: [[LONG] * 9] * 9}, [10**5000]], ids=["text", "other", "nested", "digits"]
)
def test_repr_is_bounded(value):
    assert len(repr(ready(value))) < 300
    assert len(repr(failed(OddError(value)))) < 300


def test_repr_of_a_future_whose_value_cannot_be_shown_or_refers_to_it():
    holder: list[Future[object]] = []
    holder.append(ready(holder))

    assert repr(ready(Odd(None))).startswith("<Future ready: <Odd instance at ")
    assert repr(holder[0]) == "<Future ready: [<Future ...>]>"


@given(st.lists(st.sampled_from(list(OPERATIONS)), max_size=6))
def test_any_sequence_of_operations_leads_where_the_first_final_one_says(names):
    promise: Promise[str] = Promise()
    asked, state = False, "pending"

    for name in names:
        answer = OPERATIONS[name](promise)

        assert answer is (state == "pending" and not (name == "ask to discard" and asked))
        if state == "pending":
            asked, state = asked or name == "ask to discard", STATES.get(name, "pending")
        shown = f"{state}{', discard requested' if asked else ''}{OUTCOMES.get(state, '')}"
        assert repr(promise.future) == f"<Future {shown}>"


@st.composite
def outcomes_in_an_order(draw):
    outcomes = draw(st.lists(st.sampled_from(["set", "fail", "answer the discard", "abandon"]), max_size=6))
    return outcomes, draw(st.permutations(range(len(outcomes))))


@given(outcomes_in_an_order())
def test_collect_await_all_and_select_agree_with_their_definitions(outcomes_and_order):
    outcomes, order = outcomes_and_order
    promises: list[Any] = [Promise() for _ in outcomes]
    futures = [promise.future for promise in promises]
    collected, awaited, selected = collect(futures), await_all(futures), select(futures)

    for index in order:
        if outcomes[index] == "abandon":
            promises[index] = None
        else:
            OPERATIONS[outcomes[index]](promises[index])

    in_time = [futures[index] for index in order]
    assert awaited.get(timeout=0) == futures
    assert collected.error() is next((future.error() for future in in_time if future.error()), None)
    assert collected.is_failed() or collected.get(timeout=0) == ["value"] * len(futures)
    assert selected.is_ready() is ("set" in outcomes)
    assert selected.is_ready() or selected.is_abandoned()


LINKS = {
    # name: the link, the outcome that it handles (None: any but ready), and what it makes of that
    "then a value": (lambda future: future.then(lambda _: "value"), "ready", "ready"),
    "then a failure": (lambda future: future.then(lambda _: 1 / 0), "ready", "failed"),
    "then a discard": (lambda future: future.then(lambda _: discarded()), "ready", "discarded"),
    "repair": (lambda future: future.repair(lambda _: "value"), "failed", "ready"),
    "recover": (lambda future: future.recover(lambda _: "value"), None, "ready"),
    "recover in vain": (lambda future: future.recover(lambda _: 1 / 0), None, "failed"),
    "after": (lambda future: future.after(60, lambda _: "never"), "never", "never"),
}


def discarded():
    promise = Promise()
    promise.discard()
    return promise.future


@given(
    st.sampled_from([*STATES, "abandon"]),
    st.lists(st.sampled_from(list(LINKS)), max_size=8),
    st.integers(min_value=0, max_value=8),
)
def test_any_chain_leads_where_its_links_say_whether_made_before_or_after_the_outcome(outcome, names, made_before):
    promises: list[Promise[str]] = [Promise()]
    future, expected = promises[0].future, STATES.get(outcome, "abandoned")

    for index, name in enumerate([*names, None]):
        if index == min(made_before, len(names)) and promises:
            OPERATIONS.get(outcome, lambda _: None)(promises.pop())
        if name is not None:
            link, handled, result = LINKS[name]
            future = link(future)
            expected = result if handled == expected or (handled is None and expected != "ready") else expected

    assert ("abandoned" if future.is_abandoned() else repr(future)[8:-1].partition(":")[0]) == expected


def test_what_a_future_does_not_have_its_value_may_have():
    future: Any = ready("text")

    with pytest.raises(AttributeError, match=r"^'Future' object has no attribute 'upper': get\(\) waits for its val"):
        future.upper()
    with pytest.raises(AttributeError, match=r"^'Future' object has no attribute '_hidden'$"):
        future._hidden  # noqa: B018
    assert not hasattr(future, "result")
