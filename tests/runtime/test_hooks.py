"""Async on_start and on_stop, and turns: an actor's life beside its messages."""

from __future__ import annotations

import time
import weakref

import pykka
import pytest
from support.processes import TIMEOUT

from pykka_imagestore.runtime import Actor, DiscardedError, Promise, after, dispatch, failed, ready, terminate


class Slow(Actor):
    """Notes what happens, in order; its hooks wait for futures that it is given."""

    def __init__(self, start=None, stop=None):
        super().__init__()
        self._start, self._stopping = start or ready(None), stop or ready(None)
        self.seen = []

    async def on_start(self):  # type: ignore[override]
        self.seen.append("begins")
        await self._start
        await self.spawn(self._help("help"))
        self.seen.append("began")

    async def on_stop(self):  # type: ignore[override]
        self.seen.append("stops")
        try:
            await self._stopping
            await after(0.001)
        finally:
            self.seen.append("stopped")

    async def _help(self, text):
        await after(0.001)
        self.seen.append(text)

    def note(self, text):
        self.seen.append(text)
        return list(self.seen)

    async def wait(self, future):
        return await future

    def seen_list(self):
        return self.seen


def test_messages_wait_until_an_async_on_start_has_ended_and_come_in_their_order():
    start = Promise()
    ref = Slow.start(start.future)
    first, second = dispatch(ref, Slow.note, "first"), dispatch(ref, Slow.note, "second")
    assert first.is_pending()

    start.set(None)

    assert second.get(timeout=TIMEOUT) == ["begins", "help", "began", "first", "second"]


def test_async_on_start_that_fails_is_logged_and_ends_the_actor(caplog):
    ref = Slow.start(failed(LookupError("in on_start")))

    with pytest.raises(pykka.ActorDeadError):
        dispatch(ref, Slow.note, "never").get(timeout=TIMEOUT)

    assert "in on_start" in caplog.text
    assert not ref.is_alive()


def test_stop_while_an_async_on_start_runs_serves_what_came_before():
    start = Promise()
    ref = Slow.start(start.future)
    note = dispatch(ref, Slow.note, "before")
    stopped = ref.stop(block=False)
    after_it = dispatch(ref, Slow.note, "after")

    start.set(None)

    assert note.get(timeout=TIMEOUT)[-1] == "before"
    assert stopped.get(timeout=TIMEOUT) is True
    assert isinstance(answer(after_it), pykka.ActorDeadError)


def test_terminate_ends_an_async_on_start_and_refuses_what_waits():
    start = Promise()
    ref = Slow.start(start.future)
    seen, note = dispatch(ref, Slow.seen_list), dispatch(ref, Slow.note, "never")
    while not ref.actor_inbox.empty():
        time.sleep(0.001)  # until the actor has put them aside

    assert terminate(ref).get(timeout=TIMEOUT) is True

    assert [type(answer(future)) for future in (seen, note)] == [pykka.ActorDeadError] * 2
    assert start.future.has_discard()


def test_async_on_stop_is_awaited_before_the_actor_has_ended():
    stopping = Promise()
    ref = Slow.start(stop=stopping.future)
    seen = dispatch(ref, Slow.seen_list).get(timeout=TIMEOUT)
    stopped = ref.stop(block=False)
    with pytest.raises(pykka.Timeout):
        stopped.get(timeout=0.05)

    stopping.set(None)

    assert stopped.get(timeout=TIMEOUT) is True
    assert seen[-2:] == ["stops", "stopped"]


def test_async_on_stop_is_awaited_after_a_terminate_too_and_may_wait_for_the_actors_own_work():
    class Working(Slow):
        async def on_stop(self):  # type: ignore[override]
            self.work = self.spawn_before
            await self.work
            self.seen.append("work ended")

        async def begin(self, future):
            self.spawn_before = self.spawn(self.wait(future))
            return self.seen

    work = Promise()
    ref = Working.start()
    seen = dispatch(ref, Working.begin, work.future).get(timeout=TIMEOUT)
    ended = terminate(ref)

    work.set(None)

    assert ended.get(timeout=TIMEOUT) is True
    assert seen[-1] == "work ended"


def test_async_on_stop_that_fails_is_logged(caplog):
    ref = Slow.start(stop=failed(LookupError("in on_stop")))

    assert ref.stop(timeout=TIMEOUT) is True

    assert "in on_stop" in caplog.text


def answer(future):
    try:
        return future.get(timeout=TIMEOUT)
    except Exception as error:  # noqa: BLE001 - that is the answer
        return error


# -- turns


class Busy(Actor):
    """Never has to wait for what it awaits."""

    def __init__(self):
        super().__init__()
        self.rounds = 0

    async def work(self):
        while True:
            await ready(None)
            self.rounds += 1

    async def sum(self, numbers):
        return sum([await ready(number) for number in numbers])

    def look(self):
        return self.rounds


@pytest.fixture
def busy():
    ref = Busy.start()
    return ref, dispatch(ref, Busy.work)


def test_method_that_never_waits_lets_others_have_a_turn(busy):
    ref, _ = busy

    first, second = (dispatch(ref, Busy.look).get(timeout=TIMEOUT) for _ in range(2))

    assert second >= first
    assert second > 0
    terminate(ref).get(timeout=TIMEOUT)


@pytest.mark.parametrize("end", [terminate, lambda ref: ref.stop(block=False)])
def test_method_that_never_waits_hears_that_its_actor_is_to_end(busy, end):
    ref, work = busy

    assert end(ref).get(timeout=TIMEOUT) is True

    assert isinstance(answer(work), pykka.ActorDeadError)


def test_method_that_never_waits_hears_a_discard(busy):
    ref, work = busy

    work.discard()

    assert isinstance(answer(work), DiscardedError)
    terminate(ref).get(timeout=TIMEOUT)


def test_method_that_awaits_thousands_of_final_futures_gets_them_all():
    assert dispatch(Busy.start(), Busy.sum, range(5000)).get(timeout=TIMEOUT) == sum(range(5000))


def test_actor_keeps_nothing_of_its_last_message():
    class Answer:
        pass

    class Giving(Actor):
        def give(self, argument):
            return argument

    ref, argument = Giving.start(), Answer()
    reference = weakref.ref(argument)

    assert dispatch(ref, Giving.give, argument).get(timeout=TIMEOUT) is argument
    del argument

    end = time.monotonic() + TIMEOUT
    while reference() is not None and time.monotonic() < end:
        time.sleep(0.001)  # the actor's thread may be about to let go of it
    assert reference() is None
