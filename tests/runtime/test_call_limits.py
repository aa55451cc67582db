from __future__ import annotations

import random

import pykka
import pytest
from support.processes import TIMEOUT

from pykka_imagestore.runtime import Actor, DiscardedError, Promise, after, collect, dispatch, limit, terminate


class Fetcher(Actor):
    def __init__(self):
        super().__init__()
        self.begun = []
        self.inside = self.most = 0

    @limit(2)
    async def fetch(self, number, until):
        """Fetch."""
        self.begun.append(number)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            return number, await until
        finally:
            self.inside -= 1

    @limit(1)
    async def other(self, until):
        return await until

    def get_begun(self):
        return list(self.begun)

    def get_most(self):
        return self.most


class SubFetcher(Fetcher):
    @limit(1)
    async def fetch(self, number, until):
        return await super().fetch(number, until)


@pytest.fixture
def ref():
    ref = Fetcher.start()
    yield ref
    ref.stop(timeout=TIMEOUT)


def begun(ref):
    return dispatch(ref, Fetcher.get_begun).get(timeout=TIMEOUT)


def test_calls_beyond_the_limit_begin_in_order_when_others_end_and_the_actor_goes_on(ref):
    promises = [Promise() for _ in range(4)]
    answers = [dispatch(ref, Fetcher.fetch, number, promise.future) for number, promise in enumerate(promises)]
    assert begun(ref) == [0, 1]

    promises[1].set("b")
    assert answers[1].get(timeout=TIMEOUT) == (1, "b")
    assert begun(ref) == [0, 1, 2]

    promises[0].fail(OSError("a"))
    with pytest.raises(OSError, match="a"):
        answers[0].get(timeout=TIMEOUT)
    assert begun(ref) == [0, 1, 2, 3]

    promises[2].set("c")
    promises[3].set("d")
    assert collect(answers[2:]).get(timeout=TIMEOUT) == [(2, "c"), (3, "d")]


def test_each_method_and_each_actor_has_a_limit_of_its_own(ref):
    other, blocked = Fetcher.start(), Promise()
    held = [dispatch(ref, Fetcher.fetch, number, blocked.future) for number in range(2)]

    assert dispatch(ref, Fetcher.other, after(0)).get(timeout=TIMEOUT) is None
    assert dispatch(other, Fetcher.fetch, 3, after(0)).get(timeout=TIMEOUT) == (3, None)
    assert ref.proxy().other(after(0)).get(timeout=TIMEOUT) is None

    blocked.set(1)
    collect(held).get(timeout=TIMEOUT)
    other.stop(timeout=TIMEOUT)


def test_method_that_overrides_a_limited_one_has_its_own_limit():
    ref = SubFetcher.start()
    blocked = Promise()
    answers = [dispatch(ref, SubFetcher.fetch, number, blocked.future) for number in range(3)]
    assert begun(ref) == [0]

    blocked.set(1)

    assert collect(answers).get(timeout=TIMEOUT) == [(0, 1), (1, 1), (2, 1)]
    ref.stop(timeout=TIMEOUT)


def test_call_that_is_discarded_while_it_waits_never_begins(ref):
    blocked = Promise()
    answers = [dispatch(ref, Fetcher.fetch, number, blocked.future) for number in range(4)]
    assert begun(ref) == [0, 1]

    answers[2].discard()

    with pytest.raises(DiscardedError):
        answers[2].get(timeout=TIMEOUT)
    blocked.set(1)
    assert answers[3].get(timeout=TIMEOUT) == (3, 1)
    assert begun(ref) == [0, 1, 3]


def test_calls_that_wait_fail_when_the_actor_ends():
    ref, blocked = Fetcher.start(), Promise()
    answers = [dispatch(ref, Fetcher.fetch, number, blocked.future) for number in range(4)]
    assert begun(ref) == [0, 1]

    terminate(ref).get(timeout=TIMEOUT)

    for answer in answers:
        with pytest.raises(pykka.ActorDeadError):
            answer.get(timeout=TIMEOUT)


def test_limit_holds_among_a_thousand_calls_of_which_some_are_discarded(ref):
    answers = []
    for number in range(1000):
        answers.append(dispatch(ref, Fetcher.fetch, number, after(random.random() / 1000)))
        if number % 7 == 0:
            answers[random.randrange(len(answers))].discard()

    outcomes = [answer.recover(lambda _: None).get(timeout=TIMEOUT) for answer in answers]

    assert {outcome[0] for outcome in outcomes if outcome} == {n for n, a in enumerate(answers) if a.is_ready()}
    assert dispatch(ref, Fetcher.get_most).get(timeout=TIMEOUT) <= 2
    assert dispatch(ref, Fetcher.fetch, -1, after(0)).get(timeout=TIMEOUT) == (-1, None)


def test_limited_method_keeps_its_name_and_docstring():
    assert (Fetcher.fetch.__name__, Fetcher.fetch.__doc__) == ("fetch", "Fetch.")


@pytest.mark.parametrize("calls", [0, -1, True, "2", None])
def test_limit_that_is_none_is_refused(calls):
    with pytest.raises(ValueError, match="a limit is a number of calls, 1 or more, not "):
        limit(calls)


def test_method_that_is_not_async_is_refused():
    with pytest.raises(TypeError, match="is not async"):

        @limit(1)
        def method(self):
            return self
