from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pykka_imagestore.runtime import Promise, SingleFlight


class Work:
    """Work that is started at most once at a time, and counts how often."""

    def __init__(self) -> None:
        self.promises: list[Promise[str]] = []

    def start(self):
        self.promises.append(Promise())
        return self.promises[-1].future


@pytest.fixture
def flights():
    return SingleFlight()


@pytest.fixture
def work():
    return Work()


def test_callers_that_come_together_share_the_work(flights, work):
    handles = [flights.join("key", work.start) for _ in range(3)]

    work.promises[0].set("answer")

    assert len(work.promises) == 1
    assert [handle.get(timeout=0) for handle in handles] == ["answer"] * 3
    assert "key" not in flights


def test_callers_that_come_from_many_threads_share_the_work(flights, work):
    barrier = threading.Barrier(8)

    def join():
        barrier.wait(10)
        return flights.join("key", work.start)

    with ThreadPoolExecutor(8) as threads:
        handles = [thread.result(10) for thread in [threads.submit(join) for _ in range(8)]]

    assert len(work.promises) == 1
    assert len(set(map(id, handles))) == 8


def test_a_handle_that_is_discarded_leaves_the_work_to_the_others(flights, work):
    first, second = flights.join("key", work.start), flights.find("key")

    first.discard()

    assert first.is_discarded()
    assert not work.promises[0].future.has_discard()
    work.promises[0].set("answer")
    assert second.get(timeout=0) == "answer"


def test_the_last_handle_discards_the_work_and_is_discarded_when_that_has_ended(flights, work):
    handles = [flights.join("key", work.start) for _ in range(2)]

    for handle in handles:
        handle.discard()

    assert work.promises[0].future.has_discard()
    assert handles[1].is_pending()
    work.promises[0].discard()
    assert handles[1].is_discarded()


def test_work_that_still_comes_to_its_end_is_not_joined_and_does_not_remove_its_successor(flights, work):
    flights.join("key", work.start).discard()
    second = flights.join("key", work.start)

    work.promises[0].discard()  # only now has the first ended

    assert len(work.promises) == 2
    assert "key" in flights
    assert second.is_pending()
    assert not work.promises[1].future.has_discard()


def test_a_discard_that_comes_late_counts_for_its_own_flight_alone(flights, work):
    first = flights.join("key", work.start)
    work.promises[0].set("answer")
    second = flights.join("key", work.start)

    first.discard()

    assert second.is_pending()
    assert not work.promises[1].future.has_discard()


def test_a_failure_reaches_every_handle_and_the_next_caller_tries_again(flights, work):
    handles = [flights.join("key", work.start) for _ in range(2)]

    work.promises[0].fail(LookupError())

    assert [type(handle.error()) for handle in handles] == [LookupError] * 2
    flights.join("key", work.start)
    assert len(work.promises) == 2


def test_work_that_is_done_at_once_is_not_remembered(flights):
    promise = Promise()
    promise.set("at once")

    assert flights.join("key", lambda: promise.future).get(timeout=0) == "at once"
    assert "key" not in flights
    assert flights.find("key") is None


def test_futures_are_the_work_itself(flights, work):
    for name in ("one", "one", "two"):
        flights.join(name, work.start)

    for future in flights.futures():
        assert future.discard()

    assert [promise.future.has_discard() for promise in work.promises] == [True, True]


def test_work_that_cannot_be_started_fails_its_handle_and_is_not_remembered(flights):
    def start():
        raise LookupError

    assert isinstance(flights.join("key", start).error(), LookupError)
    assert "key" not in flights


def test_handle_that_is_given_up_leaves_nothing_on_the_work(flights, work):
    flights.join("key", work.start)
    kept = len(work.promises[0].future._callbacks), len(flights.futures()[0]._callbacks)

    for _ in range(100):
        flights.find("key").discard()

    assert (len(work.promises[0].future._callbacks), len(flights.futures()[0]._callbacks)) == kept


def test_work_may_be_started_while_other_work_starts(flights, work):
    def start():
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(flights.join, "other", work.start).result(10)

    flights.join("key", start)

    assert "other" in flights


ANSWERS = [lambda promise: promise.set("answer"), Promise.discard, lambda promise: promise.fail(OSError())]


class Flights(RuleBasedStateMachine):
    """However handles come and go, the work is asked to stop exactly when its last handle is given up."""

    handles = Bundle("handles")

    def __init__(self):
        super().__init__()
        self.flights = SingleFlight()
        self.work = Work()
        self.users: list[int] = []  # of each flight, in the order of their starts

    @rule(target=handles)
    def join(self):
        known = len(self.work.promises)
        handle = self.flights.join("key", self.work.start)
        if len(self.work.promises) > known:
            self.users.append(0)
        self.users[-1] += 1
        return handle, len(self.users) - 1

    @rule(handle=consumes(handles))
    def discard(self, handle):
        future, flight = handle
        if future.discard():
            self.users[flight] -= 1

    @rule(answer=st.sampled_from(ANSWERS), which=st.integers(0, 20))
    def end(self, answer, which):
        if which < len(self.work.promises):
            answer(self.work.promises[which])

    @invariant()
    def the_work_is_stopped_when_nobody_wants_it(self):
        for promise, users in zip(self.work.promises, self.users, strict=True):
            if promise.future.is_pending():
                assert promise.future.has_discard() is (users == 0)

    @invariant()
    def at_most_the_newest_can_be_joined(self):
        newest = self.work.promises[-1].future if self.work.promises else None
        joinable = newest is not None and newest.is_pending() and not newest.has_discard()
        assert len(self.flights.futures()) == joinable


TestFlights = Flights.TestCase
TestFlights.settings = settings(max_examples=30, deadline=None)
