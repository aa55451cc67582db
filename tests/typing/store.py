"""What the type checker of a program that uses a store sees.

Never run: test_checkers.py has type checkers read it. A line that is wrong on purpose says so in a comment for each
checker, and each complains if it finds nothing wrong there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

import pykka_imagestore
from pykka_imagestore import (
    CheckReport,
    DiffID,
    Digest,
    DockerImage,
    Event,
    ImageInfo,
    ImagePut,
    Layer,
    LeasedImage,
    Limits,
    LocalStore,
    NotFoundError,
    Progress,
    Provisioner,
    Pruned,
    PutFailed,
    Recovery,
    ReferenceStore,
    Rootfs,
    StoreError,
    StoreStats,
    Usage,
)
from pykka_imagestore.runtime import Future, WorkerPool, await_all, collect, select


def each_method_has_its_future(store: LocalStore) -> None:
    assert_type(store.recover(), Future[Recovery])
    assert_type(store.load("images.tar"), Future[tuple[ImageInfo, ...]])
    assert_type(store.list(), Future[tuple[ImageInfo, ...]])
    assert_type(store.config("app"), Future[bytes])
    assert_type(store.remove("app"), Future[ImageInfo])
    assert_type(store.prune(keep=["app"], unused_for=60, budget_bytes=1 << 30), Future[Pruned])
    assert_type(store.usage(), Future[Usage])
    assert_type(store.check(deep=True), Future[CheckReport])
    assert_type(store.repair(), Future[CheckReport])
    assert_type(store.swept(), Future[None])
    assert_type(store.take_over("0123456789abcdef"), Future[LeasedImage])


async def having_root_file_systems(provisioner: Provisioner) -> None:
    assert_type(provisioner.provision("box", "app"), Future[Rootfs])
    with provisioner.temporary("box", "app", read_only=True) as rootfs:
        assert_type(rootfs, Rootfs)
    async with provisioner.temporary("box", "app") as awaited:
        assert_type(awaited, Rootfs)


def starting_a_store(directory: Path, pool: WorkerPool) -> None:
    with LocalStore.start(directory, budget_bytes=20 << 30, limits=Limits(entries=50_000_000), pool=pool) as store:
        assert_type(store, LocalStore)
        image = store.get("app").get(timeout=60)
        assert_type(image.layers[0], Layer)
        assert_type(image.layers[0].path, Path)
        assert_type(image.layers[0].diff_id, DiffID)
        assert_type(image.config_digest, Digest | None)
    LocalStore.start(directory, budget_bytes="20G")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_lease_says_what_comes(store: LocalStore, wanted: bool) -> None:
    assert_type(store.get("app"), Future[ImageInfo])
    assert_type(store.get("app", lease=False), Future[ImageInfo])
    assert_type(store.get("app", lease=True), Future[LeasedImage])
    assert_type(store.get("app", lease=wanted), Future[ImageInfo] | Future[LeasedImage])
    assert_type(store.put("app", "app.tar"), Future[ImageInfo])
    assert_type(store.put("app", "app.tar", lease=False), Future[ImageInfo])
    assert_type(store.put("app", "app.tar", lease=True), Future[LeasedImage])
    assert_type(store.put("app", "app.tar", lease=wanted), Future[ImageInfo] | Future[LeasedImage])

    with store.get("app", lease=True).get() as leased:
        assert_type(leased, LeasedImage)
        assert_type(leased.image, ImageInfo)
        assert_type(leased.token, str)
    print(store.get("app").get().token)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]


def chains_are_flat(store: LocalStore) -> None:
    assert_type(store.put("app", "app.tar").then(lambda image: store.config(image.name)), Future[bytes])
    assert_type(store.get("app").then(lambda image: image.layers[-1].path), Future[Path])
    assert_type(store.get("app").then(lambda image: store.config(image.name)).then(len), Future[int])
    assert_type(store.remove("app").then(lambda _: store.swept()), Future[None])


def put_if_missing(store: LocalStore) -> Future[ImageInfo]:
    def put(missing: Future[ImageInfo]) -> Future[ImageInfo]:
        error = missing.error()
        assert_type(error, BaseException | None)
        return store.put("app", "app.tar") if isinstance(error, NotFoundError) else missing

    found = store.get("app").repair(put)
    assert_type(found, Future[ImageInfo])
    return found


def what_stands_in_for_a_value(store: LocalStore) -> None:
    assert_type(store.get("app").recover(lambda _: None), Future[ImageInfo | None])
    assert_type(store.get("app").recover(lambda _: store.put("app", "app.tar")), Future[ImageInfo])
    assert_type(store.get("app").after(60, lambda _: None), Future[ImageInfo | None])
    assert_type(store.get("app").after(60, lambda _: store.put("app", "app.tar")), Future[ImageInfo])
    store.get("app").repair(lambda _: 7)  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType]


def futures_of_futures(store: LocalStore, names: Sequence[str]) -> None:
    puts = [store.put(name, f"{name}.tar") for name in names]
    assert_type(collect(puts), Future[list[ImageInfo]])
    assert_type(collect(store.get(name, lease=True) for name in names), Future[list[LeasedImage]])
    assert_type(select(puts), Future[ImageInfo])
    assert_type(await_all(puts), Future[list[Future[ImageInfo]]])
    assert_type(collect(puts).then(lambda images: [image.name for image in images]), Future[list[str]])


async def in_asyncio(store: LocalStore) -> None:
    assert_type(await store.get("app"), ImageInfo)
    async with asyncio.timeout(60):
        assert_type(await store.put("app", "app.tar", lease=True), LeasedImage)
    assert_type(await asyncio.wrap_future(store.config("app").to_concurrent()), bytes)
    assert_type(await asyncio.gather(store.get("a"), store.config("b")), tuple[ImageInfo, bytes])
    assert_type(await asyncio.wait_for(store.get("app"), 5), ImageInfo)


async def closed_by_an_event_loop() -> None:
    async with LocalStore.start("store") as store:
        assert_type(store, LocalStore)
    async with ReferenceStore.start("store") as references:
        assert_type(references, ReferenceStore)


def events_are_told() -> None:
    def note(event: Event) -> None:
        if isinstance(event, ImagePut):
            assert_type(event.names, tuple[str, ...])
        elif isinstance(event, PutFailed):
            assert_type(event.is_discarded, bool)

    def wrong(event: str) -> None:
        print(event)

    store = LocalStore.start("store", on_event=note)
    assert_type(store.stats(), StoreStats)
    assert_type(store.stats().puts, int)
    LocalStore.start("store", on_event=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def the_version_is_a_text() -> None:
    assert_type(pykka_imagestore.__version__, str)


def progress_is_told(store: LocalStore) -> None:
    def show(progress: Progress) -> None:
        print(progress.bytes_done, progress.bytes_expected)

    def wrong(progress: str) -> None:
        print(progress)

    store.put("app", "app.tar", progress=show)
    store.load("app.tar", progress=show)
    store.load("app.tar", progress=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors_say_what_they_know(store: LocalStore) -> None:
    try:
        store.get("app").get(timeout=60)
    except NotFoundError as error:
        assert_type(error.name, str)
    except StoreError:
        raise


def references(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        assert_type(references.put("app", [DiffID("sha256:0")], Digest("sha256:1")), Future[DockerImage])
        assert_type(references.list(), Future[tuple[DockerImage, ...]])
        references.put("app", ["sha256:0"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
