from __future__ import annotations

import asyncio
import threading

import pytest

from pykka_imagestore.runtime import Actor, DiscardedError, Promise, after, dispatch, failed, ready


class OddError(Exception):
    pass


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 10))


class Doubler(Actor):
    async def double(self, number: int) -> int:
        await after(0.001)
        return 2 * number


def test_await_gives_the_answer_of_an_actor():
    ref = Doubler.start()

    async def main():
        return await dispatch(ref, Doubler.double, 21)

    assert run(main()) == 42


def test_awaiting_many_at_once_needs_no_thread_for_each():
    ref = Doubler.start()

    async def main():
        before = threading.active_count()
        answers = asyncio.gather(*(dispatch(ref, Doubler.double, number) for number in range(100)))
        more = threading.active_count() - before
        return await answers, more

    answers, more = run(main())

    assert answers == [2 * number for number in range(100)]
    assert more <= 1  # the timers' one


def test_await_raises_what_the_future_failed_with():
    async def main():
        with pytest.raises(OddError):
            await failed(OddError())
        promise = Promise()
        asyncio.get_running_loop().call_soon(promise.discard)
        with pytest.raises(DiscardedError):
            await promise.future
        return await ready("done")

    assert run(main()) == "done"


def test_cancelling_a_task_discards_what_it_awaits():
    promise = Promise()

    async def main():
        begun = asyncio.Event()

        async def wait():
            begun.set()
            await promise.future

        task = asyncio.create_task(wait())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())

    assert promise.future.has_discard()
    assert promise.future.is_pending()


def test_wait_for_times_out_and_discards():
    promise = Promise()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(promise.future, 0.001)

    run(main())

    assert promise.future.has_discard()


def test_wrap_future_of_to_concurrent():
    promise = Promise()

    async def main():
        wrapped = asyncio.wrap_future(promise.future.to_concurrent())
        threading.Thread(target=promise.set, args=("from a thread",)).start()
        return await wrapped

    assert run(main()) == "from a thread"


def test_as_completed_takes_them_in_the_order_of_completion():
    promises = [Promise() for _ in range(3)]

    async def main():
        wrapped = [asyncio.wrap_future(promise.future.to_concurrent()) for promise in promises]
        order = []
        for number, finished in zip((2, 0, 1), asyncio.as_completed(wrapped), strict=True):
            promises[number].set(number)
            order.append(await finished)
        return order

    assert run(main()) == [2, 0, 1]


def test_a_future_that_completes_after_its_loop_was_closed_raises_nothing(caplog):
    promise = Promise()

    async def main():
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()

    async def wait():
        await promise.future

    run(main())

    assert promise.set(1) is True
    assert caplog.text == ""
