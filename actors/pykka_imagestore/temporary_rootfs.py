"""A root file system for the time of a ``with`` block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from pykka_imagestore.errors import ContainerNotFoundError
from pykka_imagestore.provision.provisioned import Rootfs
from pykka_imagestore.runtime import Future


class TemporaryRootfs:
    """A root file system that is made when a ``with`` or ``async with`` block begins, and destroyed when it ends.

    The block's end waits until it is destroyed; ``async with`` does so without blocking the event loop, or the actor. A
    block that cannot begin, or is interrupted before, leaves nothing. A process that is killed leaves the container,
    which the next ``recover`` of its owner destroys.
    """

    def __init__(self, provision: Callable[[], Future[Rootfs]], destroy: Callable[[], Future[None]]) -> None:
        self._provision = provision
        self._destroy = destroy

    def __enter__(self) -> Rootfs:
        coming = self._provision()
        try:
            return coming.get()
        except BaseException:
            self._give_up(coming)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        with suppress(ContainerNotFoundError):  # the block destroyed it
            self._destroy().get()

    async def __aenter__(self) -> Rootfs:
        coming = self._provision()
        try:
            return await coming
        except BaseException:
            self._give_up(coming)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        with suppress(ContainerNotFoundError):
            await self._destroy()

    def _give_up(self, coming: Future[Rootfs]) -> None:
        coming.discard()
        coming.on_ready(lambda _: self._destroy())  # a discard may come too late; one that failed is somebody else's
