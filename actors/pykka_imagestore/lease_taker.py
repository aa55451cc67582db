"""Leases of images, as callers are given them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from pykka_imagestore.core.image import DockerImage, ImageInfo
from pykka_imagestore.durable.layout import note_use
from pykka_imagestore.durable.leases import HeldLease, lease_image, take_over
from pykka_imagestore.errors import StoreError
from pykka_imagestore.leased_image import LeasedImage
from pykka_imagestore.runtime import Promise, SerialExecutor
from pykka_imagestore.store_parts import StoreParts


class LeaseTaker:
    """Leases images, for an actor's async methods.

    Args:
        executor: Takes the leases.
    """

    def __init__(self, parts: StoreParts, executor: SerialExecutor) -> None:
        self._paths = parts.paths
        self._references = parts.references
        self._locate = parts.layer_facts.locate
        self._executor = executor

    async def lease(self, name: str) -> LeasedImage:
        """Lease the image of a name; its layers are there, and stay."""
        while True:
            image = await self._references.get(name)
            info, lease = await self._executor.run(self._lease, image)
            try:
                # A removal may have come before the lease: only what is there under the lease stays.
                is_there = image == await self._references.get(name)
            except BaseException:
                lease.release()  # the error's traceback would keep it
                raise
            if is_there:
                return self._leased(image, info, lease)
            lease.release()

    async def take_over(self, token: str) -> LeasedImage:
        """Lease the image that the lease of a token is of."""
        image, lease = await self._executor.run(partial(take_over, self._paths), token)
        return self._leased(image, await self._executor.run(self._locate, image), lease)

    async def grant(self, lease_requests: Iterable[Promise[LeasedImage]], image: DockerImage) -> None:
        """Give each caller a lease of an image. The image must be leased until this returns."""
        wanted = [promise for promise in lease_requests if not promise.future.has_discard()]
        for promise in wanted:
            try:
                leased = self._leased(image, *await self._executor.run(self._lease, image))
            except (StoreError, OSError) as error:
                promise.fail(error)
            else:
                promise.set(leased)

    def _lease(self, image: DockerImage) -> tuple[ImageInfo, HeldLease]:
        lease = lease_image(self._paths, image)
        return self._locate(image), lease

    def _leased(self, image: DockerImage, info: ImageInfo, lease: HeldLease) -> LeasedImage:
        return LeasedImage(info, lease, partial(note_use, self._paths, image))
