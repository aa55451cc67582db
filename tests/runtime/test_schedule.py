"""Messages that are told later, once or again and again, until they are cancelled or the actor ends."""

from __future__ import annotations

import gc
import logging
import math
import queue
import subprocess
import sys
import threading
import time
import weakref
from functools import partial

import pykka
import pytest
from support.processes import TIMEOUT, wait_for

from pykka_imagestore.runtime import Actor, Promise, after, dispatch, tell_every, tell_later, terminate


class Receiver(Actor):
    def __init__(self):
        super().__init__()
        self.received = queue.SimpleQueue()

    def on_receive(self, message):
        self.received.put((time.monotonic(), message))


@pytest.fixture
def ref():
    ref = Receiver.start()
    yield ref
    ref.stop(timeout=TIMEOUT)


def received(ref):
    return dispatch(ref, lambda actor: actor.received).get(timeout=TIMEOUT)


def test_message_is_told_once_not_before_it_is_due(ref):
    messages, start = received(ref), time.monotonic()

    later = tell_later(ref, 0.02, "later")
    at_once = tell_later(ref, 0, "at once")

    assert messages.get(timeout=TIMEOUT)[1] == "at once"
    told, message = messages.get(timeout=TIMEOUT)
    assert message == "later"
    assert told >= start + 0.02
    assert later.is_over()
    assert at_once.is_over()
    assert not later.cancel()
    after(0.05).get(timeout=TIMEOUT)
    assert messages.empty()


def test_message_is_told_again_and_again_at_multiples_of_the_interval(ref):
    messages, start = received(ref), time.monotonic()

    repeated = tell_every(ref, 0.01, "tick")

    for number in range(1, 11):
        told, message = messages.get(timeout=TIMEOUT)
        assert message == "tick"
        assert told >= start + 0.01 * number
    assert not repeated.is_over()
    assert repeated.cancel()


def test_lateness_does_not_add_up_and_times_that_have_passed_are_left_out(ref):
    messages, start = received(ref), time.monotonic()

    repeated = tell_every(ref, 0.02, "tick")
    messages.get(timeout=TIMEOUT)
    after(0).then(lambda _: time.sleep(0.1))  # holds up all timers
    first, second = (messages.get(timeout=TIMEOUT)[0] for _ in range(2))
    repeated.cancel()
    count = 3
    while not messages.empty():
        messages.get()
        count += 1

    assert count <= (time.monotonic() - start) / 0.02
    # What was held up came late, and the next one at its own time, not an interval later; unless the machine was slow.
    assert second - first < 0.02 or (second - start) / 0.02 > 7


@pytest.mark.parametrize("tell", [tell_later, tell_every])
def test_cancelled_message_is_not_told(ref, tell):
    messages = received(ref)
    scheduled = tell(ref, 0.02, "never")

    assert scheduled.cancel()

    assert not scheduled.cancel()
    assert scheduled.is_over()
    after(0.05).get(timeout=TIMEOUT)
    assert messages.empty()


@pytest.mark.parametrize("end", [terminate, lambda ref: ref.stop(block=False)], ids=["terminate", "stop"])
@pytest.mark.parametrize("tell", [tell_later, tell_every])
def test_message_ends_with_the_actor_and_is_freed_then(tell, end):
    class Message:
        pass

    message = Message()
    reference = weakref.ref(message)
    ref = Receiver.start()
    scheduled = tell(ref, 3600, message)
    del message

    end(ref).get(timeout=TIMEOUT)
    terminate(ref).get(timeout=TIMEOUT)

    assert scheduled.is_over()
    assert reference() is None
    assert tell(ref, 3600, "to an ended one").is_over()


@pytest.mark.parametrize("tell", [tell_later, tell_every])
def test_cancelled_message_is_freed_at_once_and_leaves_nothing_at_the_actor(ref, tell):
    class Message:
        pass

    message = Message()
    reference = weakref.ref(message)
    gc.disable()
    try:
        scheduled = tell(ref, 3600, message)
        scheduled.cancel()
        del message
        assert reference() is None
        scheduled = weakref.ref(scheduled)
        assert scheduled() is None
    finally:
        gc.enable()
    assert ref.actor_inbox._watchers == {}


def test_told_message_leaves_nothing_at_the_actor(ref):
    messages = received(ref)
    for number in range(100):
        tell_later(ref, 0, number)

    assert [messages.get(timeout=TIMEOUT)[1] for _ in range(100)] == list(range(100))
    assert ref.actor_inbox._watchers == {}


def test_message_is_told_although_nothing_keeps_what_was_returned(ref):
    messages = received(ref)
    tell_every(ref, 0.001, "tick")
    gc.collect()

    for _ in range(5):
        messages.get(timeout=TIMEOUT)


def held(when_full):
    """Start an actor whose mailbox of one message is full."""
    ref, begin, entered = Receiver.start(mailbox=1, when_full=when_full), Promise(), threading.Event()

    def hold(_):
        entered.set()
        begin.future.get(timeout=TIMEOUT)

    dispatch(ref, hold)
    assert entered.wait(TIMEOUT)
    ref.tell("full")
    return ref, begin


def test_full_mailbox_holds_up_no_timer_and_gets_no_repeated_message():
    ref, begin = held("wait")
    repeated = tell_every(ref, 0.001, "tick")
    tell_later(ref, 0.01, "later")

    after(0.05).get(timeout=TIMEOUT)
    assert ref.actor_inbox._queue.qsize() == 2
    begin.set(None)

    messages = received(ref)
    assert [messages.get(timeout=TIMEOUT)[1] for _ in range(4)] == ["full", "later", "tick", "tick"]
    repeated.cancel()
    ref.stop(timeout=TIMEOUT)


def test_message_to_a_full_mailbox_that_fails_is_dropped_and_logged(caplog):
    ref, begin = held("fail")
    tell_later(ref, 0, "later")

    after(0.02).get(timeout=TIMEOUT)
    begin.set(None)

    assert "A message that was due is dropped: 1 messages wait in the mailbox" in caplog.text
    while not ref.actor_inbox.empty():
        time.sleep(0.001)
    messages = received(ref)
    assert messages.get(timeout=TIMEOUT)[1] == "full"
    assert messages.empty()
    ref.stop(timeout=TIMEOUT)


def all_over(scheduled):
    return all(each.is_over() for each in scheduled)


@pytest.mark.parametrize("mailbox", [None, 2])
def test_many_messages_are_told_while_actors_end_and_senders_cancel(mailbox, caplog):
    caplog.set_level(logging.WARNING)
    for round_ in range(30):
        ref = Receiver.start(mailbox=mailbox, when_full="fail") if mailbox else Receiver.start()
        scheduled = [tell_every(ref, 0.0005 * (1 + number % 3), number) for number in range(20)]
        scheduled += [tell_later(ref, 0.0001 * number, number) for number in range(20)]
        time.sleep(0.0002 * round_)
        cancelled = [each.cancel() for each in scheduled[::3]]
        (terminate(ref) if round_ % 2 else ref.stop(block=False)).get(timeout=TIMEOUT)
        terminate(ref).get(timeout=TIMEOUT)
        wait_for(partial(all_over, scheduled))  # who waits for the actor may be told first
        assert len(cancelled) == 14

    assert "failed" not in caplog.text
    after(0.01).get(timeout=TIMEOUT)


def test_program_ends_although_messages_are_to_be_told():
    program = """
from pykka_imagestore.runtime import Actor, tell_every, tell_later
ref = Actor.start()
tell_every(ref, 0.01, "tick"), tell_later(ref, 3600, "later")
"""

    done = subprocess.run([sys.executable, "-c", program], timeout=TIMEOUT, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 1e300])
def test_odd_times_are_refused(ref, seconds):
    for tell in (tell_later, tell_every):
        with pytest.raises(ValueError, match="seconds is finite"):
            tell(ref, seconds, "never")
    with pytest.raises(ValueError, match="above 0"):
        tell_every(ref, 0, "never")


def test_actor_that_is_no_runtime_actor_is_refused():
    ref = pykka.ThreadingActor.start()
    try:
        with pytest.raises(TypeError, match="no runtime Actor"):
            tell_later(ref, 1, "never")
    finally:
        ref.stop()
