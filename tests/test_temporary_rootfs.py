"""Root file systems for a block: destroyed when it ends, whichever way it began and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.containers import Plain, provisioning
from support.images import docker_save, layer
from support.processes import TIMEOUT, wait_for

from pykka_imagestore import ContainerExistsError, LocalStore, NotFoundError, Provisioner
from pykka_imagestore.runtime import Actor, dispatch


@pytest.fixture
def backend() -> Plain:
    return Plain()


@pytest.fixture
def provisioner(store: LocalStore, tmp_path: Path, backend: Plain) -> Iterator[Provisioner]:
    archive = docker_save(tmp_path / "app.tar", {"app:1": [layer({"etc/hosts": b""})]})
    store.put("app:1", archive).get(timeout=TIMEOUT)
    with provisioning(store, backend) as provisioner:
        yield provisioner


def ids(provisioner: Provisioner) -> list[str]:
    return [each.container_id for each in provisioner.list().get(timeout=TIMEOUT)]


def test_it_is_there_in_the_block_and_gone_afterwards(provisioner: Provisioner, backend: Plain) -> None:
    with provisioner.temporary("box", "app:1", read_only=True) as rootfs:
        assert rootfs.container_id == "box"
        assert ids(provisioner) == ["box"]

    assert backend.requests[0].read_only
    assert ids(provisioner) == []


def test_error_in_the_block_destroys_it_and_passes_through(provisioner: Provisioner) -> None:
    with pytest.raises(ZeroDivisionError), provisioner.temporary("box", "app:1"):
        _ = 1 / 0

    assert ids(provisioner) == []


def test_block_that_destroys_it_itself_ends_well(provisioner: Provisioner) -> None:
    with provisioner.temporary("box", "app:1"):
        provisioner.destroy("box").get(timeout=TIMEOUT)

    assert ids(provisioner) == []


def test_block_that_cannot_begin_leaves_what_has_its_id(provisioner: Provisioner) -> None:
    provisioner.provision("box", "app:1").get(timeout=TIMEOUT)

    with pytest.raises(ContainerExistsError), provisioner.temporary("box", "app:1"):
        pytest.fail("it began")
    with pytest.raises(NotFoundError), provisioner.temporary("other", "app:2"):
        pytest.fail("it began")

    assert ids(provisioner) == ["box"]


def test_nothing_is_made_before_the_block(provisioner: Provisioner, backend: Plain) -> None:
    provisioner.temporary("box", "app:1")

    assert ids(provisioner) == []
    assert backend.requests == []


def test_it_serves_asyncio_which_may_cancel_it_before_it_is_there(provisioner: Provisioner, backend: Plain) -> None:
    async def use() -> str:
        async with provisioner.temporary("box", "app:1") as rootfs:
            return rootfs.container_id

    async def cancel() -> None:
        backend.goes_on.clear()
        backend.begun.clear()
        task = asyncio.create_task(use())
        assert await asyncio.to_thread(backend.begun.wait, TIMEOUT)
        task.cancel()
        backend.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert asyncio.run(use()) == "box"
    assert ids(provisioner) == []
    asyncio.run(cancel())
    wait_for(lambda: ids(provisioner) == [])


class User(Actor):
    def __init__(self, provisioner: Provisioner) -> None:
        super().__init__()
        self._provisioner = provisioner

    async def use(self) -> str:
        async with self._provisioner.temporary("box", "app:1") as rootfs:
            return rootfs.container_id


def test_it_serves_actors(provisioner: Provisioner) -> None:
    actor = User.start(provisioner)

    assert dispatch(actor, User.use).get(timeout=TIMEOUT) == "box"
    assert ids(provisioner) == []
    actor.stop(timeout=TIMEOUT)
