"""Get hooks, and with them the futures of Pykka's own: a function is called where the value is asked for."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import weakref
from functools import partial

import pykka
import pytest
from support.processes import TIMEOUT

from pykka_imagestore.runtime import Actor, DiscardedError, Future, Promise, collect, dispatch, gather, ready


class HookError(Exception):
    pass


class Hook:
    """A hook that waits until it may return, and counts its calls."""

    def __init__(self, value=1):
        self.value, self.calls = value, []
        self.may_return, self.was_called = threading.Event(), threading.Event()

    def __call__(self, timeout):
        self.calls.append((timeout, threading.current_thread()))
        self.was_called.set()
        if not self.may_return.wait(TIMEOUT if timeout is None else timeout):
            raise pykka.Timeout
        return self.value


@pytest.fixture
def hook():
    return Hook()


@pytest.fixture
def future(hook):
    future: Future[int] = Future()
    future.set_get_hook(hook)
    return future


def test_hook_is_called_by_the_first_get_in_its_thread_with_its_timeout(future, hook):
    hook.may_return.set()
    assert future.is_pending()

    assert future.get(timeout=3) == future.get(timeout=4) == 1

    assert hook.calls == [(3, threading.current_thread())]
    assert future.is_ready()


def test_hook_that_times_out_is_called_again(future, hook):
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0)
    hook.may_return.set()

    assert future.get(timeout=0) == 1


def test_what_a_hook_raises_is_raised_by_get_and_the_next_get_calls_it_again():
    answers = iter([HookError("first"), 2])

    def answer(_):
        value = next(answers)
        if isinstance(value, Exception):
            raise value
        return value

    future = Future()
    future.set_get_hook(answer)

    with pytest.raises(HookError):
        future.get()
    assert future.get() == 2


def test_observed_future_is_got_by_a_thread_once(future, hook):
    result = future.then(lambda value: value + 1)
    assert hook.was_called.wait(TIMEOUT)
    other = future.then(lambda value: value + 2)
    hook.may_return.set()

    assert result.get(timeout=TIMEOUT) == 2
    assert other.get(timeout=TIMEOUT) == 3
    assert future.get(timeout=0) == 1
    ((timeout, thread),) = hook.calls
    assert timeout is None
    assert thread.daemon


def test_get_of_an_observed_future_keeps_its_timeout(future, hook):
    result = future.then(lambda value: value + 1)
    assert hook.was_called.wait(TIMEOUT)

    with pytest.raises(pykka.Timeout):
        future.get(timeout=0.001)

    hook.may_return.set()
    assert result.get(timeout=TIMEOUT) == 2


def test_get_beside_a_get_that_is_in_the_hook_keeps_its_timeout(future, hook):
    thread = threading.Thread(target=future.get)
    thread.start()
    assert hook.was_called.wait(TIMEOUT)

    with pytest.raises(pykka.Timeout):
        future.get(timeout=0.001)

    hook.may_return.set()
    thread.join(TIMEOUT)
    assert len(hook.calls) == 1


def test_many_threads_get_the_value_of_one_call(future, hook):
    values: queue.SimpleQueue[int] = queue.SimpleQueue()
    threads = [threading.Thread(target=lambda: values.put(future.get())) for _ in range(20)]
    for thread in threads:
        thread.start()
    told = future.then(lambda value: value)
    hook.may_return.set()
    for thread in threads:
        thread.join(TIMEOUT)

    assert [values.get(timeout=TIMEOUT) for _ in threads] == [1] * 20
    assert told.get(timeout=TIMEOUT) == 1
    assert len(hook.calls) == 1


def test_future_whose_hook_raises_for_an_observer_has_failed_with_that():
    def raises(_):
        raise HookError("no value")

    future = Future()
    future.set_get_hook(raises)

    assert future.recover(lambda failed: str(failed.error())).get(timeout=TIMEOUT) == "no value"
    with pytest.raises(HookError):
        future.get(timeout=TIMEOUT)


def test_hook_that_is_set_later_serves_those_that_wait_already():
    future: Future[int] = Future()
    results: queue.SimpleQueue[int] = queue.SimpleQueue()
    doubled = future.then(lambda value: 2 * value)
    thread = threading.Thread(target=lambda: results.put(future.get()))
    thread.start()
    future.set_get_hook(lambda _: 21)

    assert doubled.get(timeout=TIMEOUT) == 42
    assert results.get(timeout=TIMEOUT) == 21
    thread.join(TIMEOUT)


def test_future_with_a_hook_takes_no_other_value_and_a_bound_or_final_one_no_hook(future, hook):
    source: Promise[int] = Promise()
    bound: Promise[int] = Promise()
    bound.associate(source.future)
    promise: Promise[int] = Promise()
    promise.future.set_get_hook(hook)

    for refuses in (lambda: future.set(2), lambda: future.set(ready(2)), lambda: future.set(pykka.ThreadingFuture())):
        with pytest.raises(queue.Full):
            refuses()
    for other in (ready(1), bound.future):
        with pytest.raises(queue.Full):
            other.set_get_hook(hook)
    assert not promise.set(2)
    assert not promise.set(pykka.ThreadingFuture())
    assert not promise.fail(HookError())
    del promise, bound
    assert hook.calls == []


def test_future_that_a_hook_returns_is_flattened():
    plain = pykka.ThreadingFuture()
    plain.set(5)
    for inner in (ready(5), plain):
        future = Future()
        future.set_get_hook(partial(return_it, inner))

        assert future.get(timeout=TIMEOUT) == 5


def return_it(value, _timeout):
    return value


def test_hook_and_its_future_are_freed_once_the_value_is_there_and_when_it_failed():
    for raises in (False, True):

        def answer(_, raises=raises):
            if raises:
                raise HookError
            return 1

        future = Future()
        future.set_get_hook(answer)
        done = threading.Event()
        future.on_any(partial(note, done))
        reference = weakref.ref(future)
        assert done.wait(TIMEOUT)
        gc.disable()
        try:
            while [thread for thread in threading.enumerate() if thread.name == "get-hook"]:
                threading.Event().wait(0.001)
            del future
            assert reference() is None
        finally:
            gc.enable()


def note(event, _):
    event.set()


# -- plain Pykka futures


class Returning(Actor):
    def give(self, future):
        return future

    async def give_later(self, future):
        return future

    async def wait(self, future):
        return await Future.from_pykka(future)

    async def wait_for_all(self, futures):
        return await gather(futures)


@pytest.fixture
def plain():
    return pykka.ThreadingFuture()


def set_soon(plain, value):
    threading.Timer(0.01, plain.set, (value,)).start()


@pytest.mark.parametrize("method", [Returning.give, Returning.give_later, Returning.wait])
def test_plain_future_of_a_method_is_flattened(method, plain):
    ref = Returning.start()

    answer = dispatch(ref, method, plain)
    observed = dispatch(ref, method, plain).then(lambda value: value + 1)
    set_soon(plain, 1)

    assert answer.get(timeout=TIMEOUT) == 1
    assert observed.get(timeout=TIMEOUT) == 2
    assert ref.proxy().give(plain).get(timeout=TIMEOUT) == 1
    ref.stop(timeout=TIMEOUT)


def test_plain_future_that_failed_fails_what_is_bound_to_it(plain):
    plain.set_exception((HookError, HookError("why"), None))
    ref = Returning.start()

    with pytest.raises(HookError, match="why"):
        dispatch(ref, Returning.give, plain).get(timeout=TIMEOUT)
    with pytest.raises(HookError, match="why"):
        dispatch(ref, Returning.wait, plain).get(timeout=TIMEOUT)
    ref.stop(timeout=TIMEOUT)


def test_join_collect_and_gather_take_plain_futures(plain):
    mapped = plain.map(lambda value: value + 1)
    ref = Returning.start()

    joined = ready(1).join(plain, mapped)
    collected = collect([plain, ready(1), mapped])
    gathered = dispatch(ref, Returning.wait_for_all, [plain, mapped])
    set_soon(plain, 2)

    assert joined.get(timeout=TIMEOUT) == [1, 2, 3]
    assert collected.get(timeout=TIMEOUT) == [2, 1, 3]
    assert gathered.get(timeout=TIMEOUT) == [2, 3]
    ref.stop(timeout=TIMEOUT)


def test_join_of_a_plain_future_takes_ours(plain):
    plain.set(1)

    assert plain.join(ready(2)).get(timeout=TIMEOUT) == [1, 2]


def test_plain_future_is_awaited_in_asyncio(plain):
    async def main():
        set_soon(plain, 7)
        return await Future.from_pykka(plain)

    assert asyncio.run(main()) == 7


def test_from_pykka_returns_ours_as_it_is():
    future = ready(1)

    assert Future.from_pykka(future) is future


def test_discard_gives_a_plain_future_up_at_once(plain):
    future = Future.from_pykka(plain)
    result = future.then(lambda value: value)

    assert future.discard()

    assert future.is_discarded()
    with pytest.raises(DiscardedError):
        result.get(timeout=TIMEOUT)
    plain.set(1)


def test_discarded_method_that_awaits_a_plain_future_ends(plain):
    ref = Returning.start()
    answer = dispatch(ref, Returning.wait, plain)
    dispatch(ref, Returning.give, 1).get(timeout=TIMEOUT)

    answer.discard()

    with pytest.raises(DiscardedError):
        answer.get(timeout=TIMEOUT)
    ref.stop(timeout=TIMEOUT)
    plain.set(1)
