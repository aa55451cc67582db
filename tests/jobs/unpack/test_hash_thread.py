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

    with HashThread() as behind:
        for number, behind.beside in enumerate(beside):
            behind.do(done.append, b"%d" % number)

    assert done == [b"%d" % number for number in range(len(beside))]


def test_caller_goes_on_beside_a_step():
    gate = threading.Event()

    with HashThread() as behind:
        behind.beside = True
        behind.do(lambda _: gate.wait(TIMEOUT), b"")  # would wait in vain, were it done before ``do`` returns
        gate.set()


def test_steps_that_wait_are_bounded():
    gate, begun = threading.Event(), threading.Event()

    def fill(behind):
        for _ in range(100):
            behind.do(lambda _: gate.wait(TIMEOUT), b"")
            begun.set()

    with HashThread() as behind:
        behind.beside = True
        filler = threading.Thread(target=fill, args=(behind,))
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
        with HashThread() as behind:
            behind.beside = beside
            behind.do(fail, b"")

    with pytest.raises(OSError, match="no room"):
        enter()


def test_after_an_error_of_the_caller_nothing_more_is_begun():
    gate, done = threading.Event(), []

    def open_when_dropped(behind):
        while not behind._dropped:
            time.sleep(0.001)  # there is nothing to wait on
        gate.set()

    def enter():
        with HashThread() as behind:
            behind.beside = True
            behind.do(lambda _: gate.wait(TIMEOUT), b"")
            behind.do(done.append, b"late")
            threading.Thread(target=open_when_dropped, args=(behind,)).start()
            raise KeyError

    with pytest.raises(KeyError):
        enter()

    assert done == []
