"""An interrupt is an error like others in the threads that serve many; a Ctrl-C still interrupts the main thread."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any

import pykka
import pytest
from support.processes import TIMEOUT

from pykka_imagestore.runtime import (
    Actor,
    Future,
    Promise,
    SerialExecutor,
    after,
    dispatch,
    failed,
    ready,
    run_blocking,
)

ENDINGS = (KeyboardInterrupt, SystemExit, GeneratorExit)


@pytest.fixture(params=ENDINGS)
def ending(request):
    return request.param


@pytest.fixture(params=["raises", "gets"])
def raising(request, ending):
    """Return a callback that raises, by itself or because it gets what failed so."""

    def raises(_):
        raise ending

    def gets(_):
        failed(ending()).get()

    return {"raises": raises, "gets": gets}[request.param]


def test_timers_survive_what_a_callback_raises(raising, caplog):
    after(0.1).on_any(raising)

    after(0.2).get(timeout=TIMEOUT)

    after(0.001).get(timeout=TIMEOUT)
    assert "A future's callback failed" in caplog.text


def test_timers_survive_what_a_function_of_their_own_raises(raising):
    pending: Promise[int] = Promise()

    failing = pending.future.after(0.001, raising)

    assert isinstance(error_of(failing), ENDINGS)
    after(0.001).get(timeout=TIMEOUT)


def error_of(future):
    told = threading.Event()
    future.on_any(lambda _: told.set())
    assert told.wait(TIMEOUT)
    return future.error()


def test_serial_executor_survives_what_a_callback_and_a_function_raise(raising, caplog):
    executor, begin = SerialExecutor("executor"), threading.Event()
    first = executor.run(begin.wait, TIMEOUT)
    first.on_any(raising)
    second = executor.run(raising, None)
    begin.set()

    assert executor.run(len, "abc").get(timeout=TIMEOUT) == 3

    assert isinstance(second.error(), ENDINGS)
    assert "A future's callback failed" in caplog.text
    executor.close()


def test_call_that_may_block_passes_on_what_it_raises(ending):
    def call():
        raise ending

    assert isinstance(error_of(run_blocking(call, undo=len)), ending)


class Raising(Actor):
    def __init__(self, at=""):
        super().__init__()
        self._at = at

    def echo(self, value):
        return value

    def raises(self, ending):
        raise ending

    async def raises_later(self, ending):
        await after(0.001)
        raise ending

    async def raises_at_once(self, ending):
        raise ending

    def on_receive(self, ending):
        raise ending

    def on_start(self):
        if self._at == "start":
            raise KeyboardInterrupt

    def on_stop(self):
        if self._at == "stop":
            raise KeyboardInterrupt

    def on_failure(self, *_):
        if self._at == "failure":
            raise KeyboardInterrupt

    def exited(self, _):
        raise KeyboardInterrupt


@pytest.fixture
def bystander():
    ref = Raising.start()
    yield ref
    assert ref.is_alive()
    assert dispatch(ref, Raising.echo, 1).get(timeout=TIMEOUT) == 1
    ref.stop(timeout=TIMEOUT)


@pytest.mark.parametrize("method", [Raising.raises, Raising.raises_later, Raising.raises_at_once])
@pytest.mark.usefixtures("bystander")
def test_what_a_method_raises_goes_to_its_caller_and_no_actor_ends(method, ending):
    ref = Raising.start()

    assert isinstance(error_of(dispatch(ref, method, ending)), ending)

    assert dispatch(ref, Raising.echo, 1).get(timeout=TIMEOUT) == 1
    assert ref.is_alive()


@pytest.mark.usefixtures("bystander")
def test_what_is_asked_with_a_message_raises_in_the_caller(ending):
    ref = Raising.start()

    with pytest.raises(ending):
        ref.ask(ending, timeout=TIMEOUT)

    assert ref.is_alive()


def test_what_is_told_and_is_no_exception_stops_all_actors_as_in_pykka(ending, caplog):
    caplog.set_level(logging.DEBUG, "pykka")
    stopped: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Stopping(Raising):
        def __init__(self, name):
            super().__init__()
            self._name = name

        def on_stop(self):
            stopped.put(self._name)

    first, second, third, fourth = (Stopping.start(name) for name in ("first", "second", "third", "fourth"))

    third.tell(ending)

    assert [stopped.get(timeout=TIMEOUT) for _ in range(4)] == ["third", "fourth", "second", "first"]
    assert not any(ref.is_alive() for ref in (first, second, third, fourth))
    assert f"{ending()!r} in {third}. Stopping all actors." in caplog.messages
    with pytest.raises(pykka.ActorDeadError):
        dispatch(third, Raising.echo, 1).get(timeout=TIMEOUT)


def test_actor_that_waits_for_the_one_that_stops_all_is_answered():
    begin: Promise[None] = Promise()
    raising, waiting = Raising.start(), Raising.start()
    held = dispatch(raising, lambda _: begin.future.get(timeout=TIMEOUT))
    raising.tell(SystemExit)
    waits = dispatch(waiting, lambda _: dispatch(raising, Raising.echo, 1).get(timeout=TIMEOUT))
    begin.set(None)

    assert isinstance(error_of(waits), pykka.ActorDeadError)
    assert held.get(timeout=TIMEOUT) is None


@pytest.mark.usefixtures("bystander")
def test_exception_that_is_told_ends_its_actor_alone(caplog):
    ref = Raising.start()
    ref.tell(OSError)

    with pytest.raises(pykka.ActorDeadError):
        dispatch(ref, Raising.echo, 1).get(timeout=TIMEOUT)

    assert "OSError" in caplog.text


@pytest.mark.parametrize("method", [Raising.raises_later, Raising.raises_at_once])
@pytest.mark.usefixtures("bystander")
def test_actor_survives_what_an_async_method_raises_that_was_told(method, ending):
    ref = Raising.start()

    getattr(ref.proxy(), method.__name__).defer(ending)

    assert dispatch(ref, lambda _: after(0.01)).get(timeout=TIMEOUT) is None
    assert ref.is_alive()


@pytest.mark.usefixtures("bystander")
def test_actor_survives_what_a_callback_of_its_answer_raises(raising, caplog):
    ref, begin = Raising.start(), Promise()
    waits = dispatch(ref, lambda _: begin.future.get(timeout=TIMEOUT))
    answer = dispatch(ref, Raising.echo, 1)
    answer.on_any(raising)
    begin.set(None)
    waits.get(timeout=TIMEOUT)

    assert dispatch(ref, Raising.echo, 2).get(timeout=TIMEOUT) == 2
    assert "A future's callback failed" in caplog.text


@pytest.mark.parametrize("at", ["start", "stop", "failure"])
@pytest.mark.usefixtures("bystander")
def test_what_a_hook_raises_ends_its_actor_in_order(at, caplog):
    ref: Any = Raising.start(at)
    ended = threading.Event()
    ref.actor_inbox.on_ended(ended.set)

    if at == "failure":
        ref.tell(OSError)
    else:
        ref.stop(timeout=TIMEOUT)

    assert ended.wait(TIMEOUT)
    assert "KeyboardInterrupt" in caplog.text


def test_traceback_of_what_a_method_raises_leads_to_where_it_was_raised():
    seen = []

    class Failing(Raising):
        def on_failure(self, _kind, _error, where):
            seen.append(where)

    ref = Failing.start()
    for method in (Raising.raises, Raising.raises_at_once, Raising.raises_later):
        error = error_of(dispatch(ref, method, LookupError))
        assert "raise ending" in "".join(traceback.format_tb(error.__traceback__))
        with pytest.raises(LookupError) as info:
            dispatch(ref, method, LookupError).get(timeout=TIMEOUT)
        assert info.traceback[-1].name == method.__name__

    ref.tell(LookupError)

    assert isinstance(error_of(dispatch(ref, Raising.echo, 1)), pykka.ActorDeadError)
    assert traceback.extract_tb(seen[0])[-1].name == "on_receive"


def test_actor_survives_what_its_exited_raises(bystander):
    other = Raising.start()
    dispatch(bystander, lambda actor: actor.link(other)).get(timeout=TIMEOUT)

    other.stop(timeout=TIMEOUT)

    assert dispatch(bystander, Raising.echo, 1).get(timeout=TIMEOUT) == 1


@pytest.fixture
def _ctrl_c_interrupts():
    """Have SIGINT do what it does where a program is started in the foreground."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_interrupts")
def test_ctrl_c_interrupts_the_main_thread_in_a_callback_once_all_have_been_told():
    promise, told = Promise(), []
    promise.future.on_any(lambda _: os.kill(os.getpid(), signal.SIGINT))
    promise.future.on_any(told.append)

    with pytest.raises(KeyboardInterrupt):
        promise.set(1)

    assert told == [promise.future]


@pytest.mark.usefixtures("_ctrl_c_interrupts")
def test_ctrl_c_interrupts_the_main_thread_where_it_waits_and_the_future_is_unaffected():
    promise: Promise[int] = Promise()
    after(0.05).on_any(lambda _: os.kill(os.getpid(), signal.SIGINT))

    with pytest.raises(KeyboardInterrupt):
        promise.future.get(timeout=TIMEOUT)

    assert promise.set(1)
    assert promise.future.get(timeout=0) == 1


def test_ctrl_c_ends_a_program_that_runs_callbacks_in_its_main_thread():
    program = (
        "import time; from pykka_imagestore.runtime import ready\n"
        "ready(1).then(lambda _: ready(2).on_any(lambda _: (print('in', flush=True), time.sleep(20))))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)

    assert b"KeyboardInterrupt" in errors
    assert process.returncode


def test_future_that_failed_with_an_interrupt_passes_it_on_through_links():
    future: Future[int] = failed(KeyboardInterrupt())

    assert isinstance(future.then(lambda value: value).error(), KeyboardInterrupt)
    assert future.recover(lambda _: 1).get(timeout=0) == 1
    assert ready(1).then(lambda value: value).get(timeout=0) == 1
