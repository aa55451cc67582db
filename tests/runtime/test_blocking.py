from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.runtime import DiscardedError, run_blocking


class Call:
    """A call that blocks until it is told to go on."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.undone = threading.Event(), threading.Event(), threading.Event()
        self.results = []

    def __call__(self):
        self.begun.set()
        assert self.go_on.wait(TIMEOUT)
        return self

    def undo(self, result):
        self.results.append(result)
        self.undone.set()


@pytest.fixture
def call():
    return Call()


def test_result_is_that_of_the_function_in_a_thread_of_its_own():
    here = threading.current_thread()

    threads = [run_blocking(threading.current_thread, undo=print).get(timeout=TIMEOUT) for _ in range(2)]

    assert len({here, *threads}) == 3


def test_error_is_that_of_the_function():
    with pytest.raises(ValueError, match="invalid literal"):
        run_blocking(lambda: int("x"), undo=print).get(timeout=TIMEOUT)


def test_calls_do_not_wait_for_each_other(call):
    blocked = run_blocking(call, undo=call.undo)

    assert run_blocking(lambda: 5, undo=print).get(timeout=TIMEOUT) == 5

    call.go_on.set()
    assert blocked.get(timeout=TIMEOUT) is call
    assert not call.undone.is_set()


def test_discard_gives_the_call_up_at_once_and_undoes_what_it_got(call):
    future = run_blocking(call, undo=call.undo)
    assert call.begun.wait(TIMEOUT)

    future.discard()

    with pytest.raises(DiscardedError):
        future.get(timeout=0)
    call.go_on.set()
    assert call.undone.wait(TIMEOUT)
    assert call.results == [call]


def test_call_that_blocks_does_not_keep_the_program_from_ending():
    program = (
        "import threading\n"
        "from pykka_imagestore.runtime import run_blocking\n"
        "future = run_blocking(threading.Event().wait, undo=print)\n"
        "print('ends')"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "ends\n", "")
