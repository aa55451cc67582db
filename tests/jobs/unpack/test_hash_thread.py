from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import TIMEOUT

from pykka_imagestore.jobs.unpack.hash_thread import HashThread


@given(st.lists(st.booleans()))
def test_steps_are_done_in_their_order_wherever_each_is_done(beside):
    done = []

    with HashThread() as hash_thread:
        for number, is_enabled in enumerate(beside):
            hash_thread.enable(is_enabled=is_enabled)
            hash_thread.do(done.append, b"%d" % number)

    assert done == [b"%d" % number for number in range(len(beside))]


def test_caller_goes_on_beside_a_step():
    gate = threading.Event()

    with HashThread() as hash_thread:
        hash_thread.enable(is_enabled=True)
        hash_thread.do(lambda _: gate.wait(TIMEOUT), b"")  # would wait in vain, were it done before ``do`` returns
        gate.set()


def test_steps_that_wait_are_bounded():
    gate, begun = threading.Event(), threading.Event()

    def fill(hash_thread):
        for _ in range(100):
            hash_thread.do(lambda _: gate.wait(TIMEOUT), b"")
            begun.set()

    with HashThread() as hash_thread:
        hash_thread.enable(is_enabled=True)
        filler = threading.Thread(target=fill, args=(hash_thread,))
        filler.start()
        begun.wait(TIMEOUT)
        filler.join(0.2)
        assert filler.is_alive()
        gate.set()
        filler.join()


@pytest.mark.parametrize("beside", [True, False])
def test_what_a_step_raises_is_raised(beside):
    def fail(_):
        msg = "no room"
        raise OSError(msg)

    def enter():
        with HashThread() as hash_thread:
            hash_thread.enable(is_enabled=beside)
            hash_thread.do(fail, b"")

    with pytest.raises(OSError, match="no room"):
        enter()


def test_after_an_error_of_the_caller_nothing_more_is_begun():
    gate, done = threading.Event(), []

    def open_when_dropped(hash_thread):
        while not hash_thread._dropped:
            time.sleep(0.001)  # there is nothing to wait on
        gate.set()

    def enter():
        with HashThread() as hash_thread:
            hash_thread.enable(is_enabled=True)
            hash_thread.do(lambda _: gate.wait(TIMEOUT), b"")
            hash_thread.do(done.append, b"late")
            threading.Thread(target=open_when_dropped, args=(hash_thread,)).start()
            raise KeyError

    with pytest.raises(KeyError):
        enter()

    assert done == []
