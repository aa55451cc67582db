"""Bounded mailboxes: what is beyond the limit waits or fails, no answer is lost, and no actor waits for itself."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pykka
import pytest
from support.processes import TIMEOUT

from pykka_imagestore.runtime import Actor, MailboxFullError, Promise, after, collect, dispatch, terminate


class Slow(Actor):
    """Handles a message only when it may."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.arguments = (args, kwargs)
        self.handled = []

    def wait(self, until):
        return until.get(timeout=TIMEOUT)

    async def wait_async(self, until):
        return await until

    def note(self, value):
        self.handled.append(value)
        return value

    def on_receive(self, message):
        self.handled.append(message)
        return message

    def get_handled(self):
        return list(self.handled)

    def tell_itself(self, count):
        for number in range(count):
            self.actor_ref.tell(number)


@pytest.fixture
def begin():
    return Promise()


def start_held(begin, **bounds):
    """Start an actor that handles no message before ``begin`` is set."""
    ref = Slow.start(**bounds)
    entered = threading.Event()
    dispatch(ref, hold, entered, begin)
    assert entered.wait(TIMEOUT)
    return ref


def hold(_, entered, begin):
    entered.set()
    return begin.future.get(timeout=TIMEOUT)


def in_thread(function):
    """Call a function in a thread; return what waits for its result, or raises what it raised."""
    results = queue.SimpleQueue()

    def call():
        try:
            results.put((function(), None))
        except Exception as error:  # noqa: BLE001 - raised in the test
            results.put((None, error))

    threading.Thread(target=call, daemon=True).start()

    def get():
        value, error = results.get(timeout=TIMEOUT)
        if error is not None:
            raise error
        return value

    return get


def settle(inbox, count):
    """Wait until so many senders wait in line."""
    deadline = time.monotonic() + TIMEOUT
    while len(inbox._line) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_message_beyond_the_limit_waits_and_all_arrive_in_order(begin):
    ref = start_held(begin, mailbox=2)
    ref.tell(0)
    first = dispatch(ref, Slow.note, 1)

    third = in_thread(lambda: ref.tell(2))
    settle(ref.actor_inbox, 1)
    fourth = in_thread(lambda: dispatch(ref, Slow.note, 3))
    settle(ref.actor_inbox, 2)
    begin.set(None)

    third()
    assert fourth().get(timeout=TIMEOUT) == 3
    assert first.get(timeout=TIMEOUT) == 1
    assert dispatch(ref, Slow.get_handled).get(timeout=TIMEOUT) == [0, 1, 2, 3]


def test_message_beyond_the_limit_fails_where_that_was_asked_for(begin):
    ref = start_held(begin, mailbox=1, when_full="fail")
    answer = dispatch(ref, Slow.note, 1)

    refused = dispatch(ref, Slow.note, 2)
    with pytest.raises(MailboxFullError, match="1 messages wait in the mailbox of the actor Slow"):
        ref.tell(3)
    with pytest.raises(MailboxFullError):
        ref.ask(4)
    with pytest.raises(MailboxFullError):
        ref.proxy().note(5).get()
    with pytest.raises(MailboxFullError):
        refused.get(timeout=0)
    begin.set(None)

    assert answer.get(timeout=TIMEOUT) == 1
    assert dispatch(ref, Slow.get_handled).get(timeout=TIMEOUT) == [1]


def test_blocking_ask_counts_the_wait_for_a_place(begin):
    ref = start_held(begin, mailbox=1)
    ref.tell(1)

    with pytest.raises(pykka.Timeout, match=r"0\.01 seconds"):
        ref.ask(2, timeout=0.01)
    begin.set(None)

    assert ref.ask(3, timeout=TIMEOUT) == 3
    assert dispatch(ref, Slow.get_handled).get(timeout=TIMEOUT) == [1, 3]


@pytest.mark.parametrize("end", [terminate, lambda ref: ref.stop(block=False)], ids=["terminate", "stop"])
def test_actor_that_ends_answers_those_that_wait_for_a_place(begin, end):
    ref = start_held(begin, mailbox=1)
    waiting = dispatch(ref, Slow.note, 1)
    told, asked = in_thread(lambda: ref.tell(2)), None
    settle(ref.actor_inbox, 1)
    asked = in_thread(lambda: dispatch(ref, Slow.note, 3))
    settle(ref.actor_inbox, 2)

    ended = end(ref)
    begin.set(None)

    ended.get(timeout=TIMEOUT)
    if end is terminate:
        with pytest.raises(pykka.ActorDeadError):
            waiting.get(timeout=TIMEOUT)
        with pytest.raises(pykka.ActorDeadError, match="ended before there was a place"):
            told()
    else:  # the waiting messages are served before a stop, and those in line come behind it
        assert waiting.get(timeout=TIMEOUT) == 1
    with pytest.raises(pykka.ActorDeadError):
        asked().get(timeout=TIMEOUT)


@pytest.mark.parametrize("at", ["in a method", "in on_start", "in an async on_start"])
def test_actor_that_tells_itself_never_waits(at):
    class Telling(Slow):
        def on_start(self):
            if at == "in on_start":
                self.tell_itself(5)
            return self._later() if at == "in an async on_start" else None

        async def _later(self):
            await after(0.001)
            self.tell_itself(5)
            await after(0.001)

    ref = Telling.start(mailbox=1)
    if at == "in a method":
        dispatch(ref, Slow.tell_itself, 5).get(timeout=TIMEOUT)

    def is_done(actor):
        return actor.handled if len(actor.handled) == 5 else dispatch(ref, is_done)

    assert dispatch(ref, is_done).get(timeout=TIMEOUT) == [0, 1, 2, 3, 4]


def test_actor_that_tells_itself_too_much_fails_where_that_was_asked_for():
    ref = Slow.start(mailbox=2, when_full="fail")

    with pytest.raises(MailboxFullError):
        dispatch(ref, Slow.tell_itself, 3).get(timeout=TIMEOUT)

    assert dispatch(ref, Slow.note, 7).get(timeout=TIMEOUT) == 7


class Player(Actor):
    def __init__(self):
        super().__init__()
        self.received = 0

    def play(self, others, count, start):
        start.wait(TIMEOUT)
        for _ in range(count):
            for other in others:
                other.tell("ball")

    def on_receive(self, _):
        self.received += 1

    def count(self):
        return self.received


@pytest.mark.parametrize("players", [2, 3, 5])
def test_actors_that_tell_each_other_in_a_circle_all_go_on(players):
    refs = [Player.start(mailbox=1) for _ in range(players)]
    start = threading.Barrier(players)
    played = [
        dispatch(ref, Player.play, (refs[(number + 1) % players],), 100, start) for number, ref in enumerate(refs)
    ]

    collect(played).get(timeout=TIMEOUT)

    counts = [ref.ask("done") or dispatch(ref, Player.count).get(timeout=TIMEOUT) for ref in refs]
    assert counts == [101] * players


def test_callback_never_waits(begin):
    ref = start_held(begin, mailbox=1)
    ref.tell(0)
    source = Promise()
    answer = source.future.then(lambda value: dispatch(ref, Slow.note, value))

    source.set(1)  # returns
    after(0).then(lambda _: ref.tell(2)).get(timeout=TIMEOUT)  # in the thread of the timers
    begin.set(None)

    assert answer.get(timeout=TIMEOUT) == 1
    assert dispatch(ref, Slow.get_handled).get(timeout=TIMEOUT) == [0, 1, 2]


def test_steps_of_async_methods_stop_and_ends_take_no_place(begin):
    ref, other = Slow.start(mailbox=1), Slow.start()
    dispatch(ref, lambda actor: actor.link(other)).get(timeout=TIMEOUT)
    promises = [Promise() for _ in range(10)]
    answers = [dispatch(ref, Slow.wait_async, promise.future) for promise in promises]
    assert ref.ask("all have begun", timeout=TIMEOUT)
    entered = threading.Event()
    held = dispatch(ref, hold, entered, begin)
    assert entered.wait(TIMEOUT)
    ref.tell("full")

    for number, promise in enumerate(promises):
        promise.set(number)
    other.stop(timeout=TIMEOUT)
    stopped = ref.stop(block=False)
    begin.set(None)

    assert [answer.get(timeout=TIMEOUT) for answer in answers] == list(range(10))
    assert held.get(timeout=TIMEOUT) is None
    assert stopped.get(timeout=TIMEOUT)


def test_mailbox_stays_full_while_an_async_on_start_runs(begin):
    class Starting(Slow):
        async def on_start(self):  # type: ignore[override]
            await begin.future

    ref = Starting.start(mailbox=2)
    ref.tell(0)
    ref.tell(1)
    third = in_thread(lambda: ref.tell(2))
    settle(ref.actor_inbox, 1)
    begin.set(None)

    third()
    assert dispatch(ref, Slow.get_handled).get(timeout=TIMEOUT) == [0, 1, 2]


@pytest.mark.parametrize("when_full", ["wait", "fail"])
def test_many_senders_lose_no_answer_and_never_pass_the_limit(when_full):
    limit, senders, count = 3, 8, 200
    ref = Slow.start(mailbox=limit, when_full=when_full)
    inbox: Any = ref.actor_inbox
    highest = 0

    def send(sender):
        nonlocal highest
        outcomes = []
        for number in range(count):
            outcomes.append(dispatch(ref, Slow.note, (sender, number)))
            highest = max(highest, inbox._places_taken)
        return outcomes

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(senders) as threads:
            futures = [future for sent in threads.map(send, range(senders)) for future in sent]
    finally:
        sys.setswitchinterval(interval)

    answered, refused = [], 0
    for future in futures:
        try:
            answered.append(future.get(timeout=TIMEOUT))
        except MailboxFullError:
            refused += 1
    assert len(answered) + refused == senders * count
    assert refused == 0 or when_full == "fail"
    assert highest <= limit
    handled = ref.ask(None) or dispatch(ref, Slow.get_handled).get(timeout=TIMEOUT)
    for sender in range(senders):
        mine = [each for each in handled if each and each[0] == sender]
        assert mine == sorted(mine)
        assert mine == [each for each in answered if each[0] == sender]


@pytest.mark.parametrize("round_", range(20))
def test_end_amid_many_senders_answers_each(round_):
    ref = Slow.start(mailbox=1)

    def send(number):
        answers = []
        with contextlib.suppress(pykka.ActorDeadError):
            for _ in range(50):
                answers.append(dispatch(ref, Slow.note, number))
                ref.tell(number)
        return answers

    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(send, number) for number in range(4)]
        time.sleep(0.0002 * round_)
        (terminate(ref) if round_ % 2 else ref.stop(block=False)).get(timeout=TIMEOUT)
        answers = [answer for each in sent for answer in each.result(timeout=TIMEOUT)]

    for answer in answers:
        with contextlib.suppress(pykka.ActorDeadError):
            answer.get(timeout=TIMEOUT)


def test_sender_that_is_interrupted_leaves_the_line(begin):
    ref = start_held(begin, mailbox=1)
    ref.tell(0)

    def interrupt():
        settle(ref.actor_inbox, 1)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            in_thread(interrupt), ref.tell(1)
    finally:
        signal.signal(signal.SIGINT, before)
    begin.set(None)

    assert dispatch(ref, Slow.get_handled).get(timeout=TIMEOUT) == [0]
    assert ref.ask(2, timeout=TIMEOUT) == 2


def test_messages_of_an_ended_actor_are_freed(begin):
    class Message:
        pass

    ref = start_held(begin, mailbox=1)
    message = Message()
    references = [weakref.ref(message)]
    ref.tell(message)
    waits = in_thread(lambda: ref.tell(Message()))
    settle(ref.actor_inbox, 1)
    del message
    ended = terminate(ref)
    begin.set(None)
    ended.get(timeout=TIMEOUT)
    with pytest.raises(pykka.ActorDeadError):
        waits()

    gc.collect()
    assert [reference() for reference in references] == [None]


class Named(Slow):
    def __init__(self, mailbox, *, when_full=0):
        super().__init__(mailbox, when_full)


def test_constructor_that_has_such_a_parameter_keeps_it():
    ref: Any = Named.start(mailbox="a letter", when_full="never")  # type: ignore[arg-type]

    arguments = dispatch(ref, lambda actor: actor.arguments).get(timeout=TIMEOUT)

    assert arguments == (("a letter", "never"), {})
    ref.tell(1)
    assert not ref.actor_inbox.is_full()


def test_constructor_gets_all_other_arguments_and_an_actor_that_it_starts_no_limit():
    class Parent(Slow):
        def __init__(self, *args, **kwargs):
            self.child = Slow.start()
            super().__init__(*args, **kwargs)

    ref = Parent.start(1, mailbox=1, limit=2)

    arguments, child = dispatch(ref, lambda actor: (actor.arguments, actor.child)).get(timeout=TIMEOUT)

    assert arguments == ((1,), {"limit": 2})
    assert type(ref.actor_inbox).__name__ == "BoundedInbox"
    assert type(child.actor_inbox).__name__ == type(Slow.start(mailbox=None).actor_inbox).__name__ == "Inbox"


@pytest.mark.parametrize("bounds", [{"mailbox": 0}, {"mailbox": -1}, {"mailbox": True}, {"mailbox": "3"}])
def test_limit_that_is_none_is_refused(bounds):
    with pytest.raises(ValueError, match="mailbox is a number of messages"):
        Slow.start(**bounds)


def test_what_becomes_of_a_message_is_one_of_two_things():
    with pytest.raises(ValueError, match='"wait" or "fail", not \'drop\''):
        Slow.start(mailbox=1, when_full="drop")  # type: ignore[arg-type]
