"""What the type checker of a program of actors sees. Never run; see store.py."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
import zlib
from collections.abc import Callable
from typing import assert_type

import pykka

from pykka_imagestore import ImageInfo, LocalStore
from pykka_imagestore.runtime import (
    Actor,
    Future,
    Promise,
    ScheduledMessage,
    SingleFlight,
    WorkerPool,
    after,
    collect,
    defer,
    discard_all,
    dispatch,
    failed,
    gather,
    limit,
    ready,
    run_blocking,
    select,
    tell_every,
    tell_later,
    terminate,
    undiscardable,
)


class Agent(Actor):
    def __init__(self, store: LocalStore, pool: WorkerPool) -> None:
        super().__init__()
        self._store = store
        self._pool = pool
        self._images: dict[str, ImageInfo] = {}

    async def on_start(self) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        await after(0.1)

    def count(self) -> int:
        return len(self._images)

    def find(self, name: str, default: ImageInfo | None = None) -> ImageInfo | None:
        return self._images.get(name, default)

    def config(self, name: str) -> Future[bytes]:
        return self._store.config(name)

    async def prepare(self, name: str, *, archive: str) -> ImageInfo:
        image = await self._store.put(name, archive)
        assert_type(image, ImageInfo)
        self._images[name] = image
        return image

    async def checksums(self, *data: bytes) -> list[int]:
        sums = await gather([self._pool.run(zlib.crc32, each) for each in data])
        assert_type(sums, list[int])
        return sums


def dispatched_methods_keep_their_types(agent: pykka.ActorRef[Agent]) -> None:
    assert_type(dispatch(agent, Agent.count), Future[int])
    assert_type(dispatch(agent, Agent.find, "app"), Future[ImageInfo | None])
    assert_type(dispatch(agent, Agent.config, "app"), Future[bytes])
    assert_type(dispatch(agent, Agent.prepare, "app", archive="app.tar"), Future[ImageInfo])
    assert_type(dispatch(agent, Agent.checksums, b"a", b"b"), Future[list[int]])
    assert_type(terminate(agent), Future[bool])
    assert_type(discard_all([dispatch(agent, Agent.count), after(5)]), Future[None])


def dispatched_arguments_are_checked(agent: pykka.ActorRef[Agent]) -> None:
    dispatch(agent, Agent.find, 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    dispatch(agent, Agent.prepare, "app")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    dispatch(agent, Agent.count, "app")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def deferred_methods_keep_their_types(agent: pykka.ActorRef[Agent]) -> None:
    assert_type(defer(agent, Agent.count)(), Future[int])
    assert_type(defer(agent, Agent.find)("app"), Future[ImageInfo | None])
    assert_type(defer(agent, Agent.config)("app"), Future[bytes])
    assert_type(defer(agent, Agent.prepare)("app", archive="app.tar"), Future[ImageInfo])
    defer(agent, Agent.find)(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def an_actor_starts_as_in_pykka(store: LocalStore, pool: WorkerPool) -> None:
    agent = Agent.start(store, pool)
    assert_type(agent, pykka.ActorRef[Agent])
    assert_type(dispatch(agent, Agent.count).get(timeout=5), int)


def size_of(text: str) -> int:
    return len(text)


def a_pool_keeps_types(pool: WorkerPool) -> None:
    assert_type(pool.run(size_of, "hello"), Future[int])
    assert_type(pool.run(math.factorial, 10), Future[int])
    assert_type(pool.run(time.sleep, 0.1, time_limit=5, retry=True), Future[None])
    assert_type(pool.run(size_of, "hello").then(lambda size: size / 2), Future[float])
    pool.run(size_of, 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with WorkerPool(2, threads=True) as threads:
        assert_type(threads, WorkerPool)
    assert_type(run_blocking(lambda: "done", undo=print), Future[str])


def futures(number: Future[int], text: Future[str]) -> None:
    assert_type(number.get(), int)
    assert_type(number.then(str), Future[str])
    assert_type(number.then(lambda _: text), Future[str])
    assert_type(number.then(lambda value: ready(value + 1)), Future[int])
    assert_type(number.then(lambda _: after(1)), Future[None])
    assert_type(number.map(str), Future[str])
    assert_type(number.recover(lambda _: "none"), Future[int | str])
    assert_type(number.recover(lambda _: text), Future[int | str])
    assert_type(number.recover(lambda _: 0), Future[int])
    assert_type(number.repair(lambda _: 0), Future[int])
    assert_type(number.repair(lambda _: number), Future[int])
    assert_type(number.after(1, lambda _: "late"), Future[int | str])
    assert_type(number.after(1, lambda _: text), Future[int | str])
    assert_type(number.on_ready(print).on_failed(print).on_any(print), Future[int])
    assert_type(number.watch(print), Callable[[], bool])
    assert_type(undiscardable(number), Future[int])
    assert_type(collect([number, number]), Future[list[int]])
    assert_type(select([number, number]), Future[int])
    assert_type(after(1), Future[None])
    assert_type(ready(7), Future[int])
    assert_type(number.to_concurrent(), concurrent.futures.Future[int])
    assert_type(Future.from_concurrent(number.to_concurrent()), Future[int])
    number.then(lambda value: value.upper())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
    plain: pykka.Future[int] = number
    del plain


def a_link_may_fail_or_go_on(number: Future[int]) -> Future[int]:
    def check(value: int) -> Future[int] | int:
        return failed(ValueError(value)) if value < 0 else value

    assert_type(number.then(check), Future[int])
    assert_type(number.recover(lambda _: check(0)), Future[int])
    return number.then(lambda value: failed(ValueError(value)))


def promises() -> Future[int]:
    promise: Promise[int] = Promise()
    assert_type(promise.future, Future[int])
    assert_type(promise.set(7), bool)
    promise.set(ready(7))
    promise.set("seven")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return promise.future


def single_flights(flights: SingleFlight[str, int], number: Future[int]) -> None:
    assert_type(flights.join("app", lambda: number), Future[int])
    assert_type(flights.find("app"), Future[int] | None)


class Limited(Actor):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @limit(4)
    async def fetch(self, digest: str) -> int:
        return len(self._name + digest)

    @limit(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    def plain(self) -> int:
        return 1


def limits_and_times(theirs: pykka.Future[int], number: Future[int]) -> None:
    ref = Limited.start("name", mailbox=10, when_full="fail")
    assert_type(ref, pykka.ActorRef[Limited])
    assert_type(dispatch(ref, Limited.fetch, "digest"), Future[int])
    dispatch(ref, Limited.fetch, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Limited.start("name", mailbox="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Limited.start("name", when_full="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(tell_later(ref, 1, "message"), ScheduledMessage)
    assert_type(tell_every(ref, 0.5, "message").cancel(), bool)
    assert_type(Future.from_pykka(theirs), Future[int])
    assert_type(collect([theirs, theirs]), Future[list[int]])
    assert_type(collect([number, number]), Future[list[int]])
    number.set_get_hook(lambda timeout: 7 if timeout is None else 8)


async def in_asyncio(number: Future[int], text: Future[str]) -> None:
    assert_type(await number, int)
    assert_type(await asyncio.wrap_future(number.to_concurrent()), int)
    assert_type(await asyncio.gather(number, text), tuple[int, str])
